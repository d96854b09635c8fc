"""One interface to language models: an endpoint, a local model, recorded completions."""
