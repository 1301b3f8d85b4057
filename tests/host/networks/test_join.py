"""One graph answers as several steps did one after the other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.pictures import feed_picture, read_picture
from onhand.host.networks.graph import Array, Graph, Node, Value
from onhand.host.networks.join import (
    cascade,
    decode_cells,
    share_trunk,
    with_postprocessing,
    with_preprocessing,
)
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.onnx_files import read_onnx

FLOAT32 = np.dtype(np.float32)
Floats = NDArray[np.float32]


def run(graph: Graph, **feeds: Array) -> dict[str, Floats]:
    """What ONNX Runtime answers."""
    made = GraphRunner(graph, threads=1).run(feeds)
    return {name: array.astype(np.float32) for name, array in made.items()}


def value(name: str, *shape: int | str | None) -> Value:
    """A float32 input or output."""
    return Value(name=name, dtype=FLOAT32, shape=shape)


def seen(feed: PictureFeed) -> Graph:
    """A network that gives back what it is fed."""
    C = 1 if feed.channels == "gray" else 3
    sides = (None, None) if feed.resize == "none" else (feed.height, feed.width)
    shape = (1, C, *sides) if feed.layout == "nchw" else (1, *sides, C)
    return Graph(
        nodes=(Node(op="Identity", inputs=("x",), outputs=("y",)),),
        constants={},
        inputs=(value("x", *shape),),
        outputs=(value("y", *shape),),
        opset=17,
    )


def convolved(*, pads: int, n_outputs: int = 4, seed: int = 0, side: int = 8) -> Graph:
    """A convolution with a bias of (N, 3, side, side), its mean: (N, n_outputs)."""
    rng = np.random.default_rng(seed)
    attributes = {"pads": (pads,) * 4, "strides": (2, 2)}
    return Graph(
        nodes=(
            Node(op="Conv", inputs=("x", "w", "b"), outputs=("c",), attributes=attributes),
            Node(op="Relu", inputs=("c",), outputs=("r",)),
            Node(op="GlobalAveragePool", inputs=("r",), outputs=("p",)),
            Node(op="Flatten", inputs=("p",), outputs=("y",)),
        ),
        constants={
            "w": rng.normal(size=(n_outputs, 3, 3, 3)).astype(np.float32),
            "b": rng.normal(size=n_outputs).astype(np.float32),
        },
        inputs=(value("x", "N", 3, side, side),),
        outputs=(value("y", "N", n_outputs),),
        opset=17,
    )


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pixels of a smooth pattern with noise."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def fed(feed: PictureFeed, pixels: NDArray[np.uint8]) -> Floats:
    """What the device's reader makes of a picture."""
    made = feed_picture(pixels, feed, ArrayInfo(name="x", dtype="float32", shape=()))
    return made.astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    goal=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    extra=st.integers(0, 6),
    resize=st.sampled_from(["crop", "stretch", "pad"]),
    is_known=st.booleans(),
)
def test_pixels_are_those_of_the_reader(
    size: tuple[int, int], goal: tuple[int, int], extra: int, resize: str, is_known: bool
) -> None:
    """Whatever the sizes; a level may differ by one, by which direction is rounded first."""
    feed = PictureFeed(
        height=goal[0], width=goal[1], resize=resize, short_side=max(goal) + extra,
        std=(1.0, 1.0, 1.0),
    )  # fmt: skip
    pixels = picture(*size)

    graph = with_preprocessing(seen(feed), feed, size=size if is_known else None)
    found = run(graph, picture=pixels)["y"]

    distance = np.abs(found - fed(feed, pixels))
    assert distance.max() <= 1
    # Most levels are the same, but some versions of Pillow round in the other order.
    assert np.mean(distance) < 0.5 or distance.size < 100


