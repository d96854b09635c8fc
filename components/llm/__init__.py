"""One client for language models behind four backends."""
