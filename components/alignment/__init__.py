"""Value alignment of language models: scales, scorers, judges, human review, comparison of models."""
