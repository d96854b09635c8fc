"""Pictures, sounds and tunes of the built-in source, each made from its name alone.

Pictures are the 1,797 handwritten digits that scikit-learn carries. No library of the project's licence speaks, so the
spoken digits come from a small formant synthesiser of our own (below): sounds with the words' phonemes, not real
speech, and only for trying a flow without data. Tunes follow a small grammar of meters, keys and bars.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperflows.components.data.world.hashing import choose, part_of, stable_number

Row = dict[str, Any]
Floats = NDArray[np.float32]
RATE = 8_000  # samples a second
STEP = 8  # samples between two settings of the formants
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = {"low": (105.0, 1.0), "middle": (150.0, 1.08), "high": (205.0, 1.17)}  # pitch in Hz, formants times this
# phoneme -> (three formants in Hz, voicing 0..1, noise above this Hz or 0, milliseconds); Peterson and Barney's vowels
PHONEMES: dict[str, tuple[tuple[int, int, int], float, int, int]] = {
    "i": ((280, 2250, 2900), 1.0, 0, 90), "I": ((400, 1950, 2550), 1.0, 0, 80), "e": ((530, 1840, 2480), 1.0, 0, 80),
    "A": ((640, 1190, 2390), 1.0, 0, 90), "a": ((730, 1090, 2440), 1.0, 0, 90), "o": ((570, 840, 2410), 1.0, 0, 100),
    "u": ((320, 870, 2240), 1.0, 0, 90), "r": ((420, 1300, 1600), 0.8, 0, 60), "w": ((300, 610, 2200), 0.7, 0, 60),
    "n": ((280, 1500, 2500), 0.5, 0, 70), "v": ((280, 1100, 2200), 0.4, 1500, 50),
    "z": ((280, 1700, 2500), 0.4, 2500, 80),
    "s": ((280, 1700, 2500), 0.0, 2600, 110), "f": ((280, 1100, 2200), 0.0, 1200, 90),
    "T": ((280, 1400, 2200), 0.0, 1800, 80),
    "t": ((280, 1700, 2600), 0.0, 2200, 30), "k": ((280, 1900, 2400), 0.0, 1400, 35),
    "_": ((280, 1500, 2500), 0.0, 0, 40),
}  # fmt: skip
WORDS = {
    "zero": "zIro", "one": "wAn", "two": "_tu", "three": "Tri", "four": "for", "five": "faIv", "six": "sI_ks",
    "seven": "sevAn", "eight": "eI_t", "nine": "naIn",
}  # fmt: skip
KEYS = ("C", "G", "D", "F", "Am", "Em")
RHYTHMS = {
    "4/4": ("2222", "11112 2", "2 21111", "31 4", "22 4", "11111111"), "3/4": ("222", "2 1111", "4 2", "1111 2", "6"),
    "6/8": ("111111", "21 21", "3 111", "21 3", "111 3"), "2/4": ("1111", "2 11", "11 2", "31", "4"),
}  # fmt: skip


@lru_cache(maxsize=1)
def _digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits()


def picture_rows() -> dict[str, list[Row]]:
    """The handwritten digits with their words, by split."""
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for number, label in enumerate(_digits().target.tolist()):
        name = f"digits/{number}.png"
        splits[part_of(name)].append({"image": name, "text": NUMBERS[label], "digit": label})
    return splits


def picture(name: str) -> NDArray[np.uint8]:
    """(8, 8, 1) grey levels of `digits/NUMBER.png`, ink white on black."""
    pixels = _digits().images[int(name.removeprefix("digits/").removesuffix(".png"))]
    return np.asarray(pixels * (255 / 16), np.uint8)[:, :, None]


def speech_rows() -> dict[str, list[Row]]:
    """Every number by three voices, 30 takes to train on, 3 to validate and 6 to test."""
    takes = {"train": range(9, 39), "validation": range(6, 9), "test": range(6)}
    return {
        split: [
            {"audio": f"{word}/{voice}/{take}.wav", "text": word, "digit": digit, "speaker": voice, "take": take}
            for digit, word in enumerate(NUMBERS)
            for voice in VOICES
            for take in some
        ]
        for split, some in takes.items()
    }


def sound(name: str) -> Floats:
    """Samples in [-1, 1] of `WORD/VOICE/TAKE.wav`; a take has its own pitch, pace and place of the formants."""
    word, voice, _ = name.removesuffix(".wav").split("/")
    random = np.random.default_rng(stable_number("sound", name))
    pitch, scale = VOICES[voice]
    return speak(
        word, pitch * random.uniform(0.92, 1.08), scale * random.uniform(0.97, 1.03), random.uniform(0.85, 1.2), random
    )


def speak(word: str, pitch: float, scale: float, pace: float, random: np.random.Generator) -> Floats:
    """A number's phonemes: harmonics of a falling pitch under three formant resonances, and noise above a frequency."""
    sounds = [PHONEMES[p] for p in WORDS[word]]
    lengths = [round(ms * pace * RATE / 1000) for *_, ms in sounds]
    samples = sum(lengths)
    edges = np.cumsum([0, *lengths])
    middles = (edges[:-1] + edges[1:]) / 2
    steps = np.arange(0, samples, STEP)
    formants = np.stack([np.interp(steps, middles, [scale * s[0][f] for s in sounds]) for f in range(3)])
    voicing = np.interp(np.arange(samples), middles, [s[1] for s in sounds])
    fundamental = pitch * np.linspace(1.08, 0.88, samples)
    phase = 2 * np.pi * np.cumsum(fundamental) / RATE
    k = np.arange(1, int(RATE / 2 / fundamental.max()))[:, None]
    width = np.array([70.0, 100.0, 140.0])[:, None, None]
    peaks = 1 / (1 + ((k * fundamental[::STEP] - formants[:, None, :]) / width) ** 2)  # (3, K, S / STEP)
    loudness = (peaks * np.array([1.0, 0.6, 0.3])[:, None, None]).sum(0).repeat(STEP, 1)[:, :samples]
    voiced = voicing * (loudness * np.sin(k * phase)).sum(0)
    noise = np.zeros(samples)
    for (_, _, above, _), start, length in zip(sounds, edges, lengths, strict=False):
        if above:
            spectrum = np.fft.rfft(random.standard_normal(length))
            spectrum *= np.fft.rfftfreq(length, 1 / RATE) > above
            noise[start : start + length] += np.fft.irfft(spectrum, length) * np.hanning(length)
    mixed = voiced + 0.8 * noise
    mixed += 0.002 * random.standard_normal(samples)
    return (0.6 * mixed / np.abs(mixed).max()).astype(np.float32)


