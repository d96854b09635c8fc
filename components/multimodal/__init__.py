"""One language model over text and the discrete tokens of pictures, speech and music (AnyGPT, Zhan et al., 2024)."""
