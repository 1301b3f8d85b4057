"""A search that may also prune, factorise and round otherwise, on a model where that pays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.models import CONFIG, checkpoint_shapes, random_tensors, write_checkpoint

from onhand.core.budget import Budget, parse_budget
from onhand.core.bundle import read_bundle
from onhand.core.errors import BudgetExceeded
from onhand.core.measurement import Unit
from onhand.core.quantized import GroupFormat
from onhand.host.build import build_bundle
from onhand.host.options import BuildOptions
from onhand.host.search.choices import SearchSpace
from onhand.host.search.planning import plan_searched

pytest.importorskip("scipy", reason="exact points: needs onhand[host]")

Quick = dict[str, tuple[float, Unit]]
SPACE = SearchSpace(
    forms=(GroupFormat(bits=4), GroupFormat(bits=8)),
    method="gptq",
    methods=("clip",),
    zeros=(0.5,),
    ranks=(0.003,),
)


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose `down` has rank 8, and whose gate and up are half next to nothing."""
    rng = np.random.default_rng(5)
    tensors = random_tensors(checkpoint_shapes(CONFIG), seed=3)
    for name, tensor in tensors.items():
        if "down_proj" in name:
            n, k = tensor.shape
            product = rng.normal(0, 1, (n, 8)) @ rng.normal(0, 1, (8, k))
            tensors[name] = (product * tensor.std() / product.std()).astype(np.float32)
        elif "gate_proj" in name or "up_proj" in name:
            small = np.argsort(np.abs(tensor), axis=1).argsort(axis=1) < tensor.shape[1] // 2
            tensors[name] = np.where(small, tensor * np.float32(0.002), tensor)
    return write_checkpoint(tmp_path_factory.mktemp("thin") / "m", tensors=tensors, dtype="F32")


def test_what_a_matrix_does_not_need_is_not_stored(
    thin: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Products of thin matrices and codes without zeros, where these lose least; and as planned."""
    wanted = replace(
        options,
        search=SPACE,
        budget=parse_budget("disk=85KiB"),
        measure_original=False,
        n_variants=2,
    )

    made = build_bundle(str(thin), shelf / "b", wanted, home=home)

    bundle = read_bundle(made.root)
    decoder = bundle.manifest.decoder
    assert decoder.ranks.get("layers.1.down") == 32
    name, variant = bundle.variant(None)
    assert {"layers.0.gate_up.codes", "layers.1.gate_up.codes"} & set(variant.sparse)
    front = made.report["front"]
    assert isinstance(front, dict)
    (chosen,) = [row for row in front["points"] if row["is_chosen"]]
    assert "rank 32" in chosen["choices"]["layers.1.down"]
    pruned = [name for name, text in chosen["choices"].items() if "50% zeros" in text]
    assert pruned
    assert chosen["measured"]["size_bytes"] == pytest.approx(
        chosen["predicted"]["size_bytes"], rel=0.02
    )
    said = bundle.manifest.provenance
    shaping, recipe = said["shaping"], said["recipe"]
    assert isinstance(shaping, list)
    assert isinstance(recipe, dict)
    assert shaping[-1]["ranks"] == dict(decoder.ranks)
    assert recipe[name]["layers"][pruned[0]]["zeros"] == 0.5
    assert "layers.1.down.left" in recipe[name]["layers"]
    assert len(bundle.manifest.variants) == 2


def test_what_only_lower_ranks_and_zeros_can_hold_is_not_refused_by_shapes(
    thin: Path, home: Path, options: BuildOptions
) -> None:
    """Formats alone stay over the limit, and say so; with ranks and zeros the plan holds it."""
    wanted = replace(options, search=SPACE, measure_original=False)
    least = plan_searched(str(thin), wanted, home=home).points[0]
    budget = Budget(size_bytes=int(least.predicted["size_bytes"] * 1.01))

    held = plan_searched(str(thin), replace(wanted, budget=budget), home=home)

    assert held.chosen
    assert held.refusal is None
    plain = replace(wanted, budget=budget, search=SearchSpace(forms=SPACE.forms))
    with pytest.raises(BudgetExceeded, match="disk: at most"):
        plan_searched(str(thin), plain, home=home)
