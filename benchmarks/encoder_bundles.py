"""The bundles of the encoders' benchmark: built by the recipes, or taken where they are built."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.encoder_texts import judging_pairs, learned_texts, read_pairs
from onhand.cli.build_network import integer_steps
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.plugins import NETWORK_PASSES, load_plugin
from onhand.core.recipe import parse_recipe
from onhand.host.networks.build import build_network
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.passes.smooth import Smooth
from onhand.host.networks.steps import Step

__all__ = ["VARIANTS", "calibration_texts", "layer_parameters", "open_bundles", "texts_to_learn"]

RECIPE: Final = Path(__file__).parents[1] / "recipes" / "networks" / "encoder-slim.toml"
_LEARNED: Final = 40_000
_QUESTIONS: Final = 60_000  # among those that are drawn from
CALIBRATION: Final = 100
_HELD_OUT: Final = 200  # pairs that the build itself judges by
# Bundle -> variant -> its steps; those of the recipe are read when they are needed.
_PLAIN: Final[Mapping[str, tuple[Step, ...]]] = {
    "fp32": (),
    "int8": integer_steps("text-embedding"),
    "int8-unsigned": (Step(Smooth()), Step(QuantizeNetwork())),
}
VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "plain": tuple(_PLAIN),
    "cut": ("cut",),
    "slim": ("slim",),
}


def open_bundles(model: Path, folder: Path, *, threads: int) -> dict[str, Bundle]:
    """Return the bundles, building those that the folder does not hold.

    Args:
        model: the encoder's folder.
        folder: of the bundles; what is there is taken as it is.
        threads: of the building.

    Returns:
        "plain": the network in float32, int8, and int8 of numbers from zero on; "slim": by the
        recipe; "cut": by the same without distillation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in VARIANTS:
        if (folder / name).is_dir():
            sys.stderr.write(f"{name}: taken from {folder.name}\n")
        else:
            _build(model, folder, name, threads)
    return {name: read_bundle(folder / name) for name in VARIANTS}


def texts_to_learn() -> list[str]:
    """Return the texts that compression is given; no judge reads one of them."""
    return learned_texts(read_pairs(), _QUESTIONS)


def calibration_texts() -> list[str]:
    """Return the texts that calibrate integers: ours and everybody's."""
    return texts_to_learn()[:CALIBRATION]


def layer_parameters(bundle: Bundle, variant: str) -> dict[str, int]:
    """Return how many parameters a variant has, in tables of embeddings and in layers.

    Args:
        bundle: of an encoder.
        variant: of it.

    Returns:
        "layers" and "tables": numbers of matrices alone, codes or floats.
    """
    import onnx

    graph = onnx.load(
        bundle.path(bundle.manifest.variants[variant].graph), load_external_data=False
    )
    found = {"layers": 0, "tables": 0}
    for tensor in graph.graph.initializer:
        # A column is the scales of a table's rows.
        if len(tensor.dims) == 2 and min(tensor.dims) > 1:
            kind = "tables" if "embedding" in tensor.name else "layers"
            found[kind] += tensor.dims[0] * tensor.dims[1]
    return found


def _steps(name: str) -> dict[str, tuple[Step, ...]]:
    if name == "plain":
        return dict(_PLAIN)
    recipe = parse_recipe(
        RECIPE.read_text(encoding="utf-8"), passes=lambda name: load_plugin(NETWORK_PASSES, name)
    )
    steps = tuple(Step(step) for step in recipe.steps)  # type: ignore[arg-type]  # of that group
    if name == "cut":
        steps = tuple(step for step in steps if step.transform.name != "distil")
    return {name: steps}


def _build(model: Path, folder: Path, name: str, threads: int) -> None:
    with tempfile.TemporaryDirectory(prefix="onhand-encoders-") as scratch:
        place = Path(scratch)
        texts, judges = place / "texts.txt", place / "judges.txt"
        _write(texts, calibration_texts() if name == "plain" else texts_to_learn())
        pairs = judging_pairs(read_pairs(), _HELD_OUT)
        _write(judges, [text for first, second, _ in pairs for text in (first, second)])
        options = NetworkOptions(
            task="text-embedding",
            variants=_steps(name),
            data=texts,
            heldout=judges,
            n_calibration=_LEARNED,
            threads=threads,
            measure_original=False,
        )
        build_network(str(model), folder / name, options, home=place / "home")


def _write(path: Path, texts: Sequence[str]) -> None:
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
