"""The published table: harmless rate (%) and harmless score of 17 models (README of AIFlames/Flames at 234bcb7)."""

import numpy as np

from paperflows.components.alignment.compare import mean_interval
from paperflows.components.alignment.scale import HARMLESS, SCALES, harmless_score

PUBLISHED: dict[str, tuple[float, tuple[tuple[float, float], ...]]] = {
    "ChatGPT": (46.91, ((45.38, 79.8), (45.45, 74.1), (42.79, 76.8), (45.65, 63.8), (55.26, 70.2))),
    "GPT-4": (40.01, ((41.37, 78.2), (27.51, 67.7), (50.75, 80.6), (30.43, 53.6), (50.0, 66.7))),
    "Claude": (63.77, ((53.41, 83.4), (28.44, 65.5), (77.11, 91.5), (71.74, 81.2), (88.16, 92.1))),
    "Minimax": (23.66, ((24.5, 69.9), (18.41, 59.6), (27.86, 70.5), (30.43, 53.6), (17.11, 44.7))),
    "Ernie Bot": (45.96, ((42.97, 78.8), (32.17, 69.2), (47.76, 78.1), (60.87, 73.9), (46.05, 64.0))),
    "InternLM-20B": (58.56, ((52.61, 83.5), (51.05, 79.2), (54.23, 81.4), (71.74, 81.2), (63.16, 75.4))),
    "MOSS-16B": (36.18, ((33.33, 74.6), (33.33, 70.6), (31.34, 71.0), (50.0, 66.7), (32.89, 55.3))),
    "Qwen-14B": (41.97, ((30.92, 72.2), (36.83, 74.7), (54.23, 82.3), (32.61, 55.1), (55.26, 70.2))),
    "Baichuan2-13B": (43.16, ((38.55, 76.4), (53.85, 81.7), (44.78, 77.9), (39.13, 59.4), (39.47, 59.6))),
    "BELLE-13B": (24.76, ((22.09, 68.4), (15.38, 57.8), (20.9, 66.5), (39.13, 59.4), (26.32, 50.9))),
    "InternLM-7B": (53.93, ((44.58, 78.0), (35.9, 69.1), (51.24, 80.3), (76.09, 84.1), (61.84, 74.6))),
    "Qwen-7B": (36.45, ((36.14, 77.2), (31.93, 69.2), (40.3, 76.1), (30.43, 53.6), (43.42, 62.3))),
    "Baichuan2-7B": (46.17, ((42.17, 79.4), (56.41, 81.6), (39.3, 76.0), (52.17, 68.1), (40.79, 60.5))),
    "ChatGLM-6B": (33.1, ((26.91, 72.3), (15.38, 60.4), (40.3, 75.6), (50.0, 66.7), (32.89, 55.3))),
    "ChatGLM2-6B": (33.86, ((31.73, 74.2), (22.61, 64.3), (43.28, 75.8), (28.26, 52.2), (43.42, 62.3))),
    "ChatGLM3-6B": (36.32, ((37.75, 77.8), (32.63, 70.0), (44.78, 77.1), (28.26, 52.2), (38.16, 58.8))),
    "ChatYuan-770M": (41.07, ((28.11, 72.3), (54.78, 79.1), (30.35, 71.0), (50.0, 66.7), (42.11, 61.4))),
}
"""Model -> overall, and (rate, score) by dimension in the order of `SCALES`."""

ROUNDING = 0.05 + 0.01  # scores are given to 0.1, rates to 0.01
ANSWERS = 10_000  # a rate of 0.01 % is one of them


def identities(model: str) -> dict[str, bool]:
    """Which identities a published row keeps: overall is the mean of rates, rate and score belong together.

    As many answers are scored as the rates say, and measured by what measures the models under test: on a two-point
    scale the rate determines the score; on a three-point scale all other answers are given 1, then 2, which bound it.
    """
    total, cells = PUBLISHED[model]
    groups, kept = {}, {}
    for (dimension, scale), (rate, score) in zip(SCALES.items(), cells, strict=True):
        full = round(rate * ANSWERS / 100)
        least, most = (
            harmless_score([HARMLESS] * full + [other] * (ANSWERS - full)) for other in (1, max(scale[:-1]))
        )  # fmt: skip
        kept[dimension] = least - ROUNDING < score < most + ROUNDING
        groups[dimension] = (np.arange(ANSWERS) < full).astype(np.float64)
    overall, _, _ = mean_interval(groups, resamples=1)
    return {"overall": abs(total - 100 * overall) <= 0.0101, **kept}
