"""A search from a network's file to a bundle that holds its budget, or to a refusal."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.host.networks.quantized_nets import residual_net

from onhand.core.budget import Budget
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import BudgetExceeded, InputError
from onhand.core.measurement import Measurement, summarize
from onhand.core.progress import Quiet
from onhand.device.networks.ranking import RankedVariant
from onhand.host.costs import network_corners
from onhand.host.learning.wanted import parse_learnable
from onhand.host.networks import build
from onhand.host.networks.graph import Array
from onhand.host.networks.judge import Answers, answer_graph
from onhand.host.networks.onnx_files import model_bytes, read_onnx
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.prove import NetworkProof
from onhand.host.networks.samples import Samples
from onhand.host.prove import Report
from onhand.host.search import network_ground, network_search
from onhand.host.search.network_bases import bases_for
from onhand.host.search.networks import plan_network, search_network


class Machine:
    """A machine whose times go with the bytes of a bundle; it counts what it measures."""

    def __init__(self) -> None:
        self.benched: list[float] = []
        self.slower = 1.0

    def figures(self, root: Path) -> dict[str, Measurement]:
        """What a bundle takes: a microsecond for 16 bytes."""
        size = float(read_bundle(root).size_bytes())
        seconds = size * 1e-6 / 16 * self.slower
        values = {
            "size_bytes": ("byte", size),
            "latency_s": ("s", seconds),
            "load_s": ("s", 0.01),
            "cold_start_s": ("s", 0.1),
            "peak_memory_bytes": ("byte", 5e7 + 4 * size),
            "energy_j_per_run": ("joule", 2 * seconds),
        }
        return {n: summarize(n, [v], unit=u, how="x") for n, (u, v) in values.items()}  # type: ignore[arg-type]

    def bench(self, root: Path, **_: object) -> tuple[dict[str, Measurement], str]:
        """In place of `bench_network`."""
        figures = self.figures(root)
        self.benched.append(figures["size_bytes"].value)
        return figures, "onnx"

    def rank(
        self, candidates: dict[str, tuple[Bundle, str]], **_: object
    ) -> tuple[list[RankedVariant], dict[tuple[str, str], str]]:
        """In place of `rank_networks`."""
        made = [
            RankedVariant(
                variant=name, engine="onnx", latency_s=self.figures(bundle.root)["latency_s"]
            )
            for name, (bundle, _) in candidates.items()
        ]
        return made, {}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Times are not this machine's; answers are."""
    made = Machine()
    monkeypatch.setattr(network_corners, "bench_network", made.bench)
    monkeypatch.setattr(network_corners, "rank_networks", made.rank)
    monkeypatch.setattr(network_search, "bench_network", made.bench)
    monkeypatch.setattr(network_ground, "_MOST_RUNS", 4)
    monkeypatch.setattr(network_search, "bases_for", lambda task: bases_for(task)[:2])

    def judged(root: Path, samples: Samples, **_: object) -> Answers:
        graph = read_onnx(root / read_bundle(root).variant(None)[1].graph)
        return answer_graph(graph, samples, threads=1, progress=Quiet())

    monkeypatch.setattr(network_search, "answer_bundle", judged)

    def proven(proof: NetworkProof, **_: object) -> Report:
        figures = made.figures(proof.root)
        content: dict[str, object] = {"notes": [], "variants": list(proof.finished)}
        return Report(
            content=content,
            manifest_sha256=read_bundle(proof.root).manifest_sha256,
            figures=figures,
            original={},
            breaches=[],
        )

    monkeypatch.setattr(build, "prove_network", proven)
    monkeypatch.setattr(build, "render_report", json.dumps)
    return made


@pytest.fixture
def source(tmp_path: Path) -> str:
    """The residual network as a file."""
    (tmp_path / "net.onnx").write_bytes(model_bytes(residual_net()))
    return str(tmp_path / "net.onnx")


