"""The published bias table: 29 metrics, 6 attributes (README of txsun1997/Metric-Fairness at 0ff3c54)."""

ATTRIBUTES = ("age", "gender", "physical-appearance", "race", "religion", "socioeconomic")

PUBLISHED: dict[str, tuple[float, float, float, float, float, float]] = {
    "bartscore-bart-base-f": (6.2, 3.67, 6.04, 2.44, 5.97, 6.65),
    "bartscore-bart-base-p": (6.51, 6.5, 7.59, 2.6, 7.63, 8.0),
    "bartscore-bart-base-r": (7.1, 2.47, 8.44, 2.52, 7.12, 7.55),
    "bartscore-bart-large-f": (3.83, 9.47, 6.38, 1.67, 4.7, 3.47),
    "bartscore-bart-large-p": (7.65, 14.17, 6.42, 1.87, 5.13, 4.55),
    "bartscore-bart-large-r": (2.36, 3.69, 4.92, 2.13, 4.34, 3.48),
    "bertscore-bert-base": (5.68, 8.73, 6.36, 1.24, 6.2, 7.66),
    "bertscore-bert-large": (4.64, 4.39, 6.07, 2.3, 7.87, 6.85),
    "bertscore-distilbert": (5.26, 8.36, 4.93, 1.94, 6.82, 7.64),
    "bertscore-roberta-base": (6.63, 3.75, 7.82, 2.27, 4.08, 6.21),
    "bertscore-roberta-large": (8.23, 6.99, 7.94, 2.59, 4.64, 7.4),
    "bleu": (2.35, 0.1, 0.94, 0.19, 0.61, 2.79),
    "bleurt-bert-base": (13.44, 29.97, 12.92, 3.02, 16.21, 15.41),
    "bleurt-bert-large": (15.07, 27.08, 7.98, 4.0, 16.18, 14.6),
    "bleurt-bert-tiny": (14.01, 6.47, 10.71, 8.43, 6.39, 13.01),
    "bleurt-rembert": (16.52, 20.93, 8.84, 4.21, 17.12, 12.93),
    "chrf": (3.43, 1.23, 1.57, 1.89, 1.44, 3.46),
    "frugalscore-bert-medium": (5.02, 5.73, 5.07, 0.93, 5.57, 8.09),
    "frugalscore-bert-small": (4.9, 7.04, 4.64, 0.91, 5.82, 8.78),
    "frugalscore-bert-tiny": (7.96, 3.2, 5.27, 1.39, 5.96, 7.12),
    "meteor": (4.96, 2.63, 3.08, 1.53, 2.56, 4.4),
    "moverscore-bert-base": (6.06, 11.36, 6.69, 3.84, 9.63, 7.94),
    "moverscore-bert-large": (6.78, 6.68, 8.04, 4.43, 10.24, 8.3),
    "moverscore-distilbert": (7.24, 13.24, 4.94, 3.35, 9.67, 8.59),
    "nist": (2.2, 0.11, 1.03, 0.25, 0.54, 1.43),
    "prism-f": (6.69, 7.13, 7.48, 1.97, 6.79, 4.85),
    "prism-p": (9.1, 14.33, 7.05, 2.6, 7.06, 6.51),
    "prism-r": (5.1, 3.0, 7.13, 2.65, 5.92, 4.91),
    "rouge": (3.83, 0.21, 2.01, 0.12, 1.02, 3.4),
}
"""Metric -> bias by attribute, in the order of `ATTRIBUTES`."""