@pytest.mark.parametrize("channels", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("resize", ["none", "stretch"])
def test_channels_and_layouts_are_those_of_the_reader(
    channels: str, layout: str, resize: str
) -> None:
    """Mean and deviation are for each channel."""
    n = 1 if channels == "gray" else 3
    feed = PictureFeed(
        height=6, width=5, resize=resize, channels=channels, layout=layout,
        mean=(10.0, 120.0, 200.0)[:n], std=(50.0, 60.0, 70.0)[:n],
    )  # fmt: skip
    pixels = picture(6, 5)

    found = run(with_preprocessing(seen(feed), feed), picture=pixels)["y"]

    np.testing.assert_allclose(found, fed(feed, pixels), atol=1e-5)


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("mean", [(0.0, 0.0, 0.0), (120.0, 110.0, 100.0)])
def test_normalising_moves_into_the_first_convolution(
    pads: int, mean: tuple[float, float, float]
) -> None:
    """Division always; subtraction unless zeros stand around the picture."""
    feed = PictureFeed(height=8, width=8, mean=mean, std=(50.0, 60.0, 70.0))
    graph = convolved(pads=pads)
    pixels = picture(8, 8)

    joined = with_preprocessing(graph, feed, size=(8, 8))

    ops = [node.op for node in joined.nodes]
    assert "Div" not in ops
    assert ("Sub" in ops) is (pads == 1 and any(mean))
    np.testing.assert_allclose(
        run(joined, picture=pixels)["y"], run(graph, x=fed(feed, pixels))["y"], rtol=1e-4, atol=1e-4
    )


def test_a_network_of_whole_numbers_is_fed_whole_numbers() -> None:
    """Rounded and held within what the dtype can say."""
    feed = PictureFeed(height=2, width=2, mean=(128.0,) * 3, std=(0.9,) * 3)
    graph = seen(feed)
    int8 = np.dtype(np.int8)
    graph = replace(
        graph,
        inputs=(replace(graph.inputs[0], dtype=int8),),
        outputs=(replace(graph.outputs[0], dtype=int8),),
    )
    pixels = picture(2, 2)

    found = run(with_preprocessing(graph, feed), picture=pixels)["y"]

    expected = feed_picture(pixels, feed, ArrayInfo(name="x", dtype="int8", shape=()))
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_a_feed_of_another_size_is_refused() -> None:
    """With both shapes."""
    with pytest.raises(InputError, match=r"the feed makes \(1, 3, 9, 9\)"):
        with_preprocessing(convolved(pads=0), PictureFeed(height=9, width=9))


def test_scores_become_chances() -> None:
    """Softmax over the last axis."""
    graph = convolved(pads=0)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    scores = run(graph, x=x)["y"]

    found = run(with_postprocessing(graph, "softmax"), x=x)["probabilities"]

    powers = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(found, powers / powers.sum(-1, keepdims=True), rtol=1e-5)


def test_the_best_scores_come_with_their_classes() -> None:
    """The highest first."""
    graph = convolved(pads=0)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    scores = run(graph, x=x)["y"]

    found = run(with_postprocessing(graph, "top-k", k=2), x=x)

    order = np.argsort(-scores, axis=1)[:, :2]
    np.testing.assert_array_equal(found["classes"], order.astype(np.float32))
    np.testing.assert_array_equal(found["scores"], np.take_along_axis(scores, order, axis=1))
    with pytest.raises(InputError, match="has 4 scores, k is 5"):
        with_postprocessing(graph, "top-k")


def test_vectors_get_a_length_of_one() -> None:
    """And a vector of zeros stays one."""
    graph = replace(seen(PictureFeed(height=1, width=4)), inputs=(value("x", 2, 4),),
                    outputs=(value("y", 2, 4),))  # fmt: skip
    x = np.array([[3, 0, 4, 0], [0, 0, 0, 0]], dtype=np.float32)

    found = run(with_postprocessing(graph, "normalize"), x=x)["vector"]

    np.testing.assert_allclose(found, np.array([[0.6, 0.0, 0.8, 0.0], [0.0] * 4]), rtol=1e-6)


def boxed() -> Graph:
    """A network that gives back boxes and scores."""
    return Graph(
        nodes=(
            Node(op="Identity", inputs=("b",), outputs=("boxes",)),
            Node(op="Identity", inputs=("s",), outputs=("scores",)),
        ),
        constants={},
        inputs=(value("b", 1, 3, 4), value("s", 1, 2, 3)),
        outputs=(value("boxes", 1, 3, 4), value("scores", 1, 2, 3)),
        opset=17,
    )


def test_overlapping_boxes_of_one_class_become_one() -> None:
    """By hand: the second box covers the first but for a tenth, the third is elsewhere."""
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 0.9, 1], [2, 2, 3, 3]]], dtype=np.float32)
    scores = np.array([[[0.8, 0.9, 0.3], [0.0, 0.0, 0.7]]], dtype=np.float32)

    found = run(with_postprocessing(boxed(), "nms"), b=boxes, s=scores)

    answers = sorted(zip(*(found[output].tolist() for output in found), strict=True), reverse=True)
    rounded = [([round(n, 3) for n in box], round(score, 3), kind) for box, score, kind in answers]
    assert rounded == [
        ([2, 2, 3, 3], 0.7, 1), ([2, 2, 3, 3], 0.3, 0), ([0, 0, 0.9, 1], 0.9, 0)
    ]  # fmt: skip
    with pytest.raises(InputError, match="nms needs boxes"):
        with_postprocessing(convolved(pads=0), "nms")


