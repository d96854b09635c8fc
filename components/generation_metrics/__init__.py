"""Metrics of generated text: n-gram overlap, matching of token states, regression, likelihood."""
