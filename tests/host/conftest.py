"""Checkpoints of tiny models, made once for a run of the tests; a benchmark that takes no time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.models import CONFIG, sample_text, write_checkpoint

from onhand.core.bundle import read_bundle
from onhand.core.measurement import Measurement, Unit
from onhand.core.progress import Progress
from onhand.device import bench as real_bench

pytest.importorskip("onnx", reason="builds bundles: needs onhand[host]")

from onhand.host import build, prove
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize

VALUES: Mapping[str, tuple[float, Unit]] = {
    "load_s": (0.01, "s"),
    "cold_start_s": (0.3, "s"),
    "time_to_first_token_s": (0.02, "s"),
    "prefill_tokens_per_s": (1000.0, "1/s"),
    "decode_tokens_per_s": (100.0, "1/s"),
    "peak_memory_bytes": (8e7, "byte"),
    "energy_j_per_token": (0.05, "joule"),
    "read_bandwidth": (1e10, "byte/s"),
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint; change it only in a copy."""
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny-llama", CONFIG)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of about 700 tokens."""
    path = tmp_path_factory.mktemp("text") / "commands.txt"
    path.write_text(sample_text(500, seed=1), encoding="utf-8")
    return path


@pytest.fixture
def quick_bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, Unit]]:
    """Put figures in the place of the benchmark; what the test changes in them is reported."""
    values: dict[str, tuple[float, Unit]] = dict(VALUES)

    def bench(
        root: Path, *, variant: str, progress: Progress, **options: Any
    ) -> dict[str, Measurement]:
        bundle = read_bundle(root)
        progress.start("measuring", 1)
        progress.advance(1)
        given = {**values, "size_bytes": (float(bundle.size_bytes(variant)), "byte")}
        return {
            name: Measurement(
                name=name,
                value=value,
                unit=unit,
                samples=1,
                spread=0.0,
                how="a test",
                estimated=name == "energy_j_per_token",
            )
            for name, (value, unit) in given.items()
        }

    assert set(VALUES) | {"size_bytes"} == set(real_bench.NAMES)
    monkeypatch.setattr(prove, "bench", bench)
    return values


@pytest.fixture
def quick(
    quick_bench: dict[str, tuple[float, Unit]], monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[float, Unit]]:
    """The same, and no plots."""
    monkeypatch.setattr(build, "render_report", lambda content: f"{len(content)} rows")
    return quick_bench


@pytest.fixture
def options(text: Path) -> BuildOptions:
    """Plain int4, judged on the small text."""
    return BuildOptions(transforms={"int4": Quantize(method="rtn")}, calibrate=text, threads=1)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Path]:
    """The folder that bundles are put into; nothing hidden may stay in it."""
    place = tmp_path / "shelf"
    place.mkdir()
    yield place
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []
