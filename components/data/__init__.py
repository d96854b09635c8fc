"""Datasets: schemas, readers, sources and the built-in world."""
