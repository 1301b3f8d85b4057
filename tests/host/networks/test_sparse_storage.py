"""Networks of which the zeros are not stored: smaller files, the same answers in every engine."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.host.networks.prunable_nets import (
    Net,
    samples,
)

from onhand.core.bundle import Bundle, read_bundle, read_manifest, stage_bundle, write_manifest
from onhand.core.errors import BundleCorrupt
from onhand.core.safetensors import SafetensorsWriter, TensorSpec, open_safetensors
from onhand.core.sparse import Pattern
from onhand.core.sparse_form import SparseForm
from onhand.device.networks.graph_file import read_graph_file
from onhand.device.networks.opening import named_engine
from onhand.device.probe import current_profile
from onhand.host.networks import pack as pack_module
from onhand.host.networks.graph import Graph
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.pack import Shrink, describe, pack_network
from onhand.host.networks.passes.base import NetworkPass, Workbench
from onhand.host.networks.passes.prune_weights import PruneWeights
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.sparse_storage import shrink_constant, stored_without_zeros

ENGINES = ("onnx", "openvino", "reference")
Change = Callable[[dict[str, Any]], object]


def after(graph: Graph, *steps: NetworkPass) -> Graph:
    """A graph after some passes, with a few examples."""
    for step in steps:
        bench = Workbench(
            original=graph, calibration=samples(graph, 16), task="features", threads=1
        )
        graph = step.apply(graph, bench).graph
    return graph


def packed(
    root: Path, variants: Mapping[str, Graph], *, shrink: Shrink = shrink_constant
) -> Bundle:
    """A bundle of some graphs."""
    first = next(iter(variants.values()))
    model = NetworkModel(name="net", family="test", graph=first, sha256="0" * 64, source_bytes=1)
    with stage_bundle(root) as staged:
        network = describe(model, "features")
        pack_network(model, network, variants, staged, provenance={}, shrink=shrink)
    return read_bundle(root)


def matrix_net() -> Graph:
    """Two products, 96 to 128 to 64 numbers."""
    net = Net(seed=3)
    return net.graph(
        net.dense(net.add("Relu", net.dense("x", 96, 128)), 128, 64), ("batch", 96), 64
    )


def answers(bundle: Bundle, engine: str, variant: str) -> dict[str, Any]:
    """What a variant answers to three examples."""
    loaded = named_engine(engine).open(bundle, variant=variant, threads=1)
    found = loaded.run(samples(matrix_net(), 3, seed=5).batch(range(3)))
    loaded.close()
    return found


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    """Half of the weights are zero: in float, in int8, and in 4 bits two of each four."""
    graph = matrix_net()
    half, two_of_four = PruneWeights(method="wanda"), PruneWeights(pattern="2:4", method="wanda")
    return {
        "fp32": after(graph, half),
        "int8": after(graph, half, QuantizeNetwork(bias_correction="full")),
        "int4": after(graph, two_of_four, QuantizeNetwork(scheme="weights", bits=4)),
        "turned": after(graph, two_of_four, QuantizeNetwork(scheme="weights")),
    }


@pytest.fixture(scope="module")
def bundle(graphs: dict[str, Graph], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """All three."""
    return packed(tmp_path_factory.mktemp("sparse") / "net", graphs)


@pytest.fixture(scope="module")
def whole(graphs: dict[str, Graph], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with their zeros."""
    return packed(tmp_path_factory.mktemp("whole") / "net", graphs, shrink=lambda _: None)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("variant", ["fp32", "int8", "int4", "turned"])
