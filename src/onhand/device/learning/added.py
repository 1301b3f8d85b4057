"""Names of the classes that a device has added to those of a bundle."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError, ResourceError
from onhand.core.outside import parse_json, shown
from onhand.device.vault.above import content_of, keys_above, write_placed

__all__ = ["add_classes", "added_classes"]

_FILE: Final = "classes.json"
_MOST_BYTES: Final = 16 * 2**20
_MOST_CLASSES: Final = 2**16


def added_classes(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes that were added to a bundle's own, in their order.

    A version's head says how many of them it has: names are added and never removed.

    Args:
        folder: where what was learned is kept; it need not exist.

    Raises:
        InputError: if the file is damaged.
        ResourceError: if it cannot be read.
    """
    path = folder / _FILE
    try:
        content = bytes(content_of(path, keys_above(folder, "memory")))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ResourceError(f"{path}: cannot be read: {error.strerror}") from error
    names = parse_json(content) if len(content) <= _MOST_BYTES else None
    if not isinstance(names, list) or len(names) > _MOST_CLASSES:
        raise InputError(f"{path}: damaged: it is no list of names")
    for name in names:
        if not isinstance(name, str) or not 1 <= len(name) <= 200 or "\n" in name:
            raise InputError(f"{path}: damaged: {shown(name)} is no name of a class")
    return tuple(names)


def add_classes(folder: Path, names: Sequence[str]) -> None:
    """Keep the names of added classes.

    Args:
        folder: where what was learned is kept; made if it is missing.
        names: all of them: those that were kept before come first.

    Raises:
        InputError: if they do not begin with those.
        ResourceError: if they cannot be written.
    """
    known = added_classes(folder)
    if tuple(names[: len(known)]) != known:
        raise InputError(f"{folder}: classes {shown(list(known))} were added before these")
    if len(names) == len(known):
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made: {error.strerror}") from error
    text = json.dumps(list(names), ensure_ascii=False) + "\n"
    write_placed(folder / _FILE, text.encode(), keys_above(folder, "memory"))
