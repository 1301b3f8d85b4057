"""From a file of a network to a proven bundle, as the command does it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from tests.host.stub_bench import stub_network_way

from onhand.core.budget import Budget
from onhand.core.bundle import read_bundle
from onhand.core.errors import BudgetExceeded, InputError
from onhand.core.evaluation import MODELS
from onhand.core.measurement import Measurement, summarize
from onhand.device.networks.opening import open_network
from onhand.device.report_data import parse_report
from onhand.host.learning.wanted import parse_learnable
from onhand.host.networks import evaluating, prove
from onhand.host.networks.build import build_network
from onhand.host.networks.evaluate import evaluate_network
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.passes.prune_weights import PruneWeights
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.steps import Step

FLOAT = np.dtype(np.float32)
INT8 = (Step(QuantizeNetwork(bias_correction="none")),)


def network() -> Graph:
    """(B, 3, 8, 8) -> (B, 4): a convolution, a pool and a matrix."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return Graph(
        nodes=(
            Node(
                op="Conv",
                inputs=("x", "w", "b"),
                outputs=("c",),
                attributes={"pads": (1, 1, 1, 1), "kernel_shape": (3, 3)},
            ),
            Node(op="Relu", inputs=("c",), outputs=("r",)),
            Node(op="GlobalAveragePool", inputs=("r",), outputs=("p",)),
            Node(op="Flatten", inputs=("p",), outputs=("f",)),
            Node(op="Gemm", inputs=("f", "v"), outputs=("y",)),
        ),
        constants={"w": random(16, 3, 3, 3), "b": random(16), "v": random(16, 4)},
        inputs=(Value(name="x", dtype=FLOAT, shape=("B", 3, 8, 8)),),
        outputs=(Value(name="y", dtype=FLOAT, shape=("B", 4)),),
        opset=17,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The network as a file."""
    (tmp_path / "net.onnx").write_bytes(model_bytes(network()))
    return tmp_path / "net.onnx"


@pytest.fixture
def options(tmp_path: Path) -> NetworkOptions:
    """Forty labelled examples, and one variant in int8."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=rng.integers(0, 4, 40))
    return NetworkOptions(
        task="image-classification",
        variants={"int8": INT8},
        data=tmp_path / "data.npz",
        threads=1,
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed is measured elsewhere."""

    def bench(root: Path, **given: object) -> tuple[dict[str, Measurement], str]:
        size = read_bundle(root).size_bytes(str(given["variant"]))
        return {
            "size_bytes": summarize("size_bytes", [size], unit="byte", how="x"),
            "latency_s": summarize("latency_s", [1e-3], unit="s", how="x"),
        }, "onnx"

    monkeypatch.setattr(prove, "bench_network", bench)
    monkeypatch.setattr(evaluating, "try_network_way", stub_network_way)
    monkeypatch.setattr(prove, "sample_read_bandwidth", lambda *_, **__: [1e9])


@pytest.mark.usefixtures("quick")
def test_variants_share_a_bundle(source: Path, options: NetworkOptions, tmp_path: Path) -> None:
    """Both answer, the report holds what each lost, and equal tensors are stored once."""
    asked = replace(options, variants={"int8": INT8, "fp32": ()})

    made = build_network(str(source), tmp_path / "out", asked, home=tmp_path / "home")

    bundle, report = read_bundle(made.root), parse_report(made.report)
    assert list(report.variants) == ["int8", "fp32"]
    assert report.variants["fp32"].figures["agreement"].value == 1
    assert report.variants["int8"].figures["agreement"].samples == 20
    assert report.heldout.n_tokens == report.calibration.n_tokens == 20  # type: ignore[union-attr]
    assert [step.name for step in report.steps["int8"]] == ["quantize"]
    assert "examples" in (made.root / "report.html").read_text()
    assert any("timed in turn on this machine, 1 threads: in " in note for note in report.notes)
    ranking = json.loads(json.dumps(made.report))["ranking"]
    assert {pair["variant"] for pair in ranking} == {"int8", "fp32"}
    for variant in ("int8", "fp32"):
        loaded, _, _ = open_network(bundle, variant=variant, threads=1)
        assert loaded.run({"x": np.zeros((2, 3, 8, 8), np.float32)})["y"].shape == (2, 4)
        loaded.close()
    figures = evaluate_network(
        made.root,
        tmp_path / "data.npz",
        original=None,
        variant="fp32",
        engine="onnx",
        threads=1,
        home=tmp_path / "home",
    )
    assert (figures["agreement"].value, figures["agreement"].samples) == (1, 40)


@pytest.mark.usefixtures("quick")
def test_zeros_are_not_stored(source: Path, options: NetworkOptions, tmp_path: Path) -> None:
    """The size that is reported is what lies on the disk, and the report says of what."""
    pruned = (Step(PruneWeights(ratio=0.75, method="wanda")),)
    asked = replace(options, variants={"sparse": pruned, "fp32": ()})

    made = build_network(str(source), tmp_path / "out", asked, home=tmp_path / "home")

    bundle, report = read_bundle(made.root), parse_report(made.report)
    ((name, form),) = bundle.manifest.variants["sparse"].sparse.items()
    assert (name, form.size_bytes) == ("w", 16 * 27 * 4)
    assert bundle.manifest.variants["sparse"].sparse_bytes()[0] == 54 + 4 * 16 * 7
    said = "sparse: 1 tensors are stored without their zeros, in 502 B instead of 1.7 KiB"
    assert said in report.notes
    loaded, _, _ = open_network(bundle, variant="sparse", threads=1)
    loaded.close()


@pytest.mark.usefixtures("quick")
def test_the_same_build_gives_the_same_bytes(
    source: Path, options: NetworkOptions, tmp_path: Path
) -> None:
    """Wherever it is built."""
    made = [
        build_network(str(source), tmp_path / name, options, home=tmp_path / "home").root
        for name in ("one", "two")
    ]

    assert (made[0] / "manifest.json").read_bytes() == (made[1] / "manifest.json").read_bytes()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda o: replace(o, budget=Budget(size_bytes=100)), BudgetExceeded, "disk: is"),
        (lambda o: replace(o, budget=Budget(load_s=9.0)), BudgetExceeded, "was not measured"),
        (lambda o: replace(o, data=None), InputError, "needs examples"),
        (lambda o: replace(o, feed="imagenet", data=Path("gone")), InputError, "is no folder"),
        (lambda o: replace(o, labels=Path("gone")), InputError, "gone: cannot be read"),
        (lambda o: replace(o, feed="magic"), InputError, "is none of unit, signed"),
    ],
)
def test_what_cannot_be_leaves_nothing(
    change: Callable[[NetworkOptions], NetworkOptions],
    error: type[Exception],
    message: str,
    source: Path,
    options: NetworkOptions,
    tmp_path: Path,
) -> None:
    """No bundle, and no folder of work."""
    with pytest.raises(error, match=message):
        build_network(str(source), tmp_path / "out", change(options), home=tmp_path / "home")

    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """A step during which the user gives up, the first time."""

    name: ClassVar[str] = "killed"
    mark: str = ""

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """See `NetworkPass`."""
        if not Path(self.mark).exists():
            Path(self.mark).touch()
            raise KeyboardInterrupt
        return PassResult(graph=graph)


@pytest.mark.usefixtures("quick")
def test_an_interrupted_build_goes_on(
    source: Path, options: NetworkOptions, tmp_path: Path
) -> None:
    """The finished step is taken up; another build in its place is refused."""
    asked = replace(options, variants={"int8": (*INT8, Step(Killed(mark=str(tmp_path / "mark"))))})
    out, home = tmp_path / "out", tmp_path / "home"
    with pytest.raises(KeyboardInterrupt):
        build_network(str(source), out, asked, home=home)
    with pytest.raises(InputError, match="--resume"):
        build_network(str(source), out, asked, home=home)
    with pytest.raises(InputError, match="holds another build"):
        build_network(str(source), out, replace(asked, n_calibration=5, resume=True), home=home)

    made = build_network(str(source), out, replace(asked, resume=True), home=home)

    steps = json.loads(json.dumps(made.report))["steps"]["int8"]
    assert [step["name"] for step in steps] == ["quantize", "killed"]
    assert not out.with_name("out.building").exists()


@pytest.mark.slow
def test_a_whole_build_measures_everything(
    source: Path, options: NetworkOptions, tmp_path: Path
) -> None:
    """With the real engines in processes of their own; the budget holds on what they took."""
    asked = replace(options, budget=Budget(latency_s=1.0, peak_memory_bytes=2**30))

    made = build_network(str(source), tmp_path / "out", asked, home=tmp_path / "home")

    figures = parse_report(made.report).variants["int8"].figures
    assert {"latency_s", "load_s", "cold_start_s", "peak_memory_bytes"} <= set(figures)
    assert 0 < figures["latency_s"].value < 1


@dataclass(frozen=True, slots=True)
class Count:
    """A pass that writes down how many examples it was given."""

    name: ClassVar[str] = "count"

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """See `NetworkPass`."""
        return PassResult(graph=graph, notes=(f"{len(bench.calibration)} examples",))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("most", "left"), [(512, 16), (2, 18)])
def test_few_of_many_examples_judge_the_steps(
    source: Path,
    options: NetworkOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    left: int,
) -> None:
    """One in five, or as many as suffice: the others are there to learn from."""
    monkeypatch.setattr("onhand.host.networks.build._MOST_WATCHED", most)
    asked = replace(options, variants={"same": (Step(Count()), Step(Count()))})

    made = build_network(str(source), tmp_path / "out", asked, home=tmp_path / "home")

    assert f"count: {left} examples" in json.dumps(made.report)


@pytest.mark.usefixtures("quick")
def test_a_build_says_what_each_step_brought(
    source: Path, options: NetworkOptions, tmp_path: Path
) -> None:
    """Without its one step the network is the original: larger, and nothing is lost."""
    asked = replace(options, ablate=True)
    made = build_network(str(source), tmp_path / "out", asked, home=tmp_path / "home")
    falls = {fall.measurement: fall for fall in parse_report(made.report).evidence.waterfalls}

    (part,) = falls["size_bytes"].parts
    assert part.label == "quantize"
    assert part.without.value > falls["size_bytes"].after.value
    assert falls["quality_loss"].parts[0].without.value == 0
    evaluations = parse_report(made.report).evidence.evaluation
    assert [one.model for one in evaluations] == list(MODELS)
    assert not (tmp_path / "out.building").exists()


@pytest.mark.usefixtures("quick")
def test_what_can_be_learned_is_checked_and_reported(
    source: Path, options: NetworkOptions, tmp_path: Path
) -> None:
    """The lesson is among the bundle's hashed files; its figures are in the report."""
    asked = replace(options, learnable=parse_learnable("head"))

    made = build_network(str(source), tmp_path / "out", asked, home=tmp_path / "home")

    bundle = read_bundle(made.root)
    assert {"learn.json", "learn.onnx", "learn-trunk.onnx", "learned.onnx"} <= set(
        bundle.manifest.files
    )
    assert made.report["manifest_sha256"] == bundle.manifest_sha256
    lesson = json.loads(json.dumps(made.report))["lesson"]
    assert (lesson["kind"], lesson["n_parameters"], lesson["check"]["n_steps"]) == ("head", 64, 50)
    assert any("can learn on the device (head)" in note for note in parse_report(made.report).notes)
    assert bundle.manifest.provenance["learnable"] == parse_learnable("head").to_json()


def test_what_cannot_be_learned_ends_a_build(
    source: Path, options: NetworkOptions, tmp_path: Path
) -> None:
    """And leaves no bundle."""
    asked = replace(options, learnable=parse_learnable("lora"))

    with pytest.raises(InputError, match="no product of a matrix"):
        build_network(str(source), tmp_path / "out", asked, home=tmp_path / "home")

    assert not (tmp_path / "out").exists()
