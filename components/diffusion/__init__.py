"""Text by absorbing-state diffusion: tokens are masked step by step, and a masked language model brings them back.

Source: "DiffusionBERT" (He et al. 2023); the absorbing process is D3PM's (Austin et al. 2021).
"""
