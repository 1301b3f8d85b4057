"""Arrays that a build keeps for itself, in files that are there as a whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from onhand.core.errors import ResourceError

__all__ = ["damage", "read_arrays", "write_arrays"]


def write_arrays(place: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write arrays and what is to be said of them beside their place, and rename.

    Args:
        place: the file, replaced if it is there.
        arrays: by name; not "about".
        about: a JSON object.
    """
    text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    beside = place.with_name(f"{place.name}.new")
    with beside.open("wb") as file:
        np.savez(file, about=text, **dict(arrays))  # type: ignore[arg-type]
    beside.replace(place)


def read_arrays(place: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `write_arrays` wrote.

    Args:
        place: the file.

    Returns:
        The arrays by name, and the JSON object.

    Raises:
        ResourceError: if the file is not whole.
    """
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        return arrays, json.loads(arrays.pop("about").tobytes())
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise ResourceError(damage(place)) from error


def damage(place: Path) -> str:
    """Say that a kept file is not whole, and what to do.

    Args:
        place: the file.
    """
    building = next((part for part in place.parents if part.suffix == ".building"), place.parent)
    return f"{place} is damaged; remove {building} and build without --resume"
