"""What a build should be able to learn, by `--learnable` or by its recipe."""

from pathlib import Path
from typing import TYPE_CHECKING

from onhand.core.errors import InputError

if TYPE_CHECKING:
    from onhand.host.learning.wanted import Learnable

__all__ = ["wanted_learnable"]


def wanted_learnable(option: str | None, of_recipe: str, recipe: Path | None) -> "Learnable | None":
    """Return what a bundle should be able to learn.

    Args:
        option: of the command.
        of_recipe: what the recipe says; "" for nothing.
        recipe: its file, for messages.

    Returns:
        The wish; None for none.

    Raises:
        InputError: if both are given, or one cannot be read.
    """
    from onhand.host.learning.wanted import parse_learnable

    if option is not None and of_recipe:
        raise InputError(f"{recipe} says what is learnable already: leave --learnable out")
    text = of_recipe if option is None else option
    return parse_learnable(text) if text else None
