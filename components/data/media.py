"""Picture and sound files: read to arrays, written, and found for the rows of a dataset."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperflows.components.data.problems import DataError, Problem
from paperflows.components.data.sources import Dataset

Row = dict[str, Any]


def picture_of(dataset: Dataset, row: Row) -> NDArray[np.uint8]:
    """(H, W, C) of a row's picture, C = 1 or 3.

    Raises:
        DataError: the file is no picture.
    """
    if dataset.folder is None:
        from paperflows.components.data.world.media import picture

        return picture(row["image"])
    return read_picture(dataset.folder / row["image"])


def sound_of(dataset: Dataset, row: Row, rate: int) -> NDArray[np.float32]:
    """Samples in [-1, 1] of a row's recording, one channel at `rate` samples a second.

    Raises:
        DataError: the file is no WAV file of 16 bits with one channel.
    """
    if dataset.folder is None:
        from paperflows.components.data.world.media import RATE, sound

        return resample(sound(row["audio"]), RATE, rate)
    samples, found = read_wav(dataset.folder / row["audio"])
    return resample(samples, found, rate)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """(H, W, C): C is 1 for grey pictures, else 3."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(Problem(str(path), None, None, f"not a picture: {error}")) from None
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W, C) as PNG."""
    from PIL import Image

    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path)


def read_wav(path: Path) -> tuple[NDArray[np.float32], int]:
    """Samples in [-1, 1] and their rate."""
    try:
        with wave.open(str(path), "rb") as file:
            if (file.getsampwidth(), file.getnchannels()) != (2, 1):
                found = f"{8 * file.getsampwidth()} bits, {file.getnchannels()} channels"
                raise DataError(Problem(str(path), None, None, f"expected 16 bits and one channel, got {found}"))
            data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return (data / 32768).astype(np.float32), file.getframerate()
    except (wave.Error, EOFError) as error:
        raise DataError(Problem(str(path), None, None, f"not a WAV file: {error}")) from None


def write_wav(path: Path, samples: NDArray[np.floating], rate: int) -> None:
    """Write samples in [-1, 1] (louder ones are cut) as 16-bit WAV of one channel."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def resample(samples: NDArray[np.float32], found: int, wanted: int) -> NDArray[np.float32]:
    """The same sound at another number of samples a second."""
    if found == wanted:
        return samples
    from math import gcd

    from scipy.signal import resample_poly

    common = gcd(found, wanted)
    return np.asarray(resample_poly(samples, wanted // common, found // common), np.float32)