def test_an_unknown_step_is_refused() -> None:
    """With those that are known."""
    with pytest.raises(InputError, match="no such step 'argmax'; known: softmax"):
        with_postprocessing(convolved(pads=0), "argmax")


def test_heads_share_their_trunk() -> None:
    """Nodes and weights that agree are there once; both answers stay."""
    one = convolved(pads=1)
    head = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)
    other = replace(
        one,
        nodes=(*one.nodes, Node(op="MatMul", inputs=("y", "h"), outputs=("z",))),
        constants={**one.constants, "h": head},
        outputs=(value("z", "N", 3),),
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)

    joined = share_trunk([one, other], names=["one", "other"])

    assert len(joined.nodes) == len(other.nodes)
    assert joined.size_bytes() == other.size_bytes()
    found = run(joined, x=x)
    np.testing.assert_array_equal(found["y"], run(one, x=x)["y"])
    np.testing.assert_array_equal(found["z"], run(other, x=x)["z"])


def test_other_weights_are_no_common_trunk() -> None:
    """Outputs of one name get the graph's before them."""
    graphs = [convolved(pads=1), convolved(pads=1, seed=1)]
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)

    joined = share_trunk(graphs, names=["a", "b"])

    assert joined.size_bytes() == 2 * graphs[0].size_bytes()
    found = run(joined, x=x)
    np.testing.assert_array_equal(found["y"], run(graphs[0], x=x)["y"])
    np.testing.assert_array_equal(found["b.y"], run(graphs[1], x=x)["y"])


def test_the_same_network_twice_is_computed_once() -> None:
    """Its output goes by two names."""
    graph = convolved(pads=0)
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)

    joined = share_trunk([graph, graph], names=["a", "b"])

    assert sorted(n.op for n in joined.nodes) == sorted([n.op for n in graph.nodes] + ["Identity"])
    found = run(joined, x=x)
    np.testing.assert_array_equal(found["y"], found["b.y"])


def test_graphs_of_other_inputs_or_opsets_are_not_joined() -> None:
    """They could not be fed, or run, as one."""
    graph = convolved(pads=0)

    with pytest.raises(InputError, match="b: has other inputs than a"):
        share_trunk([graph, convolved(pads=0, side=9)], names=["a", "b"])
    with pytest.raises(InputError, match=r"opsets \[17, 18\]"):
        share_trunk([graph, replace(graph, opset=18)], names=["a", "b"])
    with pytest.raises(InputError, match="1 graphs and 0 names"):
        share_trunk([graph], names=[])


def finder(boxes: list[list[float]]) -> Graph:
    """A detector that finds the same boxes in every picture."""
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Graph(
        nodes=(
            Node(op="Shape", inputs=("picture",), outputs=("shape",)),
            Node(op="ReduceMin", inputs=("shape",), outputs=("least",), attributes={"keepdims": 0}),
            Node(op="Cast", inputs=("least",), outputs=("size",), attributes={"to": 1}),
            Node(op="Mul", inputs=("size", "none"), outputs=("nothing",)),
            Node(op="Add", inputs=("nothing", "known"), outputs=("boxes",)),
        ),
        constants={"known": array, "none": np.array(0, dtype=np.float32)},
        inputs=(Value(name="picture", dtype=np.dtype(np.uint8), shape=(None, None, 3)),),
        outputs=(value("boxes", None, 4),),
        opset=17,
    )


CROPS = PictureFeed(
    height=8, width=8, resize="stretch", channels="bgr", mean=(100.0, 110.0, 120.0),
    std=(50.0, 55.0, 60.0),
)  # fmt: skip


@pytest.mark.parametrize(
    "boxes",
    [[], [[0.0, 0.0, 1.0, 1.0]], [[0.1, 0.3, 0.42, 0.9], [0.5, 0.5, 0.51, 0.52]]],
    ids=["none", "the whole picture", "two"],
)
@pytest.mark.parametrize("size", [(None, None, 3), (30, 47, 3)], ids=["any size", "this size"])
def test_a_chain_answers_as_its_parts_do(
    boxes: list[list[float]], size: tuple[int | None, ...]
) -> None:
    """Crops cut out of the picture, scaled and classified one by one."""
    pixels = picture(30, 47)
    classifier = convolved(pads=1)
    expected = []
    for left, top, right, bottom in boxes:
        rows = slice(int(np.floor(top * 30)), int(np.ceil(bottom * 30)))
        columns = slice(int(np.floor(left * 47)), int(np.ceil(right * 47)))
        expected.append(run(classifier, x=fed(CROPS, pixels[rows, columns]))["y"][0])

    detector = finder(boxes)
    detector = replace(detector, inputs=(replace(detector.inputs[0], shape=size),))
    found = run(cascade(detector, classifier, CROPS), picture=pixels)

    assert found["y"].shape == (len(boxes), 4)
    # A level of 255 that is rounded the other way moves an answer by a hundredth.
    np.testing.assert_allclose(found["y"], np.reshape(expected, (-1, 4)), rtol=0.02, atol=0.02)


