"""What a network learned becomes part of a new bundle's weights, in the codes that they had."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.host.learning.lesson_nets import (
    TEXTS,
    encoder_net,
    int8,
    packed,
    residual_net,
    teaching,
)
from tests.host.learning.test_network_lesson import inputs_of
from tests.host.networks.quantized_nets import bench
from tests.host.stub_bench import stub_bench, stub_network_way

from onhand.cli.main import main
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import EngineError, InputError
from onhand.core.progress import Quiet
from onhand.device.learning.added import add_classes
from onhand.device.learning.in_use import versions_of
from onhand.device.learning.lesson_files import read_start
from onhand.device.learning.network_in_use import network_in_use
from onhand.device.learning.verdict import Verdict
from onhand.device.networks.opening import named_engine
from onhand.host.learning.network_graph import read_stored
from onhand.host.networks import evaluating, merging, prove
from onhand.host.networks.graph import Graph
from onhand.host.networks.merging import NetworkMergeOptions, merge_network
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.samples import Samples

QUICK = NetworkMergeOptions(threads=1, measure_original=False)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a build measures beside answers takes seconds, and is tested where builds are."""
    latency = {"latency_s": (0.001, "s"), "cold_start_s": (0.1, "s")}

    def figures(root: Path, **given: Any) -> Any:
        known = {"variant": given["variant"], "progress": given["progress"]}
        return stub_bench(latency, root, **known), "onnx"  # type: ignore[arg-type]

    monkeypatch.setattr(prove, "bench_network", figures)
    monkeypatch.setattr(prove, "sample_read_bandwidth", lambda *_, **__: [1e10])
    monkeypatch.setattr(evaluating, "try_network_way", stub_network_way)


def words(graph: Graph, place: Path) -> Bundle:
    """A bundle of an encoder that tells ten classes apart."""
    return packed(graph, place, task="text-classification", feed=TEXTS)


def texts() -> Samples:
    """Texts that calibrate."""
    random = np.random.default_rng(6)
    ones = np.ones((1, 7), np.int64)
    return Samples(feeds=[{"ids": random.integers(0, 40, (1, 7)), "mask": ones} for _ in range(8)])


def learn(bundle: Bundle, home: Path, *, by: float = 0.1, more: int = 0) -> None:
    """A version of other values is in use, with some classes more."""
    random = np.random.default_rng(5)
    versions = versions_of(bundle, home)
    start = read_start(bundle, versions.lesson)
    values: dict[str, FloatArray] = {}
    for name, value in start.items():
        moved = value + by * random.normal(0, 1, value.shape)
        if more and versions.lesson.trainables[name].grows:
            moved = np.concatenate([moved, random.normal(0, 0.3, (more, *value.shape[1:]))])
        values[name] = moved.astype(np.float32)
    add_classes(versions.folder, [f"extra {i}" for i in range(more)])
    made = versions.propose(
        values,
        start=start,
        parent=0,
        method="sgd",
        counts={},
        verdict=Verdict(is_accepted=True),
    )
    versions.accept(made.number)


def answers(bundle: Bundle, feeds: dict[str, np.ndarray]) -> FloatArray:
    """The first output."""
    found = named_engine("onnx").open(bundle, threads=1).run(feeds)
    return next(iter(found.values()))


