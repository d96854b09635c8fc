"""Described media made real: a recording, picture or tune of the description, altered, and checked by a judge."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperflows.components.multimodal.captions import facets
from paperflows.components.multimodal.judges import Judge
from paperflows.components.multimodal.music import HIGH, LOW, REST, Event


class Library:
    """The offline generator: signals of a training split by their description, each use altered anew.

    Pictures move by a part of a pixel and change brightness, with noise; recordings change pace and loudness; tunes
    start at another bar. It stands where the paper has DALL-E 3, MusicGen and Azure's voices.
    """

    name = "library"

    def __init__(self, items: Mapping[str, Sequence[tuple[str, Any]]]) -> None:
        self._items: dict[str, dict[str, list[Any]]] = {}
        for modality, pairs in items.items():
            by_text = self._items.setdefault(modality, {})
            for text, signal in pairs:
                by_text.setdefault(text, []).append(signal)

    def repertoire(self) -> dict[str, list[str]]:
        """Descriptions that can be converted, by modality."""
        return {modality: sorted(found) for modality, found in self._items.items()}

    def make(self, modality: str, description: str, seed: int) -> Any:
        """A signal of the description."""
        draw = random.Random(f"{seed}:{modality}:{description}")
        signal = draw.choice(self._items[modality][description])
        alter: dict[str, Callable[..., Any]] = {"picture": alter_picture, "speech": alter_speech, "music": alter_tune}
        return alter[modality](signal, draw)


def alter_picture(picture: NDArray[np.uint8], draw: random.Random) -> NDArray[np.uint8]:
    """Moved by up to 0.3 pixels each way, 85-100 % as bright, with noise on its ink."""
    from scipy.ndimage import shift

    noise = np.random.default_rng(draw.randrange(2**32)).normal(0, 8, picture.shape)
    moved = shift(picture.astype(float), (draw.uniform(-0.3, 0.3), draw.uniform(-0.3, 0.3), 0), order=1)
    return np.clip(moved * draw.uniform(0.85, 1.0) + noise * (moved > 0), 0, 255).astype(np.uint8)


def alter_speech(samples: NDArray[np.float32], draw: random.Random) -> NDArray[np.float32]:
    """Played 12 % slower to 12 % faster (pitch moves along), at 60-100 % of its loudness."""
    count = round(len(samples) * draw.uniform(0.88, 1.12))
    played = np.interp(np.linspace(0, len(samples) - 1, count), np.arange(len(samples)), samples)
    return (played * draw.uniform(0.6, 1.0)).astype(np.float32)


def alter_tune(bars: Sequence[Sequence[Event]], draw: random.Random) -> list[list[Event]]:
    """The same bars from another one on, an octave away where that is in range half of the time."""
    start = draw.randrange(len(bars))
    moved = [*bars[start:], *bars[:start]]
    step = draw.choice((0, 12, -12, 0))
    pitches = [e.pitch + step for bar in moved for e in bar if e.pitch != REST]
    if not all(LOW <= p < HIGH for p in pitches):
        step = 0
    return [[Event(e.pitch + step if e.pitch != REST else REST, e.ticks) for e in bar] for bar in moved]


def convert(
    generator: Library, judges: Mapping[str, Judge], wanted: Sequence[tuple[str, str]], *, tries: int, seed: int
) -> list[dict[str, Any]]:
    """Each (modality, description) as {"signal", "tries", "seed", "judged"}; the signal is None where all tries failed.

    A try that the judge does not recognise by the description's first facet is made again with another seed.
    """
    made: list[dict[str, Any]] = [{"signal": None, "tries": 0, "seed": None, "judged": ""} for _ in wanted]
    for attempt in range(tries):
        open_ = [i for i, one in enumerate(made) if one["signal"] is None]
        for modality in sorted({wanted[i][0] for i in open_}):
            some = [i for i in open_ if wanted[i][0] == modality]
            seeds = [(seed * 1_000_003 + i) * 17 + attempt for i in some]
            signals = [generator.make(modality, wanted[i][1], s) for i, s in zip(some, seeds, strict=True)]
            for i, signal, s, said in zip(some, signals, seeds, judges[modality].name(signals), strict=True):
                right = said == next(iter(facets(modality, wanted[i][1]).values()))
                made[i] = {"signal": signal if right else None, "tries": attempt + 1, "seed": s, "judged": said}
    return made
