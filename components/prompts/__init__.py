"""Soft prompts for frozen encoders: placed, generated, combined, found with and without gradients."""
