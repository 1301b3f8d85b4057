"""Pictures for a network's input: read, scaled, cut and normalised as its feed says."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.base import Array

__all__ = ["PICTURE_SUFFIXES", "feed_picture", "read_picture"]

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
Pixels = NDArray[np.uint8]


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
        from PIL import Image, ImageOps
    except ImportError as error:
        raise InputError(
            f'{path}: reading pictures needs Pillow: pip install "onhand[vision]"'
        ) from error
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise InputError(
                    f"{path}: has {picture.width} x {picture.height} pixels, over {_MOST_PIXELS}"
                )
            turned = ImageOps.exif_transpose(picture)
            if turned.mode.startswith("I;16"):  # Pillow would cut off all above 255
                deep = np.asarray(turned, dtype=np.float32)
                return _as_pixels(np.rint(deep / 257).astype(np.uint8), str(path))
            if turned.mode in {"I", "F"}:
                raise InputError(f"{path}: has pixels of 32 bits, must have 8 or 16 for a channel")
            return np.asarray(turned.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a picture that can be read: {error}") from error


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


def _framed(pixels: Pixels, feed: PictureFeed) -> Pixels:
    """Scale and cut a picture to the feed's size."""
    height, width = pixels.shape[:2]
    if feed.resize == "none" or (height, width) == (feed.height, feed.width):
        return pixels
    if feed.resize == "stretch":
        return _scaled(pixels, feed.height, feed.width)
    if feed.resize == "crop":
        short = feed.short_side or max(feed.height, feed.width)
        factor = short / min(height, width)
        larger = _scaled(
            pixels, max(round(height * factor), short), max(round(width * factor), short)
        )
        top, left = (larger.shape[0] - feed.height) // 2, (larger.shape[1] - feed.width) // 2
        return larger[top : top + feed.height, left : left + feed.width]
    factor = min(feed.height / height, feed.width / width)
    inner = _scaled(pixels, max(round(height * factor), 1), max(round(width * factor), 1))
    frame = np.full((feed.height, feed.width, 3), _GRAY, dtype=np.uint8)
    top, left = (feed.height - inner.shape[0]) // 2, (feed.width - inner.shape[1]) // 2
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
