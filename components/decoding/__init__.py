"""How a language model's tokens are drawn, chosen for each input: settings, their search, and the model that says them.

Source: "LLM can Achieve Self-Regulation via Hyperparameter Aware Generation" (Wang et al. 2024).
"""
