"""Networks from LiteRT files: quantised ones, their feed, batches, and files that are damaged."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.networks.graphs import computed, ops
from tests.host.networks.sources.tflite_models import TinyFile, interpreted

from onhand.core.bundle import sha256_of
from onhand.core.errors import SourceError
from onhand.core.feed import PictureFeed
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.sources.tflite import TfliteSource, tflite_model

PIXELS = (1, 6, 6, 3)


def read(content: bytes, task: str = "features") -> Graph:
    """The graph of a file."""
    return tflite_model(
        content, where="tiny.tflite", name="tiny", family="tflite", sha256="", task=task
    ).graph


def quantized(rng: np.random.Generator, *, sign: bool = True) -> bytes:
    """Convolution, pool, dense layer and softmax in 8 bits, with scales for each channel."""
    file = TinyFile()
    kind, low = ("int8", -128) if sign else ("uint8", 0)
    x = file.value(PIXELS, dtype=kind, scale=[1 / 128], zero=[low + 128], signature=(-1, 6, 6, 3))
    scales = rng.uniform(0.005, 0.01, 4)
    weight = file.value((4, 3, 3, 3), dtype=kind, scale=scales if sign else [0.01],
                        zero=[0] * 4 if sign else [120],
                        data=rng.integers(low, low + 255, (4, 3, 3, 3)))  # fmt: skip
    bias_scale = (scales if sign else np.asarray([0.01])) / 128
    bias = file.value((4,), dtype="int32", scale=bias_scale, zero=[0] * len(bias_scale),
                      data=rng.integers(-2000, 2000, 4))  # fmt: skip
    # The range of the result begins at 0: a Relu that is not written.
    inner = file.value((1, 6, 6, 4), dtype=kind, scale=[0.02], zero=[low])
    pooled = file.value((1, 1, 1, 4), dtype=kind, scale=[0.02], zero=[low])
    flat = file.value((1, 4), dtype=kind, scale=[0.02], zero=[low])
    matrix = file.value((5, 4), dtype=kind, scale=[0.01], zero=[low + 128],
                        data=rng.integers(low, low + 255, (5, 4)))  # fmt: skip
    scores = file.value((1, 5), dtype=kind, scale=[0.05], zero=[low + 128])
    out = file.value((1, 5), dtype=kind, scale=[1 / 256], zero=[low])
    file.operator("CONV_2D", [x, weight, bias], [inner], options="Conv2DOptions",
                  strideH=1, strideW=1, version=3)  # fmt: skip
    file.operator("AVERAGE_POOL_2D", [inner], [pooled], options="Pool2DOptions", padding=1,
                  strideW=1, strideH=1, filterWidth=6, filterHeight=6, version=2)  # fmt: skip
    file.operator("RESHAPE", [pooled, file.constant([1, 4], "int32")], [flat])
    file.operator("FULLY_CONNECTED", [flat, matrix, -1], [scores], options="FullyConnectedOptions",
                  version=4)  # fmt: skip
    file.operator("SOFTMAX", [scores], [out], options="SoftmaxOptions", beta=1.0, version=2)
    return file.content([x], [out])


@pytest.mark.parametrize("sign", [True, False])
def test_a_quantised_network_becomes_float(sign: bool, rng: np.random.Generator) -> None:
    """Near to what LiteRT computes in 8 bits, and read for what its numbers stand for."""
    content = quantized(rng, sign=sign)
    low = -128 if sign else 0
    model = tflite_model(
        content, where="t", name="t", family="tflite", sha256="", task="image-classification"
    )
    n_right, worst = 0, 0.0
    for _ in range(20):
        codes = rng.integers(low, low + 256, PIXELS).astype(np.int8 if sign else np.uint8)
        x = (codes.astype(np.float32) - (low + 128)) / 128
        expected = (interpreted(content, {0: codes})[0].astype(np.float32) - low) / 256
        found = computed(model.graph, {"t0": x})[0]
        worst = max(worst, float(np.abs(found - expected).max()))
        n_right += int(found.argmax() == expected.argmax())

    # Results there are steps of 0.05 before the softmax, here none are rounded.
    assert worst < 0.05
    assert n_right >= 18
    assert ops(model.graph)[:3] == ["Transpose", "Conv", "Relu"]
    assert model.weight_bits == 8
    assert model.source_bytes == 4 * 27 + 4 * 4 + 5 * 4 + 2 * 4
    assert model.feed == PictureFeed(
        height=6, width=6, layout="nhwc", mean=(128.0,) * 3, std=(128.0,) * 3
    )
    assert "quantised" in model.notes[0]


def test_a_file_is_read_with_its_hash(rng: np.random.Generator, tmp_path: Path) -> None:
    """Its mark tells what it is, whatever it is called."""
    path = tmp_path / "net.bin"
    path.write_bytes(quantized(rng))
    source = TfliteSource()

    assert source.why_not(str(path)) is None
    model = source.load(str(path), task="features")
    assert (model.name, model.sha256, model.feed) == ("net", sha256_of(path), None)
    (tmp_path / "other").write_bytes(b"nothing")
    assert "no mark" in str(source.why_not(str(tmp_path / "other")))
    assert "no file" in str(source.why_not(str(tmp_path)))
    with pytest.raises(SourceError, match="no such file"):
        source.load(str(tmp_path / "missing"), task="features")


def branched(rng: np.random.Generator) -> bytes:
    """Two convolutions of one input, joined, added to, padded, cut, flattened and multiplied."""
    file = TinyFile()
    x = file.value(PIXELS, signature=(-1, 6, 6, 3))
    weight = file.constant(rng.standard_normal((3, 1, 1, 3)))
    left, right = (file.value(PIXELS) for _ in range(2))
    for out in (left, right):
        file.operator("CONV_2D", [x, weight, file.constant(rng.standard_normal(3))], [out],
                      options="Conv2DOptions", strideH=1, strideW=1)  # fmt: skip
    both = file.value((1, 6, 6, 6))
    file.operator("CONCATENATION", [left, right], [both], options="ConcatenationOptions", axis=3)
    added = file.value((1, 6, 6, 6))
    file.operator("MUL", [both, file.constant(rng.standard_normal(6))], [added])
    flat = file.value((1, 216))
    file.operator("RESHAPE", [added, file.constant([1, 216], "int32")], [flat])
    out = file.value((1, 5))
    file.operator("FULLY_CONNECTED", [flat, file.constant(rng.standard_normal((5, 216))), -1],
                  [out], options="FullyConnectedOptions")  # fmt: skip
    return file.content([x], [out])


def test_nothing_turns_between_convolutions(rng: np.random.Generator) -> None:
    """Once on the way in; the dense layer's rows are sorted instead of its input."""
    content = branched(rng)
    x = rng.standard_normal(PIXELS).astype(np.float32)

    graph = read(content)

    assert ops(graph).count("Transpose") == 1
    assert "Gather" not in ops(graph)
    np.testing.assert_allclose(
        computed(graph, {"t0": x})[0], interpreted(content, {0: x})[0], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_a_dilated_convolution_of_three_operators_is_one(op: str, rng: np.random.Generator) -> None:
    """Places into the batch, a convolution, and back: with the odd place cut off."""
    file = TinyFile()
    x = file.value((1, 7, 6, 3))
    block = file.constant([2, 2], "int32")
    pads, crops = (file.constant(n, "int32") for n in ([[2, 3], [2, 2]], [[0, 1], [0, 0]]))
    spread, mixed, out = (
        file.value((4, 6, 5, 3)),
        file.value((4, 4, 3, 3)),
        file.value((1, 7, 6, 3)),
    )
    deep = op != "CONV_2D"
    weight = file.constant(rng.standard_normal((1, 3, 3, 3) if deep else (3, 3, 3, 3)))
    bias = file.constant(rng.standard_normal(3))
    file.operator("SPACE_TO_BATCH_ND", [x, block, pads], [spread])
    more = {"depthMultiplier": 1} if deep else {}
    file.operator(op, [spread, weight, bias], [mixed], strideH=1, strideW=1, padding=1,
                  fusedActivationFunction=1, **more,  # type: ignore[arg-type]
                  options="DepthwiseConv2DOptions" if deep else "Conv2DOptions")  # fmt: skip
    file.operator("BATCH_TO_SPACE_ND", [mixed, block, crops], [out])
    content = file.content([x], [out])
    fed = rng.standard_normal((1, 7, 6, 3)).astype(np.float32)

    graph = read(content)

    np.testing.assert_allclose(
        computed(graph, {"t0": fed})[0], interpreted(content, {0: fed})[0], rtol=1e-4, atol=1e-5
    )
    assert ops(graph) == ["Transpose", "Conv", "Relu", "Transpose"]
    assert graph.inputs[0].shape[0] == "batch"


def test_a_network_that_changes_its_batch_keeps_its_size() -> None:
    """What mixes examples runs with as many as it was exported for."""
    file = TinyFile()
    x, out = file.value((1, 4, 3), signature=(-1, 4, 3)), file.value((4, 3))
    file.operator("RESHAPE", [x, file.constant([4, 3], "int32")], [out])
    mixed = file.value((3, 4))
    file.operator("TRANSPOSE", [out, file.constant([1, 0], "int32")], [mixed])
    content = file.content([x], [mixed])

    model = tflite_model(content, where="t", name="t", family="t", sha256="", task="features")

    assert model.graph.inputs[0].shape == (1, 4, 3)
    assert any("one batch size" in note for note in model.notes)


def test_half_precision_weights_are_read(rng: np.random.Generator) -> None:
    """Converters store float16 and a Dequantize behind it."""
    file = TinyFile()
    x, half = file.value((1, 4)), file.constant(rng.standard_normal((3, 4)), "float16")
    weight, out = file.value((3, 4)), file.value((1, 3))
    file.operator("DEQUANTIZE", [half], [weight], version=3)
    file.operator("FULLY_CONNECTED", [x, weight, -1], [out], options="FullyConnectedOptions")
    content = file.content([x], [out])
    fed = rng.standard_normal((1, 4)).astype(np.float32)

    model = tflite_model(content, where="t", name="t", family="t", sha256="", task="features")

    assert model.weight_bits == 16
    np.testing.assert_allclose(
        computed(model.graph, {"t0": fed})[0], interpreted(content, {0: fed})[0], rtol=1e-5
    )


def one(name: str, inputs: Sequence[Array], shape: Sequence[int], **given: object) -> bytes:
    """A file of one operator on x and constants."""
    file = TinyFile()
    x, out = file.value(PIXELS), file.value(shape)
    rest = [file.constant(a, "int32" if a.dtype.kind == "i" else "float32") for a in inputs]
    file.operator(name, [x, *rest], [out], **given)  # type: ignore[arg-type]
    return file.content([x], [out])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (one("CUSTOM", [], PIXELS, custom="Secret_Op"), "'Secret_Op', somebody's own: not known"),
        (one("SVDF", [], PIXELS), "operator 0 is SVDF: not known"),
        (one("CONV_2D", [np.zeros((4, 3, 3, 2))], PIXELS), "has weights"),
        (one("CONV_2D", [np.zeros((4, 3, 3, 3))], PIXELS), "strides"),
        (one("TRANSPOSE", [np.asarray([0, 1, 1, 2])], PIXELS), "has order"),
        (one("TRANSPOSE", [np.asarray([0, 1, 2, 9])], PIXELS), "along axis 9 of 4"),
        (one("RESHAPE", [], (1, 7)), "contradict|cannot"),
        (one("ADD", [np.zeros(2, np.float32)], PIXELS), "contradict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_said(content: bytes, message: str) -> None:
    """The operator and what is wrong with it."""
    with pytest.raises(SourceError, match=message):
        read(content)


def test_attack_a_tensor_of_another_size() -> None:
    """The numbers of a constant must be as many as its shape says."""
    file = TinyFile()
    x = file.value((1, 4))
    bad = file.value((2**20, 2**20), data=np.zeros(4, np.float32))
    out = file.value((1, 4))
    file.operator("ADD", [x, bad], [out])

    with pytest.raises(SourceError, match="its buffer has 16"):
        read(file.content([x], [out]))


def test_attack_a_value_that_fills_the_memory() -> None:
    """A few bytes of padding or repeats are not a terabyte."""
    file = TinyFile()
    x, out = file.value((1, 4)), file.value((1, 2**31 - 4))
    file.operator("TILE", [x, file.constant([1, 2**29 - 1], "int32")], [out])

    with pytest.raises(SourceError, match="numbers for one example"):
        read(file.content([x], [out]))


def test_attack_one_buffer_for_many_tensors() -> None:
    """A small file cannot stand for more numbers than a few times its own."""
    file = TinyFile()
    x, shared = file.value((1, 4)), file.constant(np.zeros(100_000), "int8")
    buffer = file.buffer_of(shared)
    for _ in range(100):
        file.share(file.value((100_000,), dtype="int8"), buffer)
    out = file.value((1, 4))
    file.operator("RELU", [x], [out])

    with pytest.raises(SourceError, match="too many others"):
        read(file.content([x], [out]))


def outcome(content: bytes) -> str:
    """What is said of a file: that it was read, or why not."""
    try:
        return f"tiny.tflite was read: {len(read(content).nodes)} nodes"
    except SourceError as error:
        return str(error)


WHOLE = quantized(np.random.default_rng(0))


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6
    )
)
def test_attack_changed_bytes(changes: list[tuple[int, int]]) -> None:
    """Whatever bytes are changed: a graph, or an error of ours."""
    content = bytearray(WHOLE)
    for place, byte in changes:
        content[place] = byte

    assert "tiny.tflite" in outcome(bytes(content))


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, len(WHOLE) - 1))
def test_attack_a_file_cut_short(length: int) -> None:
    """The tables lie before what they point to: hardly any cut leaves a whole file."""
    assert "tiny.tflite" in outcome(WHOLE[:length])


def test_real_files_compute_what_litert_computes(assets: Path, rng: np.random.Generator) -> None:
    """Float networks of MLPerf Tiny, on random inputs."""
    folder = assets / "mlperf-tiny"
    for name in (
        "anomaly_detection/trained_models/ad01_fp32.tflite",
        "image_classification/trained_models/pretrainedResnet.tflite",
        "visual_wake_words/trained_models/vww_96_float.tflite",
    ):
        path = folder / name
        if not path.is_file():
            pytest.skip(f"no {path}")
        model = TfliteSource().load(str(path), task="features")
        value = model.graph.inputs[0]
        x = rng.standard_normal((1, *(s for s in value.shape[1:] if isinstance(s, int))))
        fed = x.astype(np.float32)
        content = path.read_bytes()
        expected = interpreted(content, {file_input(content): fed})[0]

        most = 1e-4 * float(np.abs(expected).max())
        np.testing.assert_allclose(computed(model.graph, {value.name: fed})[0], expected, atol=most)


def file_input(content: bytes) -> int:
    """The index of the only input."""
    from onhand.host.networks.sources.tflite_file import read_tflite

    return read_tflite(content, where="file").inputs[0]
