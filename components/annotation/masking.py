"""Which words of a sentence are replaced by masks (CLAIF, section 3.1)."""

import random

MASK = "<mask>"
DEFAULT_RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def masked_positions(words: int, *, rate: float, seed: int, key: str = "") -> list[int]:
    """Sorted positions of the words to mask: `rate` of them, rounded, at least one when rate > 0.

    Args:
        words: number of words of the sentence.
        rate: share in [0, 1); 0 masks nothing (a paraphrase is asked for instead).
        seed, key: the choice is a function of both; the sentence itself is the usual key.

    Raises:
        ValueError: the rate is outside of [0, 1).
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"mask rate {rate} is outside of [0, 1)")
    if rate == 0.0 or words == 0:
        return []
    count = min(words, max(1, round(rate * words)))
    return sorted(random.Random(f"{seed}\0{key}").sample(range(words), count))


def mask_sentence(sentence: str, *, rate: float, seed: int) -> str:
    """The sentence with `rate` of its space-separated words replaced by `<mask>`."""
    words = sentence.split()
    for position in masked_positions(len(words), rate=rate, seed=seed, key=sentence):
        words[position] = MASK
    return " ".join(words)
