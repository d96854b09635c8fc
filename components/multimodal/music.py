"""Melodies as ids of events (pitch, duration, bar), from ABC notation and back without loss.

A duration's id is written only where the duration changes. Ids hold what sounds: key signatures and accidentals are
applied, and the way back writes every accidental.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SHARPS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F": -1, "Bb": -2, "Eb": -3, "Ab": -4}
RELATIVE = {"Am": "C", "Em": "G", "Bm": "D", "F#m": "A", "Dm": "F", "Gm": "Bb", "Cm": "Eb", "Fm": "Ab"}
TICKS = 96  # of a whole note
DURATIONS = (3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 36, 48, 54, 60, 64, 72, 84, 96, 108, 120, 144)
LOW, HIGH = 48, 100  # pitches as MIDI numbers
REST = -1
BAR_ID, REST_ID = 0, 1
_TOKEN = re.compile(r"(?P<tuplet>\(\d)|(?P<note>[\^_=]*[A-Ga-gz][,']*\d*/*\d*)|(?P<tie>-)|(?P<bar>:*\|+[:\]\d]*|::|\|)")


class NoMelody(ValueError):
    """A tune that these events cannot hold; the message says what stands in the way."""


@dataclass(frozen=True)
class Event:
    """A note or rest of a bar: MIDI number (-1: rest) and duration in 96ths of a whole note."""

    pitch: int
    ticks: int


def read_abc(abc: str, *, meter: str, key: str, unit: str = "") -> list[list[Event]]:
    """Bars of a tune's melody; chords, decorations, repeats and words are left out.

    Raises:
        NoMelody: a change of key, meter or unit, an unknown key, or a note outside the events' ranges.
    """
    if re.search(r"^[KML]:", abc, re.M) or re.search(r"\[[KML]:", abc):
        raise NoMelody("it changes key, meter or unit")
    text = re.sub(r'"[^"]*"|![^!]*!|\{[^}]*\}|^[A-Za-z]:.*$|\\', "", abc, flags=re.M)
    if "[" in re.sub(r"\[\d", "", text):
        raise NoMelody("it has chords of notes")
    text = re.sub(r"\[\d", "", text)
    signature = _signature(key)
    whole = Fraction(unit) if unit else Fraction(1, 8) if Fraction(meter) >= Fraction(3, 4) else Fraction(1, 16)
    bars: list[list[Event]] = [[]]
    altered: dict[str, int] = {}
    left, factor, tied = 0, Fraction(1), False
    for found in _TOKEN.finditer(text):
        kind, said = found.lastgroup, found.group()
        if kind == "bar":
            altered = {}
            if bars[-1]:
                bars.append([])
        elif kind == "tuplet":
            if said != "(3":
                raise NoMelody(f"a tuplet {said}")
            left, factor = 3, Fraction(2, 3)
        elif kind == "tie":
            tied = True
        else:
            event = _event(said, signature, altered, whole * (factor if left else 1))
            left = max(0, left - 1)
            last = bars[-1][-1] if bars[-1] else None
            if tied and last and last.pitch == event.pitch:
                bars[-1][-1] = _checked(Event(last.pitch, last.ticks + event.ticks))
            else:
                bars[-1].append(event)
            tied = False
    return [bar for bar in bars if bar]


def write_abc(bars: Sequence[Sequence[Event]], *, meter: str = "4/4", title: str = "tune") -> str:
    """A whole ABC file in units of 1/96 with no key signature, every accidental written."""
    body = "|".join("".join(_spell(event) for event in bar) for bar in bars)
    return f"X:1\nT:{title}\nM:{meter}\nL:1/{TICKS}\nK:C\n{body}|\n"


def parse_written(text: str) -> list[list[Event]]:
    """Bars of what `write_abc` wrote."""
    head, _, body = text.partition("\nK:C\n")
    found = re.search(r"^M:(.*)$", head, re.M)
    return read_abc(body, meter=found[1] if found else "4/4", key="C", unit=f"1/{TICKS}")


def excerpt(bars: Sequence[list[Event]], count: int) -> list[list[Event]]:
    """The first `count` bars that are as long as most bars are: a pick-up is left out, no bar is cut.

    Raises:
        NoMelody: there are fewer.
    """
    lengths = [sum(e.ticks for e in bar) for bar in bars]
    usual = max(set(lengths), key=lambda n: (lengths.count(n), n), default=0)
    full = [bar for bar, length in zip(bars, lengths, strict=True) if length == usual]
    if len(full) < count:
        raise NoMelody(f"it has {len(full)} whole bars, fewer than {count}")
    return full[:count]


class MusicTokenizer:
    """Bars as ids: a note is a pitch's id, before it a duration's where that differs from the last; a bar ends in 0."""

    begin, end = "<somu>", "<eomu>"
    exact = None
    n_ids = 2 + HIGH - LOW + len(DURATIONS)
    rate = "one or two a note"

    def encode(self, signals: Sequence[list[list[Event]]]) -> list[list[int]]:
        """Ids of each tune's bars."""
        return [self._ids(bars) for bars in signals]

    def decode(self, ids: Sequence[int]) -> list[list[Event]]:
        """Bars of one tune's ids; notes before the first duration are quarters, a last bar without its end is kept."""
        bars: list[list[Event]] = [[]]
        ticks = TICKS // 4
        for number in ids:
            if number == BAR_ID:
                bars.append([])
            elif number >= 2 + HIGH - LOW:
                ticks = DURATIONS[number - 2 - HIGH + LOW]
            else:
                bars[-1].append(Event(REST if number == REST_ID else number - 2 + LOW, ticks))
        return [bar for bar in bars if bar]

    def save(self, folder: Path) -> None:
        """Nothing is learnt."""

    def restore(self, folder: Path) -> "MusicTokenizer":
        """Nothing is learnt."""
        return self

    @staticmethod
    def _ids(bars: Sequence[Sequence[Event]]) -> list[int]:
        ids: list[int] = []
        ticks = 0
        for bar in bars:
            for event in bar:
                if event.ticks != ticks:
                    ticks = event.ticks
                    ids.append(2 + HIGH - LOW + DURATIONS.index(ticks))
                ids.append(REST_ID if event.pitch == REST else event.pitch - LOW + 2)
            ids.append(BAR_ID)
        return ids


