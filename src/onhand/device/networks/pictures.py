"""Pictures for a network's input: read, scaled, cut and normalised as its feed says."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.base import Array
from onhand.device.vault.above import opened

__all__ = [
    "PICTURE_SUFFIXES",
    "Placement",
    "feed_picture",
    "parse_picture",
    "picture_size",
    "placement",
    "read_picture",
]

PICTURE_SUFFIXES = (
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".npy",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
_GRAY = 114  # of what is beside a padded picture, as detectors are trained with
# A picture may come from outside, and a small file may claim to be huge.
_MOST_PIXELS = 2**28
_ORIENTATION, _TURNED = 0x0112, range(5, 9)  # of EXIF
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a picture is in the network's input: y there = y * down - top, and so for x.

    Attributes:
        down: pixels of the input for each of the picture, from top to bottom.
        across: likewise from left to right.
        top: pixels of the input that are cut off above; below 0 where it is padded.
        left: likewise.
    """

    down: float
    across: float
    top: float
    left: float


def picture_size(path: Path) -> tuple[int, int]:
    """Return height and width of a picture, turned as its EXIF says, from the head of its file.

    Raises:
        InputError: as `read_picture`.
    """
    if path.suffix.lower() == ".npy":
        height, width = read_picture(path).shape[:2]
        return height, width
    try:
        from PIL import Image
    except ImportError:
        height, width = read_picture(path).shape[:2]  # says what is missing
        return height, width
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            is_turned = picture.getexif().get(_ORIENTATION, 1) in _TURNED
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a picture that can be read: {_why(error)}") from error
    return (width, height) if is_turned else (height, width)