def tune_rows(split: str, count: int) -> list[Row]:
    """Tunes of eight bars: a walk over the scale of a key in rhythms of a meter, ending on the key's first note."""
    rows: list[Row] = []
    number = 0
    while len(rows) < count:
        name = f"tune {number}"
        number += 1
        if part_of(name) != split:
            continue
        meter, key = choose(tuple(RHYTHMS), name, "meter"), choose(KEYS, name, "key")
        random = np.random.default_rng(stable_number("tune", name))
        step, bars = int(random.integers(0, 8)), []
        for bar in range(8):
            notes = ""
            for length in choose(RHYTHMS[meter], name, bar % 4).replace(" ", ""):
                step = int(np.clip(step + random.integers(-2, 3), -2, 9))
                notes += _note(step, key) + (length if length != "1" else "")
            bars.append(notes)
        bars[-1] = _note(0, key) + {"4/4": "8", "3/4": "6", "6/8": "6", "2/4": "4"}[meter]
        title = f"{choose(('Road', 'Mill', 'Bridge', 'Harvest', 'River', 'Market'), name, 'a')} tune {number}"
        rows.append(
            {"id": number, "title": title, "meter": meter, "key": key, "unit": "1/8", "abc": "|".join(bars) + "|"}
        )
    return rows


def _note(step: int, key: str) -> str:
    """The scale's step counted from the key's first note above middle C, as written under the key's signature."""
    place = "CDEFGAB".index(key[0]) + step
    octave, letter = divmod(place, 7)
    name = "CDEFGAB"[letter]
    return {-1: name + ",", 0: name, 1: name.lower(), 2: name.lower() + "'"}[octave]
