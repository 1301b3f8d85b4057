"""Graphs as the onnx package writes them: ours pass, and those that reach outside do not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.models import DECODER, memory_model, varied_decoder

from onhand.core.bundle import Bundle, read_bundle, write_manifest
from onhand.core.errors import BundleCorrupt, EngineError
from onhand.core.onnxfile import check_external_data, check_tensors, read_graph
from onhand.core.progress import Quiet
from onhand.core.sparse_graph import whole_graph
from onhand.device.engines.onnx import OnnxEngine
from onhand.host.calibrate import InputStatistics
from onhand.host.pack import pack_bundle, pack_original, plan_variants
from onhand.host.passes.quantize import Quantize

WEIGHTS = "weights.safetensors"
SIZE = 1000


def tensor(
    dims: list[int] | None = None, *, location: str = "secret", **place: object
) -> TensorProto:
    """A float tensor whose data lie in another file."""
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[5] if dims is None else dims)
    made.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **place}.items():
        made.external_data.add(key=key, value=str(value))
    return made


def graph(**parts: Any) -> onnx.GraphProto:
    """A graph of nothing but these parts."""
    return onnx.GraphProto(name="g", **parts)


def model(inner: onnx.GraphProto, **parts: Any) -> onnx.ModelProto:
    """A model around a graph."""
    return onnx.ModelProto(ir_version=10, graph=inner, **parts)


def node(name: str, value: object) -> onnx.NodeProto:
    """A node with one attribute."""
    made = onnx.NodeProto(op_type="Constant", output=["c"])
    made.attribute.append(helper.make_attribute(name, value))
    return made


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    """A sparse tensor."""
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[9])


def plain() -> TensorProto:
    """Numbers in the graph itself."""
    return helper.make_tensor("n", TensorProto.FLOAT, [1], [0.5])


Way = Callable[[TensorProto], onnx.ModelProto]
WAYS: dict[str, Way] = {
    "initializer": lambda t: model(graph(initializer=[t])),
    "second initializer": lambda t: model(graph(initializer=[plain(), t])),
    "constant": lambda t: model(graph(node=[node("value", t)])),
    "list of tensors": lambda t: model(graph(node=[node("values", [plain(), t])])),
    "branch of an if": lambda t: model(graph(node=[node("then", graph(initializer=[t]))])),
    "list of graphs": lambda t: model(
        graph(node=[node("bodies", [graph(), graph(initializer=[t])])])
    ),
    "loop in a loop": lambda t: model(
        graph(node=[node("body", graph(node=[node("body", graph(initializer=[t]))]))])
    ),
    "sparse values": lambda t: model(graph(sparse_initializer=[sparse(t, plain())])),
    "sparse indices": lambda t: model(graph(sparse_initializer=[sparse(plain(), t)])),
    "sparse constant": lambda t: model(graph(node=[node("s", sparse(t, plain()))])),
    "function": lambda t: model(
        graph(), functions=[onnx.FunctionProto(name="f", node=[node("value", t)])]
    ),
    "default of a function": lambda t: model(
        graph(),
        functions=[onnx.FunctionProto(name="f", attribute_proto=[helper.make_attribute("a", t)])],
    ),
    "training": lambda t: model(
        graph(), training_info=[onnx.TrainingInfoProto(algorithm=graph(initializer=[t]))]
    ),
    "start of training": lambda t: model(
        graph(), training_info=[onnx.TrainingInfoProto(initialization=graph(initializer=[t]))]
    ),
}
Check = Callable[[bytes], None]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """A function that checks a graph beside a weights file and a secret."""
    root = tmp_path_factory.mktemp("bundle")
    (root / WEIGHTS).write_bytes(bytes(SIZE))
    (root / "secret").write_bytes(bytes(SIZE))

    def run(content: bytes) -> None:
        (root / "model.onnx").write_bytes(content)
        check_external_data(root / "model.onnx", root, allowed=[WEIGHTS])

    return run


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_attack_tensor_outside_wherever_it_hides(check: Check, way: Way) -> None:
    """The same tensor in the bundle's own weights passes."""
    check(way(tensor(location=WEIGHTS, offset=0, length=20)).SerializeToString())

    with pytest.raises(BundleCorrupt, match="lies in 'secret', which its variant does not list"):
        check(way(tensor()).SerializeToString())


