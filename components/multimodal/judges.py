"""Judges that know no tokenizer: scikit-learn classifiers on features of the real signals.

Two panels with other features, learners and seeds: one checks what the synthesis converted, the other decides claims.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from paperflows.components.errors import InputError
from paperflows.components.multimodal.music import LOW, REST, TICKS

Panel = Literal["claims", "check"]
Features = NDArray[np.float64]


def features_of(modality: str, signal: Any, panel: Panel) -> Features:
    """(D,) features of one signal, none of which the tokenizers use."""
    if modality == "picture":
        return _pixels(signal) if panel == "claims" else _profile(signal)
    if modality == "speech":
        return _cepstra(signal, *((24, 256, 6) if panel == "claims" else (16, 128, 4)))
    if modality == "music":
        return _rhythm(signal, panel)
    return _colours(signal, 4 if panel == "claims" else 6)


class Judge:
    """Names a facet of signals of one modality.

    Args:
        panel: `claims` (a support vector machine) or `check` (a random forest on other features).
    """

    def __init__(self, modality: str, panel: Panel, *, seed: int) -> None:
        self.modality, self.panel, self.seed = modality, panel, seed
        self._classifier: Any = None

    def fit(self, signals: Sequence[Any], labels: Sequence[str]) -> "Judge":
        """Learn from real signals of a training split.

        Raises:
            InputError: all labels are the same.
        """
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        if len(set(labels)) < 2:
            raise InputError(
                f"{self.modality}: a judge has to tell two things apart, all training items are {labels[0]!r}"
            )
        learner = (
            SVC(C=10, random_state=self.seed)
            if self.panel == "claims"
            else RandomForestClassifier(200, random_state=self.seed, n_jobs=1)
        )
        # pixels share a scale; most of those at the border have next to no spread, which scaling would blow up
        steps = [learner] if self.modality == "picture" else [StandardScaler(), learner]
        self._classifier = make_pipeline(*steps).fit(self.features(signals), list(labels))
        return self

    def features(self, signals: Sequence[Any]) -> Features:
        """(N, D) of one signal or more."""
        return np.stack([features_of(self.modality, signal, self.panel) for signal in signals])

    def name(self, signals: Sequence[Any]) -> list[str]:
        """A label each; an empty signal (nothing decoded) gets the empty one."""
        found = [""] * len(signals)
        heard = [i for i, signal in enumerate(signals) if _holds(signal)]
        if heard:
            labels = self._classifier.predict(self.features([signals[i] for i in heard]))
            for i, label in zip(heard, labels, strict=True):
                found[i] = str(label)
        return found


def _holds(signal: Any) -> bool:
    return signal is not None and len(signal) > 0


def _pixels(picture: NDArray[np.uint8]) -> Features:
    return picture.astype(np.float64).ravel() / 255


def _profile(picture: NDArray[np.uint8]) -> Features:
    """Sums of rows, columns and both diagonals, and means of 2 x 2 blocks a pixel off any grid of patches."""
    grey = picture.mean(2) / 255
    width = grey.shape[1]
    row, column = np.indices(grey.shape)
    down = np.bincount((row + column).ravel(), grey.ravel())
    up = np.bincount((row - column + width).ravel(), grey.ravel())
    inner = (grey[:-1, :-1] + grey[1:, :-1] + grey[:-1, 1:] + grey[1:, 1:])[1::2, 1::2]
    return np.concatenate([grey.sum(0), grey.sum(1), down, up, inner.ravel()])


def _cepstra(samples: NDArray[np.floating], bands: int, window: int, parts: int) -> Features:
    """Means of 13 cepstral coefficients over `parts` equal parts of the recording, and its length."""
    from scipy.fft import dct
    from scipy.signal import stft

    padded = np.pad(samples, (0, max(0, window * parts - len(samples))))
    power = np.log(np.abs(stft(padded, nperseg=window, noverlap=window * 11 // 16)[2]) + 1e-3)
    cepstra = dct(np.stack([band.mean(0) for band in np.array_split(power, bands)]), axis=0, norm="ortho")[:13]
    means = [part.mean(1) for part in np.array_split(cepstra, parts, axis=1)]
    return np.concatenate([*means, [len(samples) / 8000]])


def _rhythm(bars: Sequence[Sequence[Any]], panel: Panel) -> Features:
    """Bar length, with shares of durations (check), or of onsets and of pitch classes, also of last notes (claims)."""
    durations, onsets, classes, last = np.zeros(13), np.zeros(TICKS // 6 + 1), np.zeros(12), np.zeros(12)
    for bar in bars:
        at = 0
        for event in bar:
            durations[min(12, event.ticks // 6)] += 1
            onsets[min(len(onsets) - 1, at // 6)] += 1
            if event.pitch != REST:
                classes[(event.pitch - LOW) % 12] += event.ticks
            at += event.ticks
        if bar and bar[-1].pitch != REST:
            last[(bar[-1].pitch - LOW) % 12] += 1
    length = np.median([sum(e.ticks for e in bar) for bar in bars]) / TICKS
    counts = (durations,) if panel == "check" else (onsets, classes, last)
    shares = [x / max(1e-9, x.sum()) for x in counts]
    return np.concatenate([*shares, [length]])


def _colours(picture: NDArray[np.uint8], levels: int) -> Features:
    """Histogram of the colours in `levels` steps a channel, without the white ground."""
    pixels = picture.reshape(-1, picture.shape[2])
    inked = pixels[pixels.min(1) < 245]
    cells = (inked.astype(np.int64) * levels // 256) @ (levels ** np.arange(picture.shape[2]))
    counts = np.bincount(cells, minlength=levels ** picture.shape[2]).astype(np.float64)
    return np.concatenate([counts / max(1.0, counts.sum()), [len(inked) / len(pixels)]])
