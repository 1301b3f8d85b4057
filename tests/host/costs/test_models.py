"""`onhand.host.costs.models`: the cost model of a source."""

from dataclasses import replace
from pathlib import Path

from tests.host.costs.parts import CALIBRATION, PROFILE
from tests.models import DECODER, memory_model

from onhand.core.progress import Quiet
from onhand.core.quantized import GroupFormat
from onhand.host.calibrate import InputStatistics
from onhand.host.costs.models import costs_of_model, other_bytes
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.quantize import Quantize


def test_a_source_costs_the_size_of_its_bundle(tmp_path: Path) -> None:
    """To the byte, tokenizer and all."""
    model = memory_model(DECODER)
    (tmp_path / "b").mkdir()
    packed = pack_bundle(
        model,
        plan_variants(DECODER, {"small": Quantize(method="rtn", bits=3)}),
        InputStatistics(),
        tmp_path / "b",
        accuracy_level=4,
        provenance={},
        threads=1,
        progress=Quiet(),
    )

    costs = costs_of_model(model, PROFILE, threads=1, calibration=CALIBRATION)
    said = costs.whole(packed.bundle.manifest.variants["small"].matrices)

    assert said.size_bytes == packed.bundle.size_bytes("small")
    assert other_bytes(model) == sum(map(len, model.files.values()))


def test_a_device_uses_no_more_threads_than_it_has() -> None:
    """Whatever this machine would use."""
    model = replace(memory_model(DECODER), files={})

    found = costs_of_model(model, PROFILE, threads=99, calibration=None)

    formats = dict.fromkeys(DECODER.matrices(), GroupFormat())
    assert found.threads == PROFILE.usable_threads
    assert found.whole(formats).estimated
