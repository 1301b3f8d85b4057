"""A network from any place, with what the user says of it."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from onhand.core.detection import Detection, detection_from_json
from onhand.core.errors import InputError, SourceError
from onhand.core.feed import Feed, PictureFeed, feed_from_json
from onhand.core.plugins import NETWORK_SOURCES, load_plugin, plugin_names
from onhand.host.networks.graph import Graph
from onhand.host.networks.model import NetworkModel, NetworkSource

__all__ = ["FEEDS", "find_source", "load_network", "read_feed", "read_labels", "with_inputs"]

FEEDS: Final[Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "signed": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "pixels": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Name -> mean and std of the pixels of an RGB picture: to 0..1, -1..1, PyTorch's habit, 0..255."""

_MOST_LABELS_BYTES = 2**24


def find_source(location: str) -> tuple[NetworkSource | None, list[str]]:
    """Return the source that understands a location, and why the others do not."""
    reasons: list[str] = []
    for name in plugin_names(NETWORK_SOURCES):
        try:
            source = cast(type[NetworkSource], load_plugin(NETWORK_SOURCES, name))()
        except InputError as error:  # another's broken source is no reason to find none
            reasons.append(str(error))
            continue
        reason = source.why_not(location)
        if reason is None:
            return source, reasons
        reasons.append(f"{name}: {reason}")
    return None, reasons


def load_network(location: str, *, task: str) -> NetworkModel:
    """Load a network with the first source that understands the location.

    Args:
        location: a file or a folder.
        task: one of `onhand.core.network.TASKS`.

    Returns:
        The network.

    Raises:
        SourceError: if it is not there, no source understands it, or it is damaged.
    """
    source, reasons = find_source(location)
    if source is None and not Path(location).exists():
        raise SourceError(f"{location}: no such file or folder")
    if source is None:
        raise SourceError(f"{location}: no source understands it: {'; '.join(reasons)}")
    return source.load(location, task=task)


def with_inputs(model: NetworkModel, *, feed: str | None, labels: Path | None) -> NetworkModel:
    """Return a network with what the user says of its inputs and classes.

    Args:
        model: the network.
        feed: how inputs are made, over what the source says: see `read_feed`; None for that.
        labels: a file with the names of the classes, a line each; None for the source's.

    Returns:
        The network.

    Raises:
        InputError: if `feed` or `labels` cannot be read.
    """
    if feed is not None:
        made, detection = read_feed(feed, model.graph)
        model = replace(model, feed=made or model.feed, detection=detection)
    if labels is not None:
        model = replace(model, labels=read_labels(labels))
    return model


def read_feed(text: str, graph: Graph) -> tuple[Feed | None, Detection | None]:
    """Read how inputs are made.

    Args:
        text: a name in `FEEDS`, for pictures in the layout of the graph's first input; or a TOML
            file with `kind` ("picture", "sound" or "text") and the fields of its class, a part
            `[detection]` with those of `Detection`, or both.
        graph: whose input it is.

    Returns:
        The feed, and how a detector's outputs become boxes; None for what the file does not say.

    Raises:
        InputError: if it is unknown, cannot be read, or does not fit the input.
    """
    if text in FEEDS:
        return _pictures(text, graph), None
    path = Path(text)
    if path.suffix != ".toml":
        raise InputError(f"--feed {text!r}: is none of {', '.join(FEEDS)}, and no .toml file")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    boxes = table.pop("detection", None)
    try:
        detection = None if boxes is None else detection_from_json(boxes)
        return None if detection and not table else feed_from_json(table), detection
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _pictures(name: str, graph: Graph) -> PictureFeed:
    value = graph.inputs[0]
    sizes = value.shape[1:]
    if len(sizes) != 3 or not all(isinstance(size, int) for size in sizes):
        raise InputError(
            f"--feed {name}: input {value.name!r} is of shape {value.shape}, no picture of one "
            "size; say more in a .toml file"
        )
    whole = tuple(size for size in sizes if isinstance(size, int))
    layout = "nchw" if whole[0] in {1, 3} else "nhwc"
    channels, height, width = whole if layout == "nchw" else (whole[2], whole[0], whole[1])
    if channels not in {1, 3}:
        raise InputError(
            f"--feed {name}: input {value.name!r} of shape {value.shape} is no picture"
        )
    mean, std = FEEDS[name]
    # Of gray pictures, the mean over the colours.
    numbers = (mean, std) if channels == 3 else ((sum(mean) / 3,), (sum(std) / 3,))
    return PictureFeed(
        height=height,
        width=width,
        layout=layout,
        channels="rgb" if channels == 3 else "gray",
        mean=numbers[0],
        std=numbers[1],
    )


def read_labels(path: Path) -> tuple[str, ...]:
    """Read names of classes, a line each.

    Args:
        path: a UTF-8 file.

    Returns:
        The names, in order.

    Raises:
        InputError: if it cannot be read or holds none.
    """
    try:
        if path.stat().st_size > _MOST_LABELS_BYTES:
            raise InputError(f"{path}: is over {_MOST_LABELS_BYTES} bytes")
        # Windows writes a mark before the first letter.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"{path}: holds no labels")
    return tuple(line.strip() for line in lines)
