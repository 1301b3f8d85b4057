"""One description of a network that is no decoder: its task, its arrays, and what it is fed.

The description travels in the bundle's manifest; engines run arrays, and everything between a
picture, a sound or a text and those arrays follows from what stands here.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from onhand.core.detection import Detection, detection_from_json
from onhand.core.errors import InputError
from onhand.core.feed import Feed, feed_from_json, feed_to_json
from onhand.core.outside import count, object_of, shown, word

__all__ = ["DTYPES", "TASKS", "ArrayInfo", "Network", "network_from_json"]

TASKS: Final = (
    "image-classification",
    "detection",
    "text-embedding",
    "text-classification",
    "audio-classification",
    "features",
)
"""What a network is for; "features" promises nothing but arrays."""

DTYPES: Final = ("float32", "float16", "uint8", "int8", "int32", "int64", "bool")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_MOST_ARRAYS, _MOST_DIMS, _MOST_SIZE = 256, 8, 2**31
_MOST_LABELS = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayInfo:
    """An input or an output.

    Attributes:
        name: in the graph.
        dtype: one of `DTYPES`.
        shape: sizes; None where any size will do.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network: arrays in, arrays out.

    Attributes:
        task: one of `TASKS`.
        inputs: arrays in.
        outputs: arrays out; the task reads the first one: scores of classes, or a vector.
        n_parameters: of the original.
        feed: how a picture, a sound or a text becomes the inputs; None where the caller brings
            arrays.
        n_labels: lines of the bundle's `labels.txt`; 0 where it has none.
        detection: how a detector's outputs become boxes; None where nobody says.
    """

    task: str
    inputs: tuple[ArrayInfo, ...]
    outputs: tuple[ArrayInfo, ...]
    n_parameters: int
    feed: Feed | None = None
    n_labels: int = 0
    detection: Detection | None = None

    def to_json(self) -> dict[str, object]:
        """Return a JSON object that `network_from_json` reads."""
        boxes = {} if self.detection is None else {"detection": self.detection.to_json()}
        return boxes | {
            "feed": None if self.feed is None else feed_to_json(self.feed),
            "inputs": [asdict(info) | {"shape": list(info.shape)} for info in self.inputs],
            "n_labels": self.n_labels,
            "n_parameters": self.n_parameters,
            "outputs": [asdict(info) | {"shape": list(info.shape)} for info in self.outputs],
            "task": self.task,
        }


def network_from_json(value: object) -> Network:
    """Read a network's description, which may come from outside.

    Args:
        value: a parsed JSON value.

    Returns:
        The description.

    Raises:
        InputError: if anything is missing, unknown, of the wrong type or out of bounds.
    """
    known = {"task", "inputs", "outputs", "n_parameters", "feed", "n_labels", "detection"}
    table = object_of(value, "network", known)
    feed, detection = table.get("feed"), table.get("detection")
    return Network(
        task=word(table, "task", "network", TASKS),
        inputs=_arrays(table, "inputs"),
        outputs=_arrays(table, "outputs"),
        n_parameters=count(table, "n_parameters", "network", least=0, most=2**40),
        feed=None if feed is None else feed_from_json(feed),
        n_labels=count(table, "n_labels", "network", least=0, most=_MOST_LABELS),
        detection=None if detection is None else detection_from_json(detection),
    )


def _arrays(table: Mapping[str, object], key: str) -> tuple[ArrayInfo, ...]:
    listed = table.get(key)
    if not isinstance(listed, list) or not 1 <= len(listed) <= _MOST_ARRAYS:
        raise InputError(f"network: {key} must be a list of 1 to {_MOST_ARRAYS} arrays")
    made = tuple(_array(entry, f"network: {key}[{i}]") for i, entry in enumerate(listed))
    names = [info.name for info in made]
    if len(set(names)) != len(names):
        raise InputError(f"network: {key} names an array twice")
    return made


def _array(entry: object, where: str) -> ArrayInfo:
    table = object_of(entry, where, {"name", "dtype", "shape"})
    name, shape = table.get("name"), table.get("shape")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"{where}: name is {shown(name)}, must be a text of one line")
    if not isinstance(shape, list) or len(shape) > _MOST_DIMS:
        raise InputError(f"{where}: shape is {shown(shape)}, must be a list of sizes")
    for size in shape:
        if size is not None and (type(size) is not int or not 0 < size < _MOST_SIZE):
            raise InputError(f"{where}: a size is {shown(size)}, must be a whole number or null")
    return ArrayInfo(name=name, dtype=word(table, "dtype", where, DTYPES), shape=tuple(shape))
