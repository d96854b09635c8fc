"""Contrastive learning of sentence embeddings."""
