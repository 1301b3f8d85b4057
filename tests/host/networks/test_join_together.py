"""Networks in one graph answer as each of them did alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.host.networks.join_graphs import convolved, fed, picture, run, value

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.device.networks.pictures import read_picture
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.join import (
    cascade,
    decode_cells,
    share_trunk,
    with_postprocessing,
    with_preprocessing,
)
from onhand.host.networks.onnx_files import read_onnx


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
