"""Bundles that `benchmarks.train_step` trains: made before, by a process of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.train_step_work import Case
from onhand.core.arrays import FloatArray
from onhand.core.progress import Quiet
from onhand.host.calibrate import InputStatistics
from onhand.host.costs.synthetic import RandomWeights, random_model
from onhand.host.learning.decoder_files import add_decoder_lesson
from onhand.host.learning.wanted import Learnable
from onhand.host.pack import pack_bundle, pack_original, plan_variants
from onhand.host.passes.quantize import Quantize
from onhand.host.sources import load_model

__all__ = ["write_case"]


class _Tame(RandomWeights):
    """Random weights that keep a vector's length about, as a trained model's do."""

    def block(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, name: str, start: int, stop: int
    ) -> FloatArray:
        """See `ModelWeights`."""
        drawn = super().block(name, start, stop)
        return drawn * np.float32(drawn.shape[1] ** -0.5)


def write_case(case: Case, folder: Path) -> None:
    """Write a bundle with a lesson; its gradients are checked, but not over many steps.

    Args:
        case: what it holds.
        folder: an empty folder.
    """
    if case.decoder is None:
        model = load_model(str(Path(__file__).parents[1] / "examples/house_assistant/model"))
    else:
        model = replace(random_model(case.decoder), weights=_Tame(case.decoder))
    if case.bits == 32:
        bundle = pack_original(model, folder)
    else:
        transforms = {f"int{case.bits}": Quantize(bits=case.bits, method="rtn")}
        bundle = pack_bundle(
            model,
            plan_variants(model.decoder, transforms),
            InputStatistics(),
            folder,
            accuracy_level=4,
            provenance={},
            threads=1,
            progress=Quiet(),
        ).bundle
    add_decoder_lesson(bundle, Learnable(kind="lora", rank=case.rank), threads=1, steps=2)