def test_a_box_beside_the_picture_is_its_edge() -> None:
    """One pixel is left of it, so that there is something to scale."""
    pixels = picture(30, 47)
    classifier = convolved(pads=1)

    found = run(
        cascade(finder([[1.2, 1.5, 1.4, 1.8], [-1, -1, -0.5, -0.5]]), classifier, CROPS),
        picture=pixels,
    )

    corners = (pixels[-1:, -1:], pixels[:1, :1])
    expected = [run(classifier, x=fed(CROPS, corner))["y"][0] for corner in corners]
    np.testing.assert_allclose(found["y"], expected, rtol=1e-3, atol=1e-3)


def test_a_chain_needs_boxes_and_crops_that_fit() -> None:
    """Else it says what it needs."""
    classifier = convolved(pads=0)

    with pytest.raises(InputError, match="the detector must take a picture"):
        cascade(classifier, classifier, CROPS)
    with pytest.raises(InputError, match="must scale"):
        cascade(finder([]), classifier, replace(CROPS, resize="none"))
    with pytest.raises(InputError, match="must take one float32 batch"):
        cascade(finder([]), convolved(pads=0, side=9), CROPS)


def test_cells_become_boxes() -> None:
    """By hand: one cell of 2 x 3 finds something in its own corner."""
    cells = np.zeros((1, 7, 2, 3), dtype=np.float32)
    cells[0, 0, 1, 2] = 0.5
    cells[0, 5:, 1, 2] = (0.25, 0.75)
    graph = replace(
        seen(PictureFeed(height=1, width=1)), inputs=(value("x", 1, 7, 2, 3),),
        outputs=(value("y", 1, 7, 2, 3),),
    )  # fmt: skip

    found = run(decode_cells(graph), x=cells)

    # tanh(0) is 0 and sigmoid(0) is 1/2: the middle at (2/3, 1/2), a quarter to each side.
    np.testing.assert_allclose(
        found["candidates"][0, 5], [5 / 12, 1 / 4, 11 / 12, 3 / 4], rtol=1e-5
    )
    np.testing.assert_allclose(
        found["chances"][0, :, 5], 0.5**0.6 * np.array([0.25, 0.75]) ** 0.4, rtol=1e-5
    )
    assert found["chances"][0, :, :5].max() == 0


def test_a_real_detector_and_a_real_classifier_in_one_graph(assets: Path) -> None:
    """The same boxes and the same classes as one step after the other."""
    folder = assets / "vision-imagenet-onnx-derived"
    detector = read_onnx(assets / "fastestdet" / "FastestDet.onnx")
    classifier = read_onnx(folder / "mobilenet_v1_0.25_128_qat_dequant_fp32.onnx")
    sees = PictureFeed(height=352, width=352, resize="stretch", channels="bgr")
    names = PictureFeed(
        height=128, width=128, resize="stretch", mean=(127.5,) * 3, std=(127.5,) * 3
    )
    pixels = read_picture(assets / "fastestdet" / "0.jpg")
    finds = with_postprocessing(decode_cells(detector), "nms", least_score=0.5)
    boxes = run(finds, **{detector.inputs[0].name: fed(sees, pixels)})
    H, W = pixels.shape[:2]
    expected = []
    for left, top, right, bottom in boxes["boxes"].clip(0, 1):
        rows = slice(int(np.floor(top * H)), int(np.ceil(bottom * H)))
        columns = slice(int(np.floor(left * W)), int(np.ceil(right * W)))
        expected.append(run(classifier, input=fed(names, pixels[rows, columns]))["output"][0])

    found = run(cascade(with_preprocessing(finds, sees), classifier, names), picture=pixels)

    assert len(expected) > 0
    np.testing.assert_allclose(found["boxes"], boxes["boxes"], atol=2e-3)
    np.testing.assert_array_equal(found["classes"], boxes["classes"])
    # Boxes that round to other pixels are other crops; most classes stay all the same.
    same = found["output"].argmax(1) == np.argmax(expected, axis=1)
    assert same.mean() >= 0.8