def read_picture(path: Path) -> Pixels:
    """Read a picture.

    Args:
        path: a file that Pillow reads, or `.npy` with (H, W, 3) or (H, W) uint8.

    Returns:
        (H, W, 3) uint8, RGB, turned as its EXIF says; the first picture of an animation, without
        transparency; 16 bits brought to 8.

    Raises:
        InputError: if the file is of another kind or cannot be read, or Pillow is missing.
    """
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        known = ", ".join(PICTURE_SUFFIXES)
        raise InputError(f"{path}: not a picture by its name; known: {known}")
    if path.suffix.lower() == ".npy":
        return _as_pixels(_read_array(path), str(path))
    try:
        with opened(path, "memory") as file:
            return _decoded(file, str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse_picture(content: bytes, *, where: str = "picture") -> Pixels:
    """Read a picture from the bytes of a file.

    Args:
        content: of a file that Pillow reads.
        where: its name for messages.

    Returns:
        As `read_picture`.

    Raises:
        InputError: if it cannot be read, or Pillow is missing.
    """
    return _decoded(BytesIO(content), where)


def _decoded(file: BinaryIO, where: str) -> Pixels:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise InputError(
            f'{where}: reading pictures needs Pillow: pip install "onhand[vision]"'
        ) from error
    try:
        with Image.open(file) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise InputError(
                    f"{where}: has {picture.width} x {picture.height} pixels, over {_MOST_PIXELS}"
                )
            turned = ImageOps.exif_transpose(picture)
            if turned.mode.startswith("I;16"):  # Pillow would cut off all above 255
                deep = np.asarray(turned, dtype=np.float32)
                return _as_pixels(np.rint(deep / 257).astype(np.uint8), where)
            if turned.mode in {"I", "F"}:
                raise InputError(f"{where}: has pixels of 32 bits, must have 8 or 16 for a channel")
            return np.asarray(turned.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: not a picture that can be read: {_why(error)}") from error


def feed_picture(pixels: Pixels, feed: PictureFeed, info: ArrayInfo) -> Array:
    """Turn a picture into a network's input.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        feed: how.
        info: the input.

    Returns:
        (1, C, height, width) or (1, height, width, C) of the input's dtype; pixels as they are,
        normalised, where that is a float.

    Raises:
        InputError: if Pillow is needed to scale it and missing.
    """
    cut = _framed(_as_pixels(pixels, "the picture"), feed)
    if feed.channels == "bgr":
        cut = cut[..., ::-1]
    elif feed.channels == "gray":
        # ITU-R BT.601, as Pillow and OpenCV take it.
        cut = np.rint(cut @ np.array([0.299, 0.587, 0.114]))[..., None]
    mean, std = np.asarray(feed.mean, np.float32), np.asarray(feed.std, np.float32)
    scaled = (cut.astype(np.float32) - mean) / std
    if not info.dtype.startswith("float"):
        limits = np.iinfo(info.dtype)
        scaled = np.clip(np.rint(scaled), limits.min, limits.max)
    laid = scaled[None] if feed.layout == "nhwc" else scaled.transpose(2, 0, 1)[None]
    return np.ascontiguousarray(laid, dtype=info.dtype)


def placement(feed: PictureFeed, height: int, width: int) -> Placement:
    """Return where the pixels of a picture end up in the network's input.

    Args:
        feed: how pictures are scaled and cut.
        height: of the picture.
        width: likewise.

    Returns:
        The place; a size becomes a whole number of pixels first, as `feed_picture` does it.
    """
    rows, columns = _sides(feed, height, width)
    top = left = 0
    if feed.resize == "crop":
        top, left = (rows - feed.height) // 2, (columns - feed.width) // 2
    elif feed.resize == "pad":
        top, left = -((feed.height - rows) // 2), -((feed.width - columns) // 2)
    return Placement(down=rows / height, across=columns / width, top=top, left=left)


def _sides(feed: PictureFeed, height: int, width: int) -> tuple[int, int]:
    """Return the size that a picture is scaled to, before it is cut or padded."""
    if feed.resize == "none" or (height, width) == (feed.height, feed.width):
        return height, width
    if feed.resize == "stretch":
        return feed.height, feed.width
    if feed.resize == "crop":
        short = feed.short_side or max(feed.height, feed.width)
        factor = short / min(height, width)
        return max(round(height * factor), short), max(round(width * factor), short)
    factor = min(feed.height / height, feed.width / width)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _framed(pixels: Pixels, feed: PictureFeed) -> Pixels:
    """Scale and cut a picture to the feed's size."""
    height, width = pixels.shape[:2]
    inner = _scaled(pixels, *_sides(feed, height, width))
    if feed.resize in {"none", "stretch"} or inner.shape[:2] == (feed.height, feed.width):
        return inner
    place = placement(feed, height, width)
    top, left = round(abs(place.top)), round(abs(place.left))
    if feed.resize == "crop":
        return inner[top : top + feed.height, left : left + feed.width]
    frame = np.full((feed.height, feed.width, 3), _GRAY, dtype=np.uint8)
    frame[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return frame


def _scaled(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    try:
        from PIL import Image
    except ImportError as error:
        raise InputError(
            'scaling pictures needs Pillow: pip install "onhand[vision]", '
            f"or give pictures of {height} x {width} pixels as .npy"
        ) from error
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)


def _read_array(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array that can be read: {error}") from error
    return array


def _as_pixels(array: Array, where: str) -> Pixels:
    """Check that an array is a picture; a gray one gets three channels.

    Raises:
        InputError: if it is none.
    """
    if array.dtype != np.uint8 or array.ndim not in {2, 3} or array.size == 0:
        raise InputError(
            f"{where}: is {array.dtype} of shape {array.shape}, must be (H, W, 3) or (H, W) uint8"
        )
    pixels = array.astype(np.uint8, copy=False)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if pixels.shape[2] != 3:
        raise InputError(f"{where}: has {pixels.shape[2]} channels, must have 1 or 3")
    return pixels


def _why(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # it would name the place in memory
        return "its bytes are of no known format"
    return str(error)
