"""Networks measured in processes of their own."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from tests.network_bundles import classifier, pack

from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt, EngineError, InputError
from onhand.core.profile import render_profile
from onhand.device.networks.bench import NAMES, bench_network
from onhand.device.networks.bench_child import NetworkJob, run_job
from onhand.device.networks.opening import open_network
from onhand.device.probe import current_profile


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small network for any number of rows."""
    drawing = classifier(np.random.default_rng(0), batch=None)
    return pack(tmp_path_factory.mktemp("bench") / "folder", {"fp32": drawing, "again": drawing})


@pytest.fixture
def job(bundle: Bundle) -> NetworkJob:
    """One short block in the reference engine, of two rows."""
    return NetworkJob(
        work="speed",
        root=str(bundle.root),
        variant="again",
        engine="reference",
        threads=1,
        batch=2,
        blocks=1,
        profile=render_profile(current_profile()),
    )


def test_everything_is_measured(bundle: Bundle, home: Path) -> None:
    """All names, with how to measure them again, and figures that can be."""
    made, engine = bench_network(
        bundle.root, variant="again", engine="reference", threads=1, batch=2, runs=1, home=home
    )

    assert (tuple(made), engine) == (NAMES, "reference")
    assert made["size_bytes"].value == bundle.size_bytes("again")
    assert 0 < made["load_s"].value < made["cold_start_s"].value
    assert made["cold_start_s"].samples == 3
    assert 0 < made["latency_s"].value < 1
    assert made["runs_per_s"].value == pytest.approx(1 / made["latency_s"].value, rel=0.9)
    assert made["peak_memory_bytes"].value > 10 * 2**20
    assert made["energy_j_per_run"].value > 0
    assert {figure.how.split("  #")[0] for figure in made.values()} == {
        "onhand bench tiny-network --variant again --engine reference --threads 1 --runs 1 "
        "--batch 2"
    }


def test_a_process_prints_what_it_saw(job: NetworkJob) -> None:
    """One event in a line: the first answer, a warm-up, each block, and the end."""
    out = StringIO()

    run_job(job, out)

    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["first-answer", "warm", "run", "speed"]
    assert events[2].keys() == {"event", "latency_s", "runs_per_s", "energy_j_per_run"}


@pytest.mark.parametrize("option", ["runs", "batch", "threads"])
def test_numbers_below_one_are_refused(bundle: Bundle, option: str) -> None:
    """Before any process starts."""
    with pytest.raises(InputError, match="must be at least 1"):
        bench_network(bundle.root, **{option: 0})  # type: ignore[arg-type]


def test_a_batch_needs_a_network_that_takes_it(tmp_path: Path) -> None:
    """By the name of the input."""
    bundle = pack(tmp_path / "one", {"fp32": classifier(np.random.default_rng(0))})

    with pytest.raises(InputError, match="batch is 4, but input 'x' of tiny-network takes 1 only"):
        bench_network(bundle.root, batch=4)


def test_a_failing_process_says_why(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last line is the error's."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "numpy.py").write_text("raise SystemExit('no numpy today')")

    with pytest.raises(EngineError, match=r"bench tiny-network: .*\(start\).*no numpy today"):
        bench_network(bundle.root, engine="onnx", runs=1)


def test_a_damaged_bundle_is_not_measured(bundle: Bundle, tmp_path: Path) -> None:
    """Its files are checked first."""
    copy = pack(tmp_path / "copy", {"fp32": classifier(np.random.default_rng(0))})
    copy.path("model.onnx").write_bytes(b"x" * copy.path("model.onnx").stat().st_size)

    with pytest.raises(BundleCorrupt):
        bench_network(copy.root)


def test_the_engine_is_chosen_as_for_opening(bundle: Bundle, home: Path) -> None:
    """With a state folder by measuring, which is remembered; without one by preference."""
    _, chosen = bench_network(bundle.root, threads=1, runs=1, home=home)
    _, again, _ = open_network(bundle, threads=1, home=home)

    assert chosen == again != "reference"
