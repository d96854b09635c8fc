"""The methods themselves: plain torch and NumPy, usable as a library."""