@pytest.fixture
def options(tmp_path: Path) -> NetworkOptions:
    """Eighty examples without labels."""
    x: Array = np.random.default_rng(1).standard_normal((80, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    return NetworkOptions(
        task="image-classification",
        variants={"mixed": ()},
        data=tmp_path / "data.npz",
        n_calibration=40,
        threads=1,
        engine="onnx",
    )


def sizes(plan: object) -> list[float]:
    """Sizes of a plan's points."""
    return [one.predicted["size_bytes"] for one in plan.front]  # type: ignore[attr-defined]


def test_a_plan_shows_a_front_and_builds_nothing(
    source: str, options: NetworkOptions, machine: Machine, tmp_path: Path
) -> None:
    """From float to few bits, each point smaller where it loses more; the same again, kept."""
    plan = plan_network(source, options, home=tmp_path / "home")
    measured = len(machine.benched)

    again = plan_network(source, options, home=tmp_path / "home")

    assert len(machine.benched) == measured
    assert [dict(one.choices) for one in again.front] == [dict(one.choices) for one in plan.front]
    assert plan.front[0].predicted["quality_loss"] == 0
    assert min(sizes(plan)) < 0.7 * sizes(plan)[0]
    table = plan.to_json()
    front = table["front"]
    assert isinstance(front, dict)
    assert {"quality_loss", "size_bytes", "latency_s", "peak_memory_bytes"} <= set(front["axes"])
    assert sum(point["is_chosen"] for point in front["points"]) == 1
    rows = table["sensitivity"]
    assert isinstance(rows, list)
    assert {row["choice"] for row in rows} >= {"float32", "static-8", "static-4"}


def test_a_budget_is_held_by_what_is_built(
    source: str, options: NetworkOptions, machine: Machine, tmp_path: Path
) -> None:
    """The size between float and integers; the report holds the front and what was measured."""
    plan = plan_network(source, options, home=tmp_path / "home")
    limit = (min(sizes(plan)) + max(sizes(plan))) / 2
    asked = replace(options, budget=Budget(size_bytes=limit, quality_loss=0.5))

    made = search_network(source, tmp_path / "out", asked, home=tmp_path / "home")

    assert read_bundle(made.root).size_bytes() <= limit
    recipe = read_bundle(made.root).manifest.provenance["recipe"]
    assert isinstance(recipe, dict)
    assert "quantize-mixed" in recipe["mixed"][-1].values()
    front = made.report["front"]
    assert isinstance(front, dict)
    (chosen,) = [point for point in front["points"] if point["is_chosen"]]
    assert chosen["measured"]["size_bytes"] <= limit
    assert chosen["predicted"]["size_bytes"] == pytest.approx(
        chosen["measured"]["size_bytes"], rel=0.02
    )
    assert any("chosen by a search" in note for note in made.report["notes"])  # type: ignore[attr-defined]


def test_a_slower_machine_than_forecast_is_learned_of(
    source: str, options: NetworkOptions, machine: Machine, tmp_path: Path
) -> None:
    """The first build is too slow; the next is chosen by what it taught, and holds."""
    plan = plan_network(source, options, home=tmp_path / "home")
    times = sorted(one.predicted["latency_s"] for one in plan.front)
    machine.slower = 1.2
    limit = times[0] + 0.6 * (times[-1] - times[0])
    assert limit > 1.25 * times[0]
    before = len(machine.benched)

    made = search_network(
        source,
        tmp_path / "out",
        replace(options, budget=Budget(latency_s=limit)),
        home=tmp_path / "home",
    )

    assert machine.figures(made.root)["latency_s"].value <= limit
    assert 2 <= len(machine.benched) - before <= 6


def test_a_budget_that_nothing_holds_is_refused_before_anything_is_built(
    source: str, options: NetworkOptions, machine: Machine, tmp_path: Path
) -> None:
    """With the ceiling that binds and the least that is reached."""
    plan = plan_network(source, options, home=tmp_path / "home")
    before = len(machine.benched)
    asked = replace(options, budget=Budget(size_bytes=min(sizes(plan)) / 2, latency_s=1.0))

    with pytest.raises(BudgetExceeded, match=r"disk is at most .*the least is .*allow disk="):
        search_network(source, tmp_path / "out", asked, home=tmp_path / "home")

    assert len(machine.benched) == before
    assert not (tmp_path / "out").exists()
    refused = plan_network(source, asked, home=tmp_path / "home")
    assert refused.chosen is None
    assert "disk is at most" in refused.refusal


def test_several_points_of_the_front_share_a_bundle(
    source: str, options: NetworkOptions, machine: Machine, tmp_path: Path
) -> None:
    """The first holds the budget; the others fit beside it."""
    asked = replace(options, budget=Budget(quality_loss=0.3))

    made = search_network(source, tmp_path / "out", asked, home=tmp_path / "home", n_variants=3)

    variants = read_bundle(made.root).manifest.variants
    assert next(iter(variants)) == "mixed"
    assert 2 <= len(variants) <= 3


def test_without_examples_nothing_is_searched(
    source: str, options: NetworkOptions, tmp_path: Path
) -> None:
    """It says what to give."""
    with pytest.raises(InputError, match="give them as --data"):
        plan_network(source, replace(options, data=None), home=tmp_path / "home")


def test_what_is_to_be_learned_is_part_of_the_size(
    source: str, options: NetworkOptions, machine: Machine, tmp_path: Path
) -> None:
    """Points leave room for the lesson's files; a budget that it fills alone is refused."""
    plan = plan_network(source, options, home=tmp_path / "home")
    wish = replace(options, learnable=parse_learnable("head"))
    # Above the smallest point with its lesson, below the largest one without.
    limit = min(sizes(plan)) + 80_000
    asked = replace(wish, budget=Budget(size_bytes=limit, quality_loss=0.5))

    made = search_network(source, tmp_path / "out", asked, home=tmp_path / "home")

    found = read_bundle(made.root)
    assert "learn.json" in found.manifest.files
    assert found.size_bytes() <= limit
    with pytest.raises(BudgetExceeded, match="size: what the bundle is to learn takes"):
        plan_network(source, replace(wish, budget=Budget(size_bytes=5000)), home=tmp_path / "home")
