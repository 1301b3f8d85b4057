"""Examples from folders and tables: what a network is calibrated with and judged by."""

import csv
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onhand.core.bundle import sha256_of
from onhand.core.errors import InputError
from onhand.core.feed import TextFeed
from onhand.core.network import ArrayInfo, Network
from onhand.device.networks.answers import CLASSIFIES
from onhand.device.networks.base import check_feeds
from onhand.device.networks.inputs import INPUT_SUFFIXES, feeds_from_file, read_arrays
from onhand.device.networks.texts import TextReader
from onhand.host.networks.annotations import BOXES_TABLE, Truth, class_number, read_boxes
from onhand.host.networks.graph import Array
from onhand.host.networks.samples import Samples

__all__ = ["DataSplit", "hash_data", "read_data", "split_data"]

_TABLE = "labels.csv"
# Pictures and sounds all the same: they must not be left out in silence.
_UNREADABLE = (".aac", ".aiff", ".avif", ".flac", ".heic", ".jfif", ".jp2", ".m4a", ".mp3",
               ".ogg", ".opus", ".svg")  # fmt: skip
_UTF8 = "utf-8-sig"  # spreadsheets and Windows write a mark before the first letter
_SEED = 20260101


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSplit:
    """What passes may see, and what judges the result: no example is in both.

    Attributes:
        calibration: for passes.
        heldout: for the judgement alone.
        what: the data in words, for the report.
        sha256: of all of it, see `hash_data`; "" where there is none.
    """

    calibration: Samples
    heldout: Samples
    what: str
    sha256: str


class _Files:
    """Examples that are read when they are needed, so that memory holds one batch."""

    def __init__(self, paths: Sequence[Path], network: Network) -> None:
        self._paths, self._network = paths, network

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> Mapping[str, Array]:
        path = self._paths[i]
        feeds = feeds_from_file(path, self._network)
        for info in self._network.inputs:
            n = feeds[info.name].shape[:1]
            if info.shape[:1] == (None,) and n != (1,):
                raise InputError(f"{path}: holds {n[0]} examples of {info.name!r}, must hold one")
        return feeds


def read_data(
    path: Path, network: Network, labels: Sequence[str], *, tokenizer: bytes | None = None
) -> Samples:
    """Read examples, labelled where the source says so.

    Args:
        path: a folder of files, of folders named after classes, or of files beside `labels.csv`
            with the columns `file` and `label` (a name of a class, or its number); of a
            detector, of files beside `boxes.csv`, see `read_boxes`; one `.npz`
            with (N, ...) for each input and, for labels, (N,) whole numbers as `labels`; or of
            texts `.txt`, one in each line, or `.csv` with the columns `text` and `label`.
        network: that they are for.
        labels: names of its classes, in order; empty where it has none.
        tokenizer: content of `tokenizer.json`, for texts; None where there is none.

    Returns:
        The examples, in the order of their names.

    Raises:
        InputError: if there are none, a file is left over, or a label is unknown.
    """
    samples = _read(path, network, labels, tokenizer)
    sizes = network.outputs[0].shape[1:]
    if network.task in CLASSIFIES and samples.labels and all(sizes):
        n_classes = math.prod(size for size in sizes if size)
        if odd := [k for k in samples.labels if not 0 <= k < n_classes]:
            raise InputError(f"{path}: has label {odd[0]}, the network has {n_classes} classes")
    return samples


def _read(path: Path, network: Network, labels: Sequence[str], tokenizer: bytes | None) -> Samples:
    if path.suffix == ".npz" and path.is_file():
        return _from_arrays(path, network)
    if isinstance(network.feed, TextFeed):
        return _from_texts(path, network.feed, labels, tokenizer)
    if not path.is_dir():
        raise InputError(f"{path}: is no folder, and no .npz file")
    truths: list[Truth] | None = None
    if (path / BOXES_TABLE).is_file():
        if network.detection is None:
            raise InputError(
                f"{path / BOXES_TABLE}: nothing says how the network's outputs become boxes: give "
                "[detection] in the file of --feed"
            )
        files, truths = read_boxes(path, labels)
        found = None
    elif (path / _TABLE).is_file():
        files, found = _from_table(path, labels)
    else:
        files, found = _from_folders(path, labels)
    if not files:
        raise InputError(f"{path}: has no file of a kind that is read: {', '.join(INPUT_SUFFIXES)}")
    return Samples(feeds=_Files(files, network), labels=found, truths=truths)


