"""AI feedback: writing, judging and filtering sentence pairs."""
