import os

# Triton reads this when it is imported; on a machine with a GPU the tests below run there instead.
os.environ.setdefault("TRITON_INTERPRET", "1")
