"""The passes that a build's options or its recipe file ask for."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from onhand.core.errors import InputError, RecipeError
from onhand.core.plugins import PASSES, load_plugin
from onhand.core.recipe import Guard, Recipe, parse_recipe

if TYPE_CHECKING:
    from onhand.host.passes.base import Pass, ShapingStep

__all__ = ["QuantizeOptions", "read_decoder_recipe", "read_shaping", "read_transforms"]

_BITS = {"int2": 2, "int3": 3, "int4": 4, "int8": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """Options of `Quantize` as given; None or False for its default. See `Quantize`."""

    bits: int | None = None
    preset: str | None = None
    method: str | None = None
    group: int | None = None
    asymmetric: bool = False
    embed_bits: int | None = None
    scale_bits: int | None = None
    variants: str | None = None

    def given(self) -> list[str]:
        """Return the options that the user gave, as they are written."""
        written = {
            "--bits": self.bits,
            "--preset": self.preset,
            "--method": self.method,
            "--group": self.group,
            "--asymmetric": self.asymmetric or None,
            "--embed-bits": self.embed_bits,
            "--scale-bits": self.scale_bits,
            "--variants": self.variants,
        }
        return [option for option, value in written.items() if value is not None]

    def n_points(self) -> int | None:
        """Return how many points of a front are asked for, or None for variants by name."""
        return (
            int(self.variants) if self.variants is not None and self.variants.isdecimal() else None
        )

    def by_name(self) -> "QuantizeOptions":
        """Return the options without a number of points, which names no variant."""
        return self if self.n_points() is None else replace(self, variants=None)

    def leave_formats(self) -> bool:
        """Say whether the user left it open how the matrices are stored."""
        return not self.given() or (self.given() == ["--variants"] and self.n_points() is not None)

    def leave_codes(self) -> bool:
        """Say whether the user asked for no rounding of what is coded in the source already."""
        return set(self.given()) <= {"--embed-bits"}


def read_transforms(recipe: Path | None, options: QuantizeOptions) -> "Mapping[str, Pass]":
    """Return variant name -> its pass, from a recipe or from the options.

    Args:
        recipe: a TOML file, or None.
        options: of quantising.

    Returns:
        At least one; the first is the default variant.

    Raises:
        InputError: if both are given, an option is out of range, or the file cannot be read.
        RecipeError: if the recipe is wrong, or not its last step alone stores the matrices.
    """
    if recipe is None:
        return _quantize(options)
    if given := options.given():
        raise InputError(f"--recipe says all that {given[0]} says; give one of the two")
    return _from_recipe(recipe)


def read_shaping(recipe: Path | None) -> "tuple[ShapingStep, ...]":
    """Return the passes of a recipe that change the model before its matrices are stored.

    Args:
        recipe: a TOML file, or None.

    Returns:
        The passes in order; none without a recipe.

    Raises:
        InputError: if the file cannot be read.
        RecipeError: if the recipe is wrong.
    """
    return () if recipe is None else _shaping(read_decoder_recipe(recipe), recipe)


def _from_recipe(path: Path) -> "dict[str, Pass]":
    recipe = read_decoder_recipe(path)
    _shaping(recipe, path)
    return {recipe.name: cast("Pass", recipe.steps[-1])}


def read_decoder_recipe(path: Path) -> Recipe:
    """Read a recipe for a language model.

    Args:
        path: a TOML file.

    Returns:
        The recipe; whether its steps are in a fit order is for those who take them.

    Raises:
        InputError: if the file cannot be read.
        RecipeError: if the recipe is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} cannot be read: {error}") from error
    return parse_recipe(text, passes=lambda name: load_plugin(PASSES, name), where=str(path))


def _shaping(recipe: Recipe, path: Path) -> "tuple[ShapingStep, ...]":
    """Return all steps of a recipe but the last, which stores the matrices.

    Raises:
        RecipeError: if the last one does not, or another does.
    """
    from onhand.host.passes.base import ShapingPass, ShapingStep

    shaping: list[ShapingStep] = []
    for number, (step, guard) in enumerate(zip(recipe.steps, recipe.guards, strict=True), start=1):
        last, shapes = number == len(recipe.steps), isinstance(step, ShapingPass)
        if last and shapes:
            raise RecipeError(
                f"{path}: step {number}, the last, does not store the weights; end with a [[step]] "
                'with pass = "quantize"'
            )
        if not last and not shapes:
            raise RecipeError(
                f"{path}: step {number} stores the weights, and {len(recipe.steps) - number} more "
                "follow; only the last step may, remove the rest"
            )
        if isinstance(step, ShapingPass):
            shaping.append(ShapingStep(transform=step, guard=guard))
        elif guard != Guard():
            raise RecipeError(
                f"{path}: step {number}: most_loss and undo are for steps before the last; what "
                "the whole may lose is --budget quality=..."
            )
    return tuple(shaping)


def _quantize(options: QuantizeOptions) -> "dict[str, Pass]":
    from onhand.host.passes.quantize import PRESETS, Quantize

    usual = Quantize()
    if options.preset is not None:
        if options.method is not None:
            raise InputError("--preset chooses the method; give --preset or --method")
        if options.preset not in PRESETS:
            known = ", ".join(PRESETS)
            raise InputError(f"--preset: unknown {options.preset!r}; known: {known}")
        method, rounds = PRESETS[options.preset]
        usual = replace(usual, method=method, distil=rounds)
    usual = replace(
        usual,
        method=usual.method if options.method is None else options.method,
        group_size=usual.group_size if options.group is None else options.group,
        symmetric=usual.symmetric and not options.asymmetric,
        embed_bits=usual.embed_bits if options.embed_bits is None else options.embed_bits,
        scale_bits=usual.scale_bits if options.scale_bits is None else options.scale_bits,
    )
    if options.variants is None:
        made = usual if options.bits is None else replace(usual, bits=options.bits)
        return {f"int{made.bits}": made}
    if options.bits is not None:
        raise InputError("--variants names the bits of each variant; leave --bits out")
    return {name: replace(usual, bits=_bits(name)) for name in _names(options.variants)}


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--variants: {name!r} is given twice")
    return names


def _bits(name: str) -> int:
    if name not in _BITS:
        raise InputError(f"--variants: unknown {name!r}; known: {', '.join(_BITS)}")
    return _BITS[name]