@pytest.mark.parametrize(
    "location",
    ["../../etc/passwd", "/etc/passwd", "./" + WEIGHTS, WEIGHTS + "\0", "", "file:///etc/passwd"],
)
def test_attack_place_outside(check: Check, location: str) -> None:
    """Only the exact names that the manifest lists."""
    with pytest.raises(BundleCorrupt, match="does not list"):
        check(model(graph(initializer=[tensor(location=location)])).SerializeToString())


@pytest.mark.parametrize(
    ("dims", "place"),
    [
        ([5], {"offset": SIZE - 19}),
        ([5], {"offset": SIZE + 1, "length": 20}),
        ([5], {"offset": -20}),
        ([5], {"offset": 2**63 - 1, "length": 20}),
        ([5], {"length": 24}),
        ([5], {"length": 0}),
        ([2**31, 2**31], {}),
        ([2**62, 4], {}),
        ([-5], {}),
        ([2**40, 0], {"length": 4}),
        ([SIZE], {"length": 4 * SIZE}),
    ],
    ids=repr,
)
def test_attack_bytes_that_are_not_there(
    check: Check, dims: list[int], place: dict[str, object]
) -> None:
    """Beyond the file, negative, of another size than the shape; bombs of shapes."""
    made = tensor(dims, location=WEIGHTS, **place)

    with pytest.raises(BundleCorrupt, match="tensor 'w'"):
        check(model(graph(initializer=[made])).SerializeToString())


def wrapped(number: int, wire: int) -> bytes:
    """A field's key in five bytes: beyond 32 bits it is the plain key plus 2**32."""
    key = (number << 3 | wire) + (1 << 32)
    return bytes(key >> 7 * i & 127 | (128 if i < 4 else 0) for i in range(5))


def test_attack_number_of_a_field_that_wraps_around(check: Check) -> None:
    """Protobuf cuts keys to 32 bits: it sees external data where we saw fields of no meaning."""
    entry = onnx.StringStringEntryProto(key="location", value="secret").SerializeToString()
    inner = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], raw_data=bytes(4))
    hidden = inner.SerializeToString()
    hidden += wrapped(13, 2) + bytes([len(entry)]) + entry + wrapped(14, 0) + b"\1"
    initializer = bytes([5 << 3 | 2, len(hidden)]) + hidden

    with pytest.raises(BundleCorrupt, match="not an ONNX file"):
        check(bytes([7 << 3 | 2, len(initializer)]) + initializer)


def test_attack_key_of_a_place_in_fixed_width(check: Check) -> None:
    """Protobuf passes over eight bytes where a text belongs; it takes the text before them."""
    made = tensor(location=WEIGHTS)
    entry = onnx.StringStringEntryProto(key="location", value="secret").SerializeToString()
    entry += bytes([1 << 3 | 1]) + b"harmless"
    hidden = made.SerializeToString() + bytes([13 << 3 | 2, len(entry)]) + entry
    initializer = bytes([5 << 3 | 2, len(hidden)]) + hidden

    with pytest.raises(BundleCorrupt, match="gives its 'location' twice"):
        check(bytes([7 << 3 | 2, len(initializer)]) + initializer)


def test_attack_place_given_twice(check: Check) -> None:
    """Whichever of the two a reader takes."""
    made = tensor(location=WEIGHTS, length=20)
    made.external_data.insert(0, onnx.StringStringEntryProto(key="length", value="400"))

    with pytest.raises(BundleCorrupt, match="gives its 'length' twice"):
        check(model(graph(initializer=[made])).SerializeToString())


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.COMPLEX64, 99])
def test_attack_elements_of_no_size(check: Check, kind: int) -> None:
    """A length of 0 would fit any number of them."""
    made = tensor(location=WEIGHTS, length=0)
    made.data_type = kind

    with pytest.raises(BundleCorrupt, match=f"elements of the unknown type {kind}"):
        check(model(graph(initializer=[made])).SerializeToString())


