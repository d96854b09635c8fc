"""One file a paper: its parameters, its flow, its claims."""