def apart(found: FloatArray, wanted: FloatArray) -> float:
    """The relative error."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_low_rank_becomes_part_of_float_weights(tmp_path: Path, home: Path) -> None:
    """The merged network is as the one before it was built: no product more, the same answers."""
    bundle = words(encoder_net(n_classes=10), tmp_path / "b")
    teaching(bundle, "lora,rank=2")
    bundle = read_bundle(tmp_path / "b")
    learn(bundle, home)

    made = merge_network(bundle.root, tmp_path / "new", QUICK, home=home)

    new = read_bundle(made.root)
    feeds = inputs_of(bundle)
    wanted = answers(network_in_use(bundle, home)[0], feeds)
    np.testing.assert_allclose(answers(new, feeds), wanted, rtol=1e-4, atol=1e-5)
    counts = [
        sum(node.op == "MatMul" for node in read_stored(one, "only").graph.nodes)
        for one in (new, bundle)
    ]
    assert counts[0] == counts[1]
    assert new.manifest.version == 2
    merged = new.manifest.provenance["merged"]
    assert isinstance(merged, dict)
    assert merged["learned_version"] == 1


@pytest.mark.parametrize("kind", ["int8", "few-bits"])
def test_low_rank_becomes_part_of_codes(kind: str, tmp_path: Path, home: Path) -> None:
    """Rounded once more, in the format that each matrix had."""
    graph = encoder_net(n_classes=10)
    if kind == "int8":
        graph = int8(graph, texts())
    else:
        few = QuantizeNetwork(bits=4, scheme="weights")
        graph = few.apply(graph, bench(graph, texts())).graph
    bundle = words(graph, tmp_path / "b")
    teaching(bundle, "lora,rank=2")
    bundle = read_bundle(tmp_path / "b")
    learn(bundle, home)

    new = read_bundle(merge_network(bundle.root, tmp_path / "new", QUICK, home=home).root)

    feeds = inputs_of(bundle)
    wanted = answers(network_in_use(bundle, home)[0], feeds)
    assert 0 < apart(answers(new, feeds), wanted) < 0.15
    # The old codes' bytes, and a head that stays in floats where it was.
    kinds = [{node.op for node in read_stored(one, "only").graph.nodes} for one in (new, bundle)]
    assert kinds[0] == kinds[1]


def test_a_learned_head_is_stored_as_the_old_one_was(tmp_path: Path, home: Path) -> None:
    """With classes that were added, their names, and codes in place of floats."""
    bundle = packed(int8(residual_net()), tmp_path / "b")
    teaching(bundle, "last-block")
    bundle = read_bundle(tmp_path / "b")
    learn(bundle, home, by=0.03, more=2)

    new = read_bundle(merge_network(bundle.root, tmp_path / "new", QUICK, home=home).root)

    feeds = inputs_of(bundle)
    used, _ = network_in_use(bundle, home)
    assert apart(answers(new, feeds), answers(used, feeds)) < 0.05
    assert (new.root / "labels.txt").read_text().splitlines()[-2:] == ["extra 0", "extra 1"]
    floats = [
        array.size
        for array in read_stored(new, "only").graph.constants.values()
        if array.dtype == np.float32 and array.ndim > 1
    ]
    assert max(floats, default=0) < 50
    assert "learn.json" in new.manifest.files


def test_answers_that_differ_are_not_written(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the merging shows before there is a bundle."""
    bundle = words(encoder_net(n_classes=10), tmp_path / "b")
    teaching(bundle, "lora,rank=2")
    bundle = read_bundle(tmp_path / "b")
    learn(bundle, home, by=3.0)
    monkeypatch.setattr(merging, "_MOST_APART", 1e-12)

    with pytest.raises(EngineError, match="apart from what was learned"):
        merge_network(bundle.root, tmp_path / "new", QUICK, home=home, progress=Quiet())
    assert not (tmp_path / "new").exists()


def test_nothing_learned_is_nothing_to_merge(tmp_path: Path, home: Path) -> None:
    """Nor is a version that changes nothing; and what is for language models is refused."""
    bundle = packed(residual_net(), tmp_path / "b")
    teaching(bundle, "head")
    bundle = read_bundle(tmp_path / "b")

    with pytest.raises(InputError, match="nothing learned to merge"):
        merge_network(bundle.root, tmp_path / "new", QUICK, home=home)
    learn(bundle, home, by=0.0)
    with pytest.raises(InputError, match="changes nothing"):
        merge_network(bundle.root, tmp_path / "new", QUICK, home=home)


def test_the_command(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its report compares the new bundle with what was learned."""
    bundle = packed(residual_net(), tmp_path / "b")
    teaching(bundle, "head")
    learn(read_bundle(tmp_path / "b"), home)
    words_of = ["merge", str(tmp_path / "b"), "-o", str(tmp_path / "new")]

    assert main([*words_of, "--calibrate", "x"]) == 2
    assert "--calibrate is for language models" in capsys.readouterr().err
    assert main([*words_of, "--no-original", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["variants"]["only"]["figures"]["latency_s"]["value"] > 0