def split_data(
    samples: Samples,
    *,
    n_calibration: int,
    what: str,
    sha256: str,
    heldout: Samples | None = None,
) -> DataSplit:
    """Put some examples aside for judging; the same ones each time.

    Args:
        samples: all of them.
        n_calibration: that passes may see; at most half, or all where others judge.
        what: the data in words.
        sha256: its hash.
        heldout: examples that judge; None to put some of `samples` aside.

    Returns:
        The two parts.

    Raises:
        InputError: if there are fewer than two.
    """
    n = len(samples)
    if heldout is None and n < 2:
        raise InputError(f"{what}: has {n} examples, needs 2 or more: some calibrate, others judge")
    order = np.random.default_rng(_SEED).permutation(n).tolist()
    cut = min(n_calibration, n if heldout is not None else n // 2)
    return DataSplit(
        # In the order drawn: passes that look at a few of them see every class.
        calibration=samples.part(order[:cut]),
        heldout=samples.part(sorted(order[cut:])) if heldout is None else heldout,
        what=what,
        sha256=sha256,
    )


def hash_data(path: Path) -> str:
    """Return a SHA-256 in hex of a file, or of the names and sizes of a folder's files."""
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            place = file.relative_to(path).as_posix()
            digest.update(f"{place} {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def _from_arrays(path: Path, network: Network) -> Samples:
    arrays = read_arrays(path)
    names = {info.name for info in network.inputs}
    labels = None if "labels" in names else arrays.pop("labels", None)
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        raise InputError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}, must be (N,) whole numbers"
        )
    if odd := sorted(set(arrays) ^ names):
        raise InputError(f"{path}: {odd[0]!r} is in the file or an input of the network, not both")
    counts = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if labels is not None:
        counts.add(len(labels))
    if len(counts) != 1:
        raise InputError(f"{path}: its arrays hold {sorted(counts)} examples, must be as many each")
    (n,) = counts
    feeds = [
        {info.name: _row(arrays[info.name], i, info) for info in network.inputs} for i in range(n)
    ]
    for feed in feeds[:1]:
        try:
            check_feeds(feed, network.inputs)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return Samples(feeds=feeds, labels=None if labels is None else [int(k) for k in labels])


def _row(array: Array, i: int, info: ArrayInfo) -> Array:
    """Return one example: a row, or the whole input where there is a size more than it has."""
    rows = array[i] if array.ndim > len(info.shape) else array[i : i + 1]
    return np.asarray(rows)  # a row of a vector is no array


def _from_texts(
    path: Path, feed: TextFeed, labels: Sequence[str], tokenizer: bytes | None
) -> Samples:
    if tokenizer is None:
        raise InputError(f"{path}: the network has no tokenizer; give arrays, as .npz")
    if path.suffix not in {".txt", ".csv"} or not path.is_file():
        raise InputError(f"{path}: is no .txt, .csv or .npz file")
    found: list[int] = []
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding=_UTF8).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
        texts = [line for line in lines if line.strip()]
    else:
        texts = []
        for number, row in enumerate(_rows(path), start=2):
            if not row.get("text"):
                raise InputError(f"{path}: line {number} has no text")
            texts.append(row["text"])
            if row.get("label"):
                found.append(class_number(row["label"], labels, f"{path}: line {number}"))
    if found and len(found) != len(texts):
        raise InputError(f"{path}: {len(texts) - len(found)} of {len(texts)} lines have no label")
    reader = TextReader(feed, tokenizer, where=str(path))
    return Samples(feeds=[reader.read(text).feeds for text in texts], labels=found or None)


def _from_folders(path: Path, labels: Sequence[str]) -> tuple[list[Path], list[int] | None]:
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    beside = _readable(path)
    if not folders:
        return beside, None
    if beside:
        raise InputError(
            f"{path}: {beside[0].name!r} lies beside folders, which are named after classes; "
            "put it into one, or all files into one folder"
        )
    files: list[Path] = []
    found: list[int] = []
    for i, folder in enumerate(folders):
        label = class_number(folder.name, labels, str(folder)) if labels else i
        inside = _readable(folder)
        files += inside
        found += [label] * len(inside)
    return files, found


def _readable(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    if odd := [p for p in files if p.suffix.lower() in _UNREADABLE]:
        known = ", ".join(INPUT_SUFFIXES)
        raise InputError(f"{odd[0]}: is of a kind that is not read; turn it into one of {known}")
    return [p for p in files if p.suffix.lower() in INPUT_SUFFIXES]


def _from_table(path: Path, labels: Sequence[str]) -> tuple[list[Path], list[int] | None]:
    table = path / _TABLE
    files: list[Path] = []
    found: list[int] = []
    for number, row in enumerate(_rows(table), start=2):
        name, label = row.get("file"), row.get("label")
        if not name:
            raise InputError(f"{table}: line {number} has no file")
        place = path / name
        if not place.resolve().is_relative_to(path.resolve()) or not place.is_file():
            raise InputError(f"{table}: line {number} names {name!r}, which is no file in {path}")
        files.append(place)
        if label:
            found.append(class_number(label, labels, f"{table}: line {number}"))
    if found and len(found) != len(files):
        raise InputError(f"{table}: {len(files) - len(found)} of {len(files)} lines have no label")
    return files, found or None


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding=_UTF8) as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read: {error}") from error
