"""Files that settings name: looked for beside the settings' own file."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _T = TypeVar("_T", bound=DataclassInstance)

__all__ = ["placed_files"]


def placed_files(settings: "_T", names: Sequence[str], beside: Path) -> "_T":
    """Return settings whose files are named in full.

    Args:
        settings: a dataclass.
        names: of its fields that name a file; "" names none.
        beside: the folder in which they are looked for.
    """
    given = {one.name: str(getattr(settings, one.name)) for one in fields(settings)}
    placed: dict[str, Any] = {
        name: str(beside / Path(given[name]).expanduser()) for name in names if given[name]
    }
    return replace(settings, **placed)
