"""From a file or a text of the user to a network's input arrays, as the bundle's feed says."""

import lzma
import struct
import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed, SoundFeed
from onhand.core.network import Network
from onhand.device.networks.base import Array, check_feeds
from onhand.device.networks.pictures import PICTURE_SUFFIXES, feed_picture, read_picture
from onhand.device.networks.sounds import SOUND_SUFFIXES, feed_sound, read_sound
from onhand.device.vault.above import opened

__all__ = ["INPUT_SUFFIXES", "example_from_file", "feeds_from_file", "read_arrays"]

INPUT_SUFFIXES = (*PICTURE_SUFFIXES, *SOUND_SUFFIXES, ".npz")
_MOST_BYTES = 2**32
# NotImplementedError and RuntimeError: packed by another method, or encrypted. MemoryError: an
# array says that it is larger than the file.
_DAMAGED = (
    *(OSError, ValueError, TypeError, EOFError, KeyError, NotImplementedError, RuntimeError),
    *(MemoryError, OverflowError, BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)


def feeds_from_file(path: Path, network: Network) -> dict[str, Array]:
    """Return the input arrays of one example; see `example_from_file`."""
    return example_from_file(path, network)[0]


def example_from_file(
    path: Path, network: Network
) -> tuple[dict[str, Array], tuple[int, int] | None]:
    """Read one example.

    Args:
        path: a picture, a sound, or `.npz` with an array for each input.
        network: whose inputs they are.

    Returns:
        Name of an input -> array (1, ...); and of a picture its height and width, else None.

    Raises:
        InputError: if the file cannot be read, or the network takes no such thing.
        ShapeError: if an array has another dtype or shape than the network's input.
    """
    feed, info = network.feed, network.inputs[0]
    size: tuple[int, int] | None = None
    if path.suffix.lower() == ".npz":
        feeds = read_arrays(path)
    elif isinstance(feed, PictureFeed):
        pixels = read_picture(path)
        feeds, size = {info.name: feed_picture(pixels, feed, info)}, pixels.shape[:2]
    elif isinstance(feed, SoundFeed):
        samples, rate = read_sound(path)
        feeds = {info.name: feed_sound(samples, rate, feed, info)}
    else:
        names = ", ".join(one.name for one in network.inputs)
        how = "a network of pictures is built with --feed, which says how they are scaled"
        taken = "texts" if feed is not None else f"arrays: give .npz with {names}; {how}"
        raise InputError(f"{path}: this network takes {taken}")
    check_feeds(feeds, network.inputs)
    return feeds, size


def read_arrays(path: Path) -> dict[str, Array]:
    """Read a `.npz` file.

    Args:
        path: the file.

    Returns:
        Name -> array; nothing pickled.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        # Opened here: numpy leaves a damaged file open.
        with opened(path, "memory") as stream, np.load(stream, allow_pickle=False) as file:
            n_bytes = sum(one.file_size for one in file.zip.infolist())
            if n_bytes > _MOST_BYTES:
                raise InputError(f"{path}: holds {n_bytes} bytes, at most {_MOST_BYTES} are read")
            return {name: np.asarray(file[name]) for name in file.files}
    except _DAMAGED as error:
        raise InputError(f"{path}: not arrays that can be read: {error}") from error
