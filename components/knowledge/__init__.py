"""Words and knowledge in one graph: sentences whose entities bring their facts along, and an encoder that reads both.

Source: "CoLAKE: Contextualized Language and Knowledge Embedding" (Sun et al. 2020).
"""
