"""`onhand build` of a network that is no language model."""

from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from onhand.core.errors import InputError
from onhand.core.plugins import NETWORK_PASSES, load_plugin
from onhand.core.recipe import Recipe, parse_recipe

if TYPE_CHECKING:
    from onhand.host.networks.steps import Step

__all__ = ["NETWORK_SUFFIXES", "integer_steps", "read_recipe", "read_variants"]

NETWORK_SUFFIXES: Final = (".h5", ".keras", ".onnx", ".pt2", ".tflite")
_BITS = {32: "fp32", 8: "int8", 4: "int4"}


def read_variants(
    recipe: Path | None,
    *,
    bits: int | None,
    variants: str | None,
    task: str,
    recover: bool = False,
) -> "dict[str, tuple[Step, ...]]":
    """Return variant name -> its steps, from a recipe or from the options.

    Args:
        recipe: a TOML file, or None.
        bits: of a weight: 8, 4, or 32 for the network as it is; None for 8.
        variants: names of several, as in "int8,fp32"; None for one.
        task: of the network: encoders of texts have outliers that are smoothed first.
        recover: whether integers are trained on the original's answers.

    Returns:
        At least one; the first is the default variant.

    Raises:
        InputError: if a recipe and another option are given, an option is out of range, or the
            file cannot be read.
        RecipeError: if the recipe is wrong.
    """
    if recipe is not None:
        if bits is not None or variants is not None or recover:
            raise InputError(
                "--recipe says all that --bits, --variants and --recover say; give one of them"
            )
        return _from_recipe(recipe)
    if variants is None:
        chosen = 8 if bits is None else bits
        if chosen not in _BITS:
            raise InputError(f"--bits is {bits}, must be 8, 4 or 32 for a network")
        if recover and chosen == 32:
            raise InputError("--recover trains integers, and --bits 32 makes none; leave one out")
        return {_BITS[chosen]: _steps(chosen, task, recover=recover)}
    if bits is not None:
        raise InputError("--variants names the bits of each variant; leave --bits out")
    by_name = {name: number for number, name in _BITS.items()}
    names = [name.strip() for name in variants.split(",")]
    for name in names:
        if name not in by_name:
            raise InputError(f"--variants: unknown {name!r}; known: {', '.join(by_name)}")
        if names.count(name) > 1:
            raise InputError(f"--variants: {name!r} is given twice")
    return {name: _steps(by_name[name], task, recover=recover) for name in names}


def integer_steps(task: str) -> "tuple[Step, ...]":
    """Return what makes int8 of a network where nothing else is asked for.

    Args:
        task: of the network. Encoders of texts: queries, keys and values go into one product,
            outliers are smoothed, and integers lie around zero, which OpenVINO multiplies fastest;
            ONNX Runtime does so in float where several products read one activation.
    """
    from onhand.host.networks.passes.fuse import Fuse
    from onhand.host.networks.passes.quantize import QuantizeNetwork
    from onhand.host.networks.passes.smooth import Smooth
    from onhand.host.networks.steps import Step

    if not task.startswith("text"):
        return (Step(QuantizeNetwork()),)
    joined = Fuse(products=True, activations=False, norms=False)
    return Step(joined), Step(Smooth()), Step(QuantizeNetwork(activations="symmetric"))


def _steps(bits: int, task: str, *, recover: bool) -> "tuple[Step, ...]":
    from onhand.host.networks.passes.distil import Distil
    from onhand.host.networks.passes.quantize import QuantizeNetwork
    from onhand.host.networks.steps import Step

    if bits == 32:
        return ()
    weights = (Step(QuantizeNetwork(bits=4, scheme="weights")),)
    made = weights if bits == 4 else integer_steps(task)
    return (*made, Step(Distil(learning_rate=1e-5, learn_scales=True))) if recover else made


def read_recipe(path: Path) -> Recipe:
    """Read a recipe for a network.

    Args:
        path: a TOML file.

    Returns:
        The recipe.

    Raises:
        InputError: if the file cannot be read.
        RecipeError: if the recipe is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} cannot be read: {error}") from error
    return parse_recipe(
        text,
        passes=lambda name: load_plugin(NETWORK_PASSES, name),
        where=str(path),
    )


def _from_recipe(path: Path) -> "dict[str, tuple[Step, ...]]":
    from onhand.host.networks.passes.base import NetworkPass
    from onhand.host.networks.steps import Step

    recipe = read_recipe(path)
    made = zip(recipe.steps, recipe.guards, strict=True)
    return {recipe.name: tuple(Step(cast(NetworkPass, step), guard) for step, guard in made)}
