"""A network with what stands before and behind it answers as the steps one after the other."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.host.networks.join_graphs import convolved, fed, picture, run, seen, value

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo
from onhand.device.networks.pictures import feed_picture
from onhand.host.networks.graph import Graph, Node
from onhand.host.networks.join import decode_cells, with_postprocessing, with_preprocessing


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


def test_the_input_is_the_picture_whatever_the_networks_was_called() -> None:
    """A network's own input of that name gets another inside."""
    feed = PictureFeed(height=8, width=8)
    graph = convolved(pads=0)
    named = replace(
        graph.renamed({"x": "picture"}), inputs=(replace(graph.inputs[0], name="picture"),)
    )
    pixels = picture(8, 8)

    found = run(with_preprocessing(named, feed), picture=pixels)["y"]

    np.testing.assert_array_equal(found, run(with_preprocessing(graph, feed), picture=pixels)["y"])


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
