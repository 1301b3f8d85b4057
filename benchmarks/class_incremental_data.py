"""Data of the class-incremental streams: digits, spoken digits, and intents."""

import csv
import gzip
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.encoder_texts import read_intents
from onhand.core.arrays import FloatArray
from onhand.core.feed import SoundFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.sounds import feed_sound, read_sound

__all__ = ["Data", "read_digits", "read_intent_texts", "read_spoken"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
_SPLIT_SEED: Final = 20260101
_TESTED: Final = 360  # of the 1797 digits
# Takes 0 to 4 of each speaker and digit are the official test.
_TEST_TAKES: Final = 5
SPOKEN: Final = SoundFeed(
    rate=8000,
    n_samples=8384,
    features="log-mel",
    frame_s=0.056,
    hop_s=0.032,
    n_fft=512,
    n_mels=32,
    low_hz=50,
    high_hz=3900,
    mean=-1.75,
    std=2.1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Examples in two parts.

    Attributes:
        inputs: what a network is fed of the first part: arrays, or texts.
        labels: (N,) their classes.
        test_inputs: of the second.
        test_labels: likewise.
    """

    inputs: FloatArray | list[str]
    labels: np.ndarray
    test_inputs: FloatArray | list[str]
    test_labels: np.ndarray


def read_digits(path: Path | None) -> Data | None:
    """Return scikit-learn's digits: 8 x 8 pixels from 0 to 16.

    Args:
        path: of its `digits.csv.gz`; None to take the one of an installed scikit-learn.

    Returns:
        1437 and 360 of them by a fixed draw; None where the file is not there.
    """
    if path is None:
        spec = importlib.util.find_spec("sklearn")
        if spec is None or not spec.origin:
            return None
        path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt", encoding="ascii") as file:
        rows = np.array([[float(cell) for cell in row] for row in csv.reader(file)], np.float32)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(rows))
    test, train = order[:_TESTED], order[_TESTED:]
    labels = rows[:, 64].astype(np.int64)
    return Data(
        inputs=rows[train, :64],
        labels=labels[train],
        test_inputs=rows[test, :64],
        test_labels=labels[test],
    )


def read_spoken() -> Data | None:
    """Return spoken digits as log-mel features (1, 32, 32); None where they are not there."""
    folder = ASSETS / "fsdd" / "recordings"
    if not folder.is_dir():
        return None
    info = ArrayInfo(name="x", dtype="float32", shape=(None, 1, 32, 32))
    parts: dict[bool, list[FloatArray]] = {False: [], True: []}
    labels: dict[bool, list[int]] = {False: [], True: []}
    for path in sorted(folder.glob("*.wav")):
        digit, _, take = path.stem.split("_")
        is_test = int(take) < _TEST_TAKES
        parts[is_test].append(np.asarray(feed_sound(*read_sound(path), SPOKEN, info), np.float32))
        labels[is_test].append(int(digit))
    return Data(
        inputs=np.concatenate(parts[False]),
        labels=np.array(labels[False]),
        test_inputs=np.concatenate(parts[True]),
        test_labels=np.array(labels[True]),
    )


def read_intent_texts() -> Data | None:
    """Return CLINC150's 15,000 and 4,500 texts in scope; None where they are not there."""
    if not (ASSETS / "intents" / "CLINC150").is_dir():
        return None
    train, test = read_intents("CLINC150", "train"), read_intents("CLINC150", "test")
    names = sorted(set(train.names))
    numbers = {name: number for number, name in enumerate(names)}
    return Data(
        inputs=list(train.texts),
        labels=np.array([numbers[name] for name in train.names]),
        test_inputs=list(test.texts),
        test_labels=np.array([numbers[name] for name in test.names]),
    )
