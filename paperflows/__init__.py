"""Nineteen NLP papers, each a Prefect flow with its baselines and an honest verdict."""