def test_attack_graph_of_another_format(tmp_path: Path) -> None:
    """ONNX Runtime chooses its reader by the file's name."""
    (tmp_path / "model.ort").write_bytes(b"")

    with pytest.raises(BundleCorrupt, match=r"is not named \.onnx"):
        check_external_data(tmp_path / "model.ort", tmp_path, allowed=[])


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A real bundle of two variants."""
    root = tmp_path_factory.mktemp("honest")
    built = memory_model(replace(varied_decoder(), vocab_size=DECODER.vocab_size))
    transforms = {"int4": Quantize(method="rtn"), "int8": Quantize(bits=8, method="rtn")}
    packed = pack_bundle(
        built,
        plan_variants(built.decoder, transforms),
        InputStatistics(),
        root,
        accuracy_level=4,
        provenance={},
        threads=1,
        progress=Quiet(),
    )
    return packed.bundle


def test_our_own_graphs_pass(honest: Bundle, tmp_path: Path) -> None:
    """Quantised, with zero points or not, and in float32; all variants."""
    original = pack_original(memory_model(), tmp_path)

    for bundle in (honest, original):
        for name, variant in bundle.manifest.variants.items():
            path = bundle.path(variant.graph)
            # As an engine sees it: what is stored without its zeros is in it.
            content = whole_graph(read_graph(path), bundle, name)
            check_tensors(content, bundle.sizes(variant.weights), where=str(path))
            onnx.load(path, load_external_data=False)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_attack_damaged_graph(honest: Bundle, check: Check, data: st.DataObject) -> None:
    """Cut anywhere, any byte changed: accepted, or our one error; never another."""
    content = bytearray(honest.path("model.onnx").read_bytes())
    end = data.draw(st.integers(0, len(content)))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    try:
        check(bytes(content[:end]))
    except BundleCorrupt as error:
        assert "model.onnx: " in str(error)  # noqa: PT017 - some damage does not matter here


def changed(honest: Bundle, folder: Path, change: Callable[[onnx.ModelProto], object]) -> Bundle:
    """The bundle with another graph, every hash right."""
    for name in honest.manifest.files:
        (folder / name).write_bytes(honest.path(name).read_bytes())
    made = onnx.load(honest.path("model.onnx"), load_external_data=False)
    change(made)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    write_manifest(folder, honest.manifest, hashes={})
    return read_bundle(folder)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "weights.int8.safetensors"])
def test_attack_whole_bundle_that_points_outside(
    honest: Bundle, tmp_path: Path, location: str
) -> None:
    """All hashes are right, the engine refuses before ONNX Runtime sees the graph."""
    (tmp_path / "secret").write_bytes(bytes(10**6))
    (tmp_path / "b").mkdir()

    def point(made: onnx.ModelProto) -> None:
        made.graph.initializer[0].external_data[0].value = location

    bundle = changed(honest, tmp_path / "b", point)

    with pytest.raises(BundleCorrupt, match="which its variant does not list"):
        OnnxEngine().open(bundle, variant="int4", threads=1)


def test_attack_whole_bundle_with_another_computation(honest: Bundle, tmp_path: Path) -> None:
    """A graph that is none: one of our errors, not ONNX Runtime's."""

    def cut(made: onnx.ModelProto) -> None:
        del made.graph.node[3:]

    with pytest.raises(EngineError, match="onnxruntime"):
        OnnxEngine().open(changed(honest, tmp_path, cut), variant="int4", threads=1)


def test_an_honest_bundle_opens_after_the_same_treatment(honest: Bundle, tmp_path: Path) -> None:
    """The attacks above fail for their attack."""
    bundle = changed(honest, tmp_path, lambda made: None)

    loaded = OnnxEngine().open(bundle, variant="int4", threads=1)

    assert loaded.step([(loaded.session(), np.array([1]))]).shape == (1, DECODER.vocab_size)
