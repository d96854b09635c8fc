"""Pictures as ids: patches against a code book (small pictures), or a convolutional VQ-VAE with residual levels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from paperflows.components.errors import InputError
from paperflows.components.multimodal.tokenizers import codebook, fit_quantizer, nearest, quantizer

Pixels = NDArray[np.uint8]
WEIGHTS = "tokenizer.safetensors"


class PatchTokenizer:
    """A picture as its patches from the top left to the bottom right, each the nearest of K patches.

    Args:
        shape: (H, W, C) of every picture, H and W multiples of `patch`.
        codes: K.

    Raises:
        InputError: the patches are no grid of such pictures.
    """

    begin, end = "<soim>", "<eoim>"

    def __init__(self, *, shape: tuple[int, int, int], patch: int, codes: int) -> None:
        height, width, channels = shape
        if height % patch or width % patch:
            raise InputError(
                f"pictures of {height} x {width} pixels are no grid of patches of {patch} (tokenizers.picture.patch)"
            )
        self.shape, self.patch, self.n_ids = shape, patch, codes
        self.exact = (height // patch) * (width // patch)
        self.rate = f"{self.exact} a picture"
        self.book = quantizer(patch * patch * channels, codes)

    def fit(self, pictures: Sequence[Pixels], *, steps: int, seed: int) -> None:
        """Learn the code book from (H, W, C) pictures."""
        fit_quantizer(self.book, self._patches(pictures), steps=steps, batch=4096, seed=seed)

    def encode(self, signals: Sequence[Pixels]) -> list[list[int]]:
        """`exact` ids of each picture."""
        rows: list[list[int]] = nearest(self.book, self._patches(signals)).reshape(len(signals), -1).tolist()
        return rows

    def decode(self, ids: Sequence[int]) -> Pixels:
        """(H, W, C) of one picture's ids."""
        height, width, channels = self.shape
        p = self.patch
        grid = codebook(self.book)[torch.tensor(list(ids))].reshape(height // p, width // p, p, p, channels)
        return _as_pixels(grid.permute(0, 2, 1, 3, 4).reshape(self.shape))

    def save(self, folder: Path) -> None:
        """Write the code book."""
        save_model(self.book, str(folder / WEIGHTS))

    def restore(self, folder: Path) -> "PatchTokenizer":
        """Read what `save` wrote."""
        load_model(self.book, str(folder / WEIGHTS))
        self.book.eval()
        return self

    def _patches(self, pictures: Sequence[Pixels]) -> Tensor:
        height, width, channels = self.shape
        p = self.patch
        pixels = torch.from_numpy(np.stack(pictures)).float() / 255
        cut = pixels.reshape(-1, height // p, p, width // p, p, channels).permute(0, 1, 3, 2, 4, 5)
        return cut.reshape(-1, p * p * channels)


class VQVAE(nn.Module):
    """A picture of 32 x 32 as a 4 x 4 grid of vectors, each quantized on `levels` residual levels of `codes` codes.

    Args:
        levels: 2 or more.
    """

    GRID = 4

    def __init__(self, *, channels: int, width: int, codes: int, levels: int) -> None:
        super().__init__()
        self.codes, self.levels = codes, levels
        w = width
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, w, 4, 2, 1), nn.GELU(), nn.Conv2d(w, 2 * w, 4, 2, 1), nn.GELU(),
            nn.Conv2d(2 * w, 2 * w, 4, 2, 1), nn.GELU(), nn.Conv2d(2 * w, 2 * w, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(2 * w, 2 * w, 3, 1, 1), nn.GELU(), nn.ConvTranspose2d(2 * w, 2 * w, 4, 2, 1), nn.GELU(),
            nn.ConvTranspose2d(2 * w, w, 4, 2, 1), nn.GELU(), nn.ConvTranspose2d(w, channels, 4, 2, 1),
        )  # fmt: skip
        self.book = quantizer(2 * w, codes, levels)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, C, 32, 32), commitment loss (), codes (B, 16, L)."""
        z = self.encoder(pixels).flatten(2).transpose(1, 2)
        quantized, codes, commitment = self.book(z)
        return self.paint(quantized), commitment.mean(), codes

    def paint(self, quantized: Tensor) -> Tensor:
        """(B, C, 32, 32) of (B, 16, D) vectors."""
        side = self.GRID
        out: Tensor = self.decoder(quantized.transpose(1, 2).unflatten(2, (side, side)))
        return out


class DrawingTokenizer:
    """Pictures of 32 x 32 through a `VQVAE`: cell by cell, the levels of a cell in a row, level l offset by l K ids."""

    begin, end = "<sodr>", "<eodr>"

    def __init__(self, *, channels: int, width: int, codes: int, levels: int) -> None:
        self.model = VQVAE(channels=channels, width=width, codes=codes, levels=levels)
        self.codes, self.levels = codes, levels
        self.n_ids = codes * self.levels
        self.exact = VQVAE.GRID**2 * self.levels
        self.rate = f"{self.exact} a picture"

    def encode(self, signals: Sequence[Pixels]) -> list[list[int]]:
        """`exact` ids of each (32, 32, C) picture."""
        rows: list[list[int]] = []
        with torch.inference_mode():
            for start in range(0, len(signals), 256):
                codes = self.model(as_tensor(signals[start : start + 256]))[2]
                rows += (codes + torch.arange(self.levels) * self.codes).flatten(1).tolist()
        return rows

    def decode(self, ids: Sequence[int]) -> Pixels:
        """(32, 32, C) of one picture's ids; each id is read modulo K, as its place tells the level."""
        codes = (torch.tensor(list(ids)) % self.codes).reshape(1, -1, self.levels)
        with torch.inference_mode():
            picture = self.model.paint(self.model.book.get_output_from_indices(codes))[0]  # type: ignore[operator]
        return _as_pixels(picture.permute(1, 2, 0))

    def save(self, folder: Path) -> None:
        """Write the weights."""
        save_model(self.model, str(folder / WEIGHTS))

    def restore(self, folder: Path) -> "DrawingTokenizer":
        """Read what `save` wrote."""
        load_model(self.model, str(folder / WEIGHTS))
        self.model.eval()
        return self


def as_tensor(pictures: Sequence[Pixels]) -> Tensor:
    """(B, C, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def reconstruction_loss(model: nn.Module, batch: Any) -> Tensor:
    """Mean squared error of the pixels plus a quarter of the commitment loss (van den Oord et al. 2017)."""
    painted, commitment, _ = model(batch["pixels"])
    return nn.functional.mse_loss(painted, batch["pixels"]) + 0.25 * commitment


def _as_pixels(values: Tensor) -> Pixels:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