def _signature(key: str) -> dict[str, int]:
    major = RELATIVE.get(key, key)
    if major not in SHARPS:
        raise NoMelody(f"key {key!r}")
    count = SHARPS[major]
    letters = "FCGDAEB"[:count] if count > 0 else "BEADGCF"[:-count]
    return dict.fromkeys(letters, 1 if count > 0 else -1)


def _event(said: str, signature: dict[str, int], altered: dict[str, int], unit: Fraction) -> Event:
    found = re.fullmatch(r"([\^_=]*)([A-Ga-gz])([,']*)(\d*)(/*)(\d*)", said)
    assert found
    accidental, letter, octave, top, slashes, bottom = found.groups()
    length = Fraction(int(top or 1), int(bottom) if bottom else 2 ** len(slashes)) * unit * TICKS
    if length.denominator != 1:
        raise NoMelody(f"a note of {length}/{TICKS}")
    if letter == "z":
        return _checked(Event(REST, int(length)))
    name = letter + octave
    if accidental:
        altered[name] = accidental.count("^") - accidental.count("_")
    shift = altered.get(name, signature.get(letter.upper(), 0))
    pitch = 60 + LETTERS[letter.upper()] + 12 * (letter.islower() + octave.count("'") - octave.count(",")) + shift
    return _checked(Event(pitch, int(length)))


def _checked(event: Event) -> Event:
    if event.ticks not in DURATIONS:
        raise NoMelody(f"a note of {event.ticks}/{TICKS}")
    if event.pitch != REST and not LOW <= event.pitch < HIGH:
        raise NoMelody(f"pitch {event.pitch}")
    return event


def _spell(event: Event) -> str:
    """A note with its accidental and its length in ticks; black keys are sharps."""
    if event.pitch == REST:
        return f"z{event.ticks}"
    octave, step = divmod(event.pitch - 60, 12)
    natural = max(place for place in LETTERS.values() if place <= step)
    letter = next(name for name, place in LETTERS.items() if place == natural)
    marks = "," * -octave if octave < 0 else "'" * max(0, octave - 1)
    return f"{'=' if step == natural else '^'}{letter if octave < 1 else letter.lower()}{marks}{event.ticks}"


def play(bars: Sequence[Sequence[Event]], *, rate: int = 8_000, whole: float = 2.0) -> NDArray[np.float32]:
    """Samples of the melody as decaying tones with two overtones; a whole note lasts `whole` seconds."""
    parts = []
    for event in (event for bar in bars for event in bar):
        at = np.arange(round(event.ticks / TICKS * whole * rate)) / rate
        pitch = 0.0 if event.pitch == REST else 440 * 2 ** ((event.pitch - 69) / 12)
        tone = sum(np.sin(2 * np.pi * pitch * k * at) / k**2 for k in (1, 2, 3))
        parts.append(tone * np.exp(-3 * at) * np.minimum(1, at * 200))
    return (0.5 * np.concatenate(parts)).astype(np.float32) if parts else np.zeros(1, np.float32)
