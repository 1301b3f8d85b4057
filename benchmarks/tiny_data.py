"""Examples for `benchmarks.tiny`: pictures and sounds, as the networks of MLPerf Tiny take them."""

import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.feed import PictureFeed, SoundFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.pictures import feed_picture, read_picture
from onhand.device.networks.sounds import feed_sound, read_sound

__all__ = ["ASSETS", "Examples", "cifar", "noise", "photographs", "wakewords", "words"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
SEED = 0
N_CALIBRATION = 500
# As MLPerf Tiny's training scripts make them (github.com/mlcommons/tiny at 1afd2c9).
SEES = PictureFeed(height=96, width=96, layout="nhwc")
HEARS = SoundFeed(rate=16000, n_samples=16000, features="mfcc")
QUIETEST_DB, LOUDEST_DB = -84.85, 14.86  # what the reference's integers reach to


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Arrays that a network takes.

    Attributes:
        calibrating: (N, ...) float32.
        judging: (M, ...) float32, others than those.
        labels: (M,) classes of `judging`; None where nobody knows.
        what: in words.
    """

    calibrating: FloatArray
    judging: FloatArray
    labels: NDArray[np.int64] | None
    what: str


def cifar(pictures: int) -> Examples:
    """Read CIFAR-10: levels from 0 to 255; training pictures calibrate, test pictures judge."""
    with zipfile.ZipFile(ASSETS / "cifar10" / "cifar10_jpg_subset.zip") as packed:
        names = sorted(name for name in packed.namelist() if name.endswith(".jpg"))
        kinds = sorted({name.split("/")[-2] for name in names})
        rng = np.random.default_rng(SEED)
        train = rng.permutation([n for n in names if "train/" in n])[:N_CALIBRATION]
        test = rng.permutation([n for n in names if "test/" in n])[:pictures]
        seen, judging = (np.stack([_pixels(packed.read(n)) for n in ns]) for ns in (train, test))
    labels = np.array([kinds.index(name.split("/")[-2]) for name in test])
    return Examples(
        calibrating=seen, judging=judging, labels=labels, what="CIFAR-10, train and test pictures"
    )


def _pixels(content: bytes) -> FloatArray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.float32)


def photographs() -> Examples:
    """Read photographs at 96 pixels, from 0 to 1; whether there is a person is not known."""
    info = ArrayInfo(name="x", dtype="float32", shape=(None, 96, 96, 3))
    files = sorted((ASSETS / "imagenet-500" / "images256").iterdir())
    arrays = np.concatenate([feed_picture(read_picture(f), SEES, info) for f in files])
    return _halves(arrays.astype(np.float32), 100, "photographs of all kinds, without labels")


def words() -> Examples:
    """Read spoken digits as cepstral coefficients (49, 10, 1); digits are none of the keywords."""
    info = ArrayInfo(name="x", dtype="float32", shape=(None, 49, 10, 1))
    folder = ASSETS / "fsdd" / "recordings"
    # Takes 0 to 4 are the official test part; every third of it is enough.
    test = [f for f in sorted(folder.glob("*.wav")) if int(f.stem.split("_")[-1]) < 5]
    train = [f for f in sorted(folder.glob("*.wav")) if int(f.stem.split("_")[-1]) >= 5]
    chosen = np.random.default_rng(SEED).permutation(len(train))[:100]

    def heard(files: list[Path]) -> FloatArray:
        made = [feed_sound(*read_sound(file), HEARS, info) for file in files]
        return np.concatenate(made).astype(np.float32)

    return Examples(
        calibrating=heard([train[i] for i in chosen]),
        judging=heard(test),
        labels=None,
        what="spoken digits, which are no keywords: without labels",
    )


def noise() -> Examples:
    """Make 640 levels in decibels: noise about as loud as the machines that the network knows.

    Sounds of such machines are not at hand, and other sounds lie outside of its integers' range.
    """
    rng = np.random.default_rng(SEED)
    arrays = rng.normal(-20, 8, (600, 640)).clip(QUIETEST_DB, LOUDEST_DB).astype(np.float32)
    return Examples(
        calibrating=arrays[:100],
        judging=arrays[100:],
        labels=None,
        what="random levels within the range of the reference's integers",
    )


def wakewords() -> Examples:
    """Read the samples that come with the streaming wake word; (30, 1, 40) from 0 to 1."""
    place = ASSETS / "mlperf-tiny" / "streaming_wakeword" / "calibration_samples.npz"
    with np.load(place, allow_pickle=False) as file:
        arrays, labels = file["specs"].astype(np.float32), file["labels"].astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(arrays))
    return Examples(
        calibrating=arrays[order[:20]],
        judging=arrays[order[20:]],
        labels=labels[order[20:]],
        what="the samples that come with the model",
    )


def _halves(arrays: FloatArray, n: int, what: str) -> Examples:
    order = np.random.default_rng(SEED).permutation(len(arrays))
    return Examples(
        calibrating=arrays[order[:n]], judging=arrays[order[n:]], labels=None, what=what
    )