def test_every_engine_answers_as_from_a_whole_file(
    bundle: Bundle, whole: Bundle, engine: str, variant: str
) -> None:
    """Bit for bit: it computes the same graph."""
    if reason := named_engine(engine).why_not(bundle, current_profile(), variant=variant):
        pytest.skip(reason)
    found, expected = (answers(one, engine, variant) for one in (bundle, whole))

    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_the_file_is_as_much_smaller_as_the_codes_say(
    bundle: Bundle, whole: Bundle, graphs: dict[str, Graph]
) -> None:
    """A mask and half of the codes: 17 of 32 bits in float, 5 of 8 in int8, 11 of 16 in 4 bits."""
    sizes = {name: variant.sparse_bytes() for name, variant in bundle.manifest.variants.items()}
    n = 96 * 128 + 128 * 64

    assert [sizes[name][1] for name in graphs] == [4 * n, n, n // 2, n]
    assert sizes["fp32"][0] == 17 * n // 8
    # Rounding makes some more zeros, which a pattern has no use for.
    assert 0.6 * n < sizes["int8"][0] <= 0.625 * n
    assert sizes["int4"][0] == 11 * n // 32
    assert sizes["turned"][0] == 19 * n // 32
    saved = sum(dense - stored for stored, dense in sizes.values())
    assert whole.size_bytes() - bundle.size_bytes() > 0.9 * saved


def test_patterns_are_found_along_columns(bundle: Bundle) -> None:
    """A product's weight lies with its inputs down a column; in groups they lie along a row."""
    forms = {
        name: [
            (form.pattern, form.turned)
            for form in variant.sparse.values()
            if isinstance(form, SparseForm)
        ]
        for name, variant in bundle.manifest.variants.items()
    }

    assert forms["int4"] == [(Pattern(2, 4), False)] * 2
    assert forms["turned"] == [(Pattern(2, 4), True)] * 2
    assert forms["fp32"] == [(None, False)] * 2


def test_earlier_readers_open_what_has_no_zeros(bundle: Bundle, whole: Bundle) -> None:
    """The format's number is as high as a bundle needs it."""
    tables = [json.loads((one.root / "manifest.json").read_bytes()) for one in (bundle, whole)]

    assert [table["format"] for table in tables] == [2, 1]
    assert not any("sparse" in variant for variant in tables[1]["variants"].values())


def test_what_is_stored_is_said(bundle: Bundle, graphs: dict[str, Graph]) -> None:
    """And what has zeros and stays whole, with the reason."""
    said = stored_without_zeros(graphs["fp32"], bundle, "fp32")
    few = PruneWeights(ratio=0.12, method="magnitude", keep=("c0",))
    graph = after(matrix_net(), few, QuantizeNetwork(scheme="weights"))
    other = stored_without_zeros(graph, packed(bundle.root.parent / "few", {"few": graph}), "few")

    assert said == "2 tensors are stored without their zeros, in 42.5 KiB instead of 80.0 KiB"
    assert other == ("1 with zeros stay whole, as they would not be a tenth smaller: c2.codes")


def test_equal_tensors_of_variants_are_stored_once(
    graphs: dict[str, Graph], tmp_path: Path
) -> None:
    """Without their zeros as with them."""
    one = packed(tmp_path / "one", {"a": graphs["int8"]})
    two = packed(tmp_path / "two", {"a": graphs["int8"], "b": graphs["int8"]})

    assert two.manifest.variants["a"].sparse == two.manifest.variants["b"].sparse
    streams = [
        {name: spec.shape for name, spec in tensors.items() if name.endswith((".places", ".kept"))}
        for tensors in (
            open_safetensors(made.path("weights.safetensors")).tensors for made in (one, two)
        )
    ]
    assert streams[0] == streams[1]
    assert len(streams[0]) == 4


@pytest.mark.parametrize("engine", ["onnx", "reference"])
def test_each_variant_needs_only_what_it_uses(
    graphs: dict[str, Graph], tmp_path: Path, engine: str
) -> None:
    """Each has what it alone uses in its file; what two of three share lies in theirs."""
    whole = graphs["fp32"]
    other = dict(whole.constants)
    large = [name for name, array in other.items() if array.nbytes > 4096]
    other[large[0]] = other[large[0]] * np.float32(2)
    variants = {"a": whole, "int8": graphs["int8"], "b": replace(whole, constants=other)}

    three = packed(tmp_path / "three", variants)

    weights = {name: variant.weights for name, variant in three.manifest.variants.items()}
    assert set(weights["int8"]) <= {"weights.int8.safetensors", "weights.safetensors"}
    assert {"weights.a.safetensors", "weights.1+3.safetensors"} <= set(weights["a"])
    assert {"weights.b.safetensors", "weights.1+3.safetensors"} <= set(weights["b"])
    for name, graph in variants.items():
        alone = packed(tmp_path / f"{engine}-{name}", {name: graph})
        assert abs(three.size_bytes(name) - alone.size_bytes()) < 2048
        found = answers(three, engine, name)
        for output, wanted in answers(alone, engine, name).items():
            np.testing.assert_array_equal(found[output], wanted)
    for file in {file for needed in weights.values() for file in needed}:
        if "b" not in [name for name, needed in weights.items() if file in needed]:
            three.path(file).unlink()  # a device that runs one variant needs no more
    assert answers(three, engine, "b")


def test_a_variant_without_large_constants_names_a_file(tmp_path: Path) -> None:
    """A manifest's variant has weights, if none."""
    net = Net(seed=1)
    graph = net.graph(net.dense("x", 4, 3), ("batch", 4), 3)

    made = packed(tmp_path / "net", {"tiny": graph})

    assert made.manifest.variants["tiny"].weights == ("weights.safetensors",)


def test_nothing_grows_beyond_what_a_graph_holds(
    graphs: dict[str, Graph], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol buffers end at two gigabytes: what is beyond the half stays whole."""
    monkeypatch.setattr(pack_module, "MOST_EXPANDED_BYTES", 4 * 96 * 128)

    made = packed(tmp_path / "net", {"fp32": graphs["fp32"]})

    assert list(made.manifest.variants["fp32"].sparse) == ["c0"]


def forged(
    bundle: Bundle,
    root: Path,
    *,
    change: Change = lambda _: None,
    tensors: Change = lambda _: None,
    graph: Callable[[bytes], bytes] = bytes,
) -> Bundle:
    """A bundle whose hashes are right and whose content lies."""
    name = bundle.manifest.variants["int8"].weights[0]
    file = open_safetensors(bundle.path(name))
    arrays = {tensor: np.array(file.view(tensor)) for tensor in file.tensors}
    dtypes = {tensor: spec.dtype for tensor, spec in file.tensors.items()}
    tensors(arrays)
    table = json.loads((bundle.root / "manifest.json").read_bytes())
    change(table["variants"]["int8"]["sparse"])
    root.mkdir()
    for other in bundle.manifest.files:
        content = bundle.path(other).read_bytes()
        (root / other).write_bytes(graph(content) if other == "int8.onnx" else content)
    declared = {
        n: TensorSpec(dtype=dtypes[n] if a.dtype != np.int32 else "I32", shape=a.shape)
        for n, a in arrays.items()
    }
    with SafetensorsWriter(root / name, declared) as writer:
        for tensor, array in arrays.items():
            writer.write(tensor, array)
        writer.close()
    (root / "manifest.json").write_text(json.dumps(table))
    manifest, _ = read_manifest(root)
    write_manifest(root, replace(manifest, files={}), hashes={})
    return read_bundle(root)


def cut(arrays: dict[str, Any]) -> None:
    """A stream that ends too early."""
    arrays["c0.q.kept"] = arrays["c0.q.kept"][:-1]


def one_more(arrays: dict[str, Any]) -> None:
    """A bit in the mask without a code."""
    arrays["c0.q.places"][np.flatnonzero(arrays["c0.q.places"] != 255)[0]] = 255


def gone(arrays: dict[str, Any]) -> None:
    """A stream that is not there."""
    del arrays["c0.q.places"]


def numbers(arrays: dict[str, Any]) -> None:
    """A stream of another dtype."""
    arrays["c0.q.places"] = arrays["c0.q.places"].astype(np.int32)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tensors": cut}, r"sparse tensor 'c0\.q': \d+ bytes, must be \d+"),
        ({"tensors": one_more}, r"sparse tensor 'c0\.q': codes: \d+ bytes, must be \d+"),
        ({"tensors": gone}, r"no weights file of the variant has 'c0\.q\.places'"),
        ({"tensors": numbers}, r"'c0\.q\.places' is I32 .*, must be bytes in a row"),
        ({"change": lambda t: t["c0.q"].update(shape=[95, 128])}, r"'c0\.q': \d+ bytes, must be"),
        ({"change": lambda t: t["c0.q"].update(shape=[128, 96])}, None),
        ({"change": lambda t: t["c0.q"].update(pattern="2:4")}, r"'c0\.q': \d+ bytes, must be"),
        ({"change": lambda t: t["c0.q"].update(n_kept=20000)}, r"n_kept is 20000, of 12288 codes"),
        ({"change": lambda t: t["c0.q"].update(n_kept=5)}, r"'c0\.q': \d+ bytes, must be 1541"),
        ({"change": lambda t: t["c0.q"].update(bits=4)}, r"'c0\.q': \d+ bytes, must be \d+"),
        ({"change": lambda t: t.pop("c0.q")}, r"'c0\.q' lies in 'left-out', which its variant"),
        ({"change": lambda t: t.update(x=t["c0.q"])}, r"the graph has no tensor 'x'"),
        ({"change": lambda t: t["c0.q"].update(tensor="c2.q")}, r"'c2\.q': \d+ bytes, must be"),
        ({"graph": lambda content: content[:-9]}, r"int8\.onnx: .*cut short"),
        ({"graph": lambda content: content + content}, r"2 graphs|twice"),
    ],
)  # fmt: skip
def test_attack_forged_streams(
    bundle: Bundle, tmp_path: Path, given: dict[str, Any], message: str | None
) -> None:
    """One sentence that says what does not match; other codes of the right sizes are just codes."""
    if message is None:
        lies = forged(bundle, tmp_path / "lies", **given)
        assert len(read_graph_file(lies, "int8")) == len(read_graph_file(bundle, "int8"))
        return
    with pytest.raises(BundleCorrupt, match=message):
        named_engine("onnx").open(
            forged(bundle, tmp_path / "lies", **given), variant="int8", threads=1
        )


def test_graphs_of_others_cannot_be_mistaken(bundle: Bundle) -> None:
    """An engine that is given the file itself finds no weights, instead of wrong ones."""
    ort = pytest.importorskip("onnxruntime")

    with pytest.raises(ort.capi.onnxruntime_pybind11_state.Fail, match="left-out"):
        ort.InferenceSession(bundle.path("int8.onnx"), providers=["CPUExecutionProvider"])
