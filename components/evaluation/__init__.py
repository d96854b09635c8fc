"""Metrics, intervals, timing."""
