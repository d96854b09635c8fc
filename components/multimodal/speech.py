"""Speech as ids: frames of a log-mel spectrogram against a code book; back to a waveform by Griffin and Lim (1984).

Letters: S samples, F frames, M mel bands, N recordings.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from paperflows.components.multimodal.tokenizers import codebook, fit_quantizer, nearest, quantizer

Samples = NDArray[np.float32]
RATE, WINDOW, HOP, FFT, BANDS = 8_000, 200, 160, 512, 40  # 25 ms windows, 50 frames a second
FINE = 4  # frames between two of the code's, for the way back: windows must overlap for Griffin-Lim to work
FLOOR = 1e-4


@cache
def mel_filters(bands: int = BANDS, *, rate: int = RATE, fft: int = FFT) -> Tensor:
    """(M, fft / 2 + 1) triangles, evenly spaced on the mel scale 2595 log10(1 + f / 700), each of sum 1."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.arange(fft // 2 + 1) * rate / fft
    rising = (bins[None] - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins[None]) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return torch.from_numpy(triangles / np.maximum(triangles.sum(1, keepdims=True), 1e-9)).float()


@cache
def _inverse() -> Tensor:
    """(fft / 2 + 1, M) pseudo-inverse of the filters."""
    return torch.linalg.pinv(mel_filters())


def log_mel(samples: Samples, *, hop: int = HOP) -> Tensor:
    """(F, M) natural logarithms of the mel magnitudes, F = S // hop + 1."""
    spectrum = torch.stft(
        torch.from_numpy(samples), FFT, hop, WINDOW, torch.hann_window(WINDOW), center=True, pad_mode="constant",
        return_complex=True,
    )  # fmt: skip
    return (mel_filters() @ spectrum.abs()).clamp(min=FLOOR).log().T


def griffin_lim(magnitude: Tensor, *, hop: int, rounds: int = 32) -> Tensor:
    """(S,) samples whose short-time spectrum has (fft / 2 + 1, F) magnitudes; the phases are found by projection."""
    window = torch.hann_window(WINDOW)
    generator = torch.Generator().manual_seed(0)
    phase = torch.exp(2j * torch.pi * torch.rand(magnitude.shape, generator=generator))
    for _ in range(rounds):
        samples = torch.istft(magnitude * phase, FFT, hop, WINDOW, window)
        again = torch.stft(samples, FFT, hop, WINDOW, window, pad_mode="constant", return_complex=True)
        phase = again / again.abs().clamp(min=1e-8)
    return torch.istft(magnitude * phase, FFT, hop, WINDOW, window)


class SpeechTokenizer:
    """A recording as one id a frame of 20 ms; repeated ids stay, so that durations survive.

    Args:
        codes: K.
    """

    begin, end = "<sosp>", "<eosp>"
    exact = None
    rate = "50 a second"

    def __init__(self, *, codes: int) -> None:
        self.n_ids = codes
        self.book = quantizer(BANDS, codes)
        self.mean, self.scale = torch.zeros(BANDS), torch.ones(())

    def fit(self, recordings: Sequence[Samples], *, steps: int, seed: int) -> None:
        """Learn the code book from recordings."""
        frames = torch.cat([log_mel(samples) for samples in recordings])
        self.mean, self.scale = frames.mean(0), frames.std()
        fit_quantizer(self.book, (frames - self.mean) / self.scale, steps=steps, batch=4096, seed=seed)

    def encode(self, signals: Sequence[Samples]) -> list[list[int]]:
        """One id a frame of each recording."""
        frames = [log_mel(samples) for samples in signals]
        codes = nearest(self.book, (torch.cat(frames) - self.mean) / self.scale)
        return [part.tolist() for part in codes.split([len(f) for f in frames])]

    def spectrogram(self, ids: Sequence[int]) -> Tensor:
        """(F, M) log-mel frames of one recording's ids."""
        return codebook(self.book)[torch.tensor(list(ids))] * self.scale + self.mean

    def decode(self, ids: Sequence[int]) -> Samples:
        """(S,) samples of one recording's ids, by pseudo-inverse filters and Griffin-Lim; silence for fewer than 2."""
        if len(ids) < 2:
            return np.zeros(HOP, np.float32)
        frames = self.spectrogram(ids).T[None]
        fine = torch.nn.functional.interpolate(
            frames, (frames.shape[-1] - 1) * FINE + 1, mode="linear", align_corners=True
        )
        magnitude = (_inverse() @ fine[0].exp()).clamp(min=0)
        samples = griffin_lim(magnitude, hop=HOP // FINE).numpy()
        return np.asarray(samples / max(1.0, float(np.abs(samples).max())), np.float32)

    def save(self, folder: Path) -> None:
        """Write code book and scale."""
        state = {f"book.{k}": v.contiguous() for k, v in self.book.state_dict().items()}
        save_file({**state, "mean": self.mean, "scale": self.scale}, folder / "tokenizer.safetensors")

    def restore(self, folder: Path) -> "SpeechTokenizer":
        """Read what `save` wrote."""
        state = load_file(folder / "tokenizer.safetensors")
        self.mean, self.scale = state.pop("mean"), state.pop("scale")
        self.book.load_state_dict({k.removeprefix("book."): v for k, v in state.items()})
        self.book.eval()
        return self
