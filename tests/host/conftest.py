"""Checkpoints of tiny models, made once for a run of the tests; a benchmark that takes no time."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.host.stub_bench import VALUES, stub_bench, stub_way
from tests.models import CONFIG, sample_text, write_checkpoint

from onhand.core.measurement import Unit
from onhand.device import bench as real_bench

pytest.importorskip("onnx", reason="builds bundles: needs onhand[host]")

from onhand.host import build, evaluating, prove
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize


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
    assert set(VALUES) | {"size_bytes"} == set(real_bench.NAMES)
    monkeypatch.setattr(prove, "bench", partial(stub_bench, values))
    monkeypatch.setattr(evaluating, "try_way", stub_way)
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
