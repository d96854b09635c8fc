"""Where models are loaded and built."""
