"""Trees of sentences: decoding, induction from language models, parsing, and models that read them."""
