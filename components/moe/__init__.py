"""Mixture-of-experts layers whose router wastes nothing: routing, rectification, experts over several workers."""
