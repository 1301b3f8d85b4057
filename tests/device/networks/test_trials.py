"""A trial of one way to run a network, in a child process."""

from pathlib import Path

import numpy as np
import pytest
from tests.network_bundles import classifier, pack

from onhand.core.errors import EngineError
from onhand.device.networks.trials import try_network_way
from onhand.device.probe import current_profile


def test_latency_energy_and_memory_are_measured(tmp_path: Path) -> None:
    """Three blocks each; the way is in the command; memory is seen from the start."""
    bundle = pack(tmp_path / "net", {"fp32": classifier(np.random.default_rng(1))})
    variant = bundle.manifest.default_variant
    found = try_network_way(
        bundle.root, variant=variant, engine="onnx", threads=1, profile=current_profile()
    )

    assert found.figures["latency_s"].samples == 3
    assert all(figure.value > 0 for figure in found.figures.values())
    assert "--engine onnx --threads 1" in found.figures["latency_s"].how
    assert [name for name, _ in found.memory.phases] == [
        "starting Python and opening",
        "first answers",
        "answering",
    ]
    assert max(size for _, size in found.memory.points) > 10 * 2**20


def test_an_engine_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The last line of the child is the reason."""
    bundle = pack(tmp_path / "net", {"fp32": classifier(np.random.default_rng(1))})
    with pytest.raises(EngineError, match="in none ended with code 1"):
        try_network_way(
            bundle.root,
            variant=bundle.manifest.default_variant,
            engine="none",
            threads=1,
            profile=current_profile(),
        )
