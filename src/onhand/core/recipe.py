"""A recipe: an ordered list of passes, read from TOML. Data only, never code."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass

from onhand.core.errors import InputError, RecipeError
from onhand.core.manifest import NAME
from onhand.core.tables import filled, unknown

__all__ = ["Guard", "Recipe", "parse_recipe"]


_GUARD = ("most_loss", "undo")
_KEYS = ("learnable", "name", "step")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What a step may lose.

    Attributes:
        most_loss: as a share: of accuracy, agreement or similarity, measured on examples that the
            step did not see; None where the whole budget decides.
        undo: whether a step that loses more is undone; else the build ends there.
    """

    most_loss: float | None = None
    undo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Passes to run, in order, each already built and checked, and what each may lose.

    Attributes:
        name: of the recipe.
        steps: the passes.
        guards: of each, what it may lose.
        learnable: what the bundle should be able to learn, as `--learnable` has it; "" for nothing.
    """

    name: str
    steps: tuple[object, ...]
    guards: tuple[Guard, ...]
    learnable: str = ""


def parse_recipe(
    text: str,
    *,
    passes: Callable[[str], object],
    where: str = "recipe",
) -> Recipe:
    """Read a recipe.

    Args:
        text: TOML with `name`, perhaps `learnable`, and one `[[step]]` table for each pass.
        passes: name of a pass -> its class, a dataclass; raises InputError for an unknown name.
            A recipe reaches nothing else.
        where: name of the file, for messages.

    Returns:
        The recipe, with every step built.

    Raises:
        RecipeError: if the TOML, a key, a pass name or an option is wrong.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{where} is not TOML: {error}") from error
    for key in table:
        if key not in _KEYS:
            raise RecipeError(f"{where}: {unknown('key', key, _KEYS)}")
    name, steps = table.get("name", "unnamed"), table.get("step", [])
    learnable = table.get("learnable", "")
    if not isinstance(learnable, str):
        raise RecipeError(f'{where}: learnable is {learnable!r}, must be a text, as in "head"')
    if not isinstance(name, str):
        raise RecipeError(f"{where}: name is {name!r}, must be a text")
    if not NAME.fullmatch(name):
        raise RecipeError(
            f"{where}: name is {name!r}, must be 1 to 100 of letters, digits and . _ + -"
        )
    if not isinstance(steps, list) or not steps:
        raise RecipeError(f"{where}: no [[step]]; a recipe needs at least one")
    made = [
        _step(step, passes, f"{where}: step {number}") for number, step in enumerate(steps, start=1)
    ]
    return Recipe(
        name=name,
        steps=tuple(step for step, _ in made),
        guards=tuple(guard for _, guard in made),
        learnable=learnable,
    )


def _step(step: object, passes: Callable[[str], object], where: str) -> tuple[object, Guard]:
    if not isinstance(step, dict) or not isinstance(step.get("pass"), str):
        raise RecipeError(f'{where}: needs a pass, as in pass = "quantize"')
    name = step["pass"]
    guard = _guard({key: step[key] for key in _GUARD if key in step}, f"{where} ({name})")
    options = {key: value for key, value in step.items() if key not in {"pass", *_GUARD}}
    try:
        made = passes(name)
    except InputError as error:
        raise RecipeError(f"{where}: {error}") from error
    if not isinstance(made, type) or not is_dataclass(made):
        raise RecipeError(f"{where}: pass {name!r} is not a dataclass")
    return filled(made, options, where=f"{where} ({name})", also=_GUARD), guard


def _guard(step: dict[str, object], where: str) -> Guard:
    most, undo = step.get("most_loss"), step.get("undo", False)
    is_number = isinstance(most, int | float) and not isinstance(most, bool)
    if most is not None and not (is_number and isinstance(most, int | float) and 0 <= most <= 1):
        raise RecipeError(f"{where}: most_loss is {most!r}, must be a share from 0 to 1")
    if not isinstance(undo, bool):
        raise RecipeError(f"{where}: undo is {undo!r}, must be true or false")
    return Guard(most_loss=float(most) if isinstance(most, int | float) else None, undo=undo)
