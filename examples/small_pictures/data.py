"""Small pictures in memory, from a zip file of JPEGs or from scikit-learn's digits."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["SIDE", "Pictures", "read_digits", "read_zip"]

SIDE: Final = 32
"""Height and width of a picture in pixels."""

_MOST_PICTURE_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Pictures and what is on them.

    Attributes:
        pixels: (n, SIDE, SIDE, 3) uint8, red, green, blue.
        labels: (n,) int64, numbers of classes.
        classes: their names, in the order of the numbers.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def read_zip(path: Path, split: str) -> Pictures:
    """Read one part of a zip file whose members are called `split/class/name.jpg`.

    Args:
        path: the zip file.
        split: "train" or "test".

    Returns:
        The pictures, in the order of their names; classes in alphabetical order, which is the
        same for every part that has them all.

    Raises:
        ValueError: if the part is empty, or a picture is of another size.
    """
    with zipfile.ZipFile(path) as archive:
        names = sorted(
            name
            for name in archive.namelist()
            if len(parts := PurePosixPath(name).parts) == 3
            and parts[0] == split
            and parts[2].endswith((".jpg", ".png"))
        )
        if not names:
            raise ValueError(f"{path}: has no {split}/class/name.jpg")
        classes = tuple(sorted({PurePosixPath(name).parts[1] for name in names}))
        pixels = np.stack([_read(archive, name) for name in names])  # (n, SIDE, SIDE, 3)
    labels = [classes.index(PurePosixPath(name).parts[1]) for name in names]
    return Pictures(pixels=pixels, labels=np.array(labels, dtype=np.int64), classes=classes)


def _read(archive: zipfile.ZipFile, name: str) -> NDArray[np.uint8]:
    if archive.getinfo(name).file_size > _MOST_PICTURE_BYTES:
        raise ValueError(f"{name}: larger than {_MOST_PICTURE_BYTES} bytes")
    with Image.open(io.BytesIO(archive.read(name))) as picture:
        if picture.size != (SIDE, SIDE):
            raise ValueError(f"{name}: {picture.size} pixels, must be {SIDE} x {SIDE}")
        return np.asarray(picture.convert("RGB"), dtype=np.uint8)


def read_digits(split: str) -> Pictures:
    """Return handwritten digits of 8 x 8 pixels, enlarged to SIDE x SIDE; needs scikit-learn.

    Args:
        split: "train" for the first 1,400, "test" for the other 397.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    gray = np.asarray(images, dtype=np.float64).reshape(-1, 8, 8) * (255 / 16)  # (n, 8, 8)
    large = np.kron(np.rint(gray), np.ones((SIDE // 8, SIDE // 8))).astype(np.uint8)  # (n, 32, 32)
    part = slice(1400) if split == "train" else slice(1400, None)
    return Pictures(
        pixels=np.repeat(large[part, :, :, None], 3, axis=3),  # (n, SIDE, SIDE, 3)
        labels=np.asarray(labels[part], dtype=np.int64),
        classes=tuple("0123456789"),
    )
