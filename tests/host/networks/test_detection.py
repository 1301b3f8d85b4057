"""Detectors: what people drew, what two of them share, and a build from file to figures."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.bundle import read_bundle
from onhand.core.detection import Detection
from onhand.core.errors import EngineError, InputError
from onhand.core.feed import PictureFeed
from onhand.core.measurement import Measurement, summarize
from onhand.device.networks.boxes import BoxReader, Found, overlaps
from onhand.device.networks.session import open_session
from onhand.device.report_data import parse_report
from onhand.host.networks import prove
from onhand.host.networks.annotations import Truth, read_boxes
from onhand.host.networks.build import build_network
from onhand.host.networks.evaluate import evaluate_network
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.join import decode_cells
from onhand.host.networks.judge import Answers, compare_answers
from onhand.host.networks.judge_boxes import compare_boxes, mean_precision
from onhand.host.networks.loading import read_feed
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.options import NetworkOptions

FLOAT = np.dtype(np.float32)
FEED = """
kind = "picture"
height = 8
width = 8
resize = "stretch"

[detection]
layout = "rows"
"""


def found(*rows: tuple[float, float, float, float, float, int]) -> Found:
    """Boxes: corners, score and class; the likeliest first."""
    array = np.array(rows, np.float64).reshape(-1, 6)
    return Found(corners=array[:, :4], scores=array[:, 4], classes=array[:, 5].astype(np.int64))


def truth(*rows: tuple[float, float, float, float, int]) -> Truth:
    """What is in a picture: corners and class."""
    array = np.array(rows, np.float64).reshape(-1, 5)
    classes = array[:, 4].astype(np.int64)
    return Truth(height=99, width=99, corners=array[:, :4], classes=classes)


ONCE = np.ones((1, 1))


def test_precision_by_hand() -> None:
    """Two things, three boxes: right, wrong, right. At 0.5 precisions are 1 and 2/3."""
    boxes = [found((0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.8, 0), (20, 0, 30, 8, 0.7, 0))]
    things = [truth((0, 0, 10, 10, 0), (20, 0, 30, 10, 0))]

    (row,) = mean_precision(boxes, things, ONCE, least_overlaps=[0.5, 0.85])

    # Recalls 0 to 0.5 are 51 of 101 points.
    assert row[0] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert row[1] == pytest.approx(51 / 101)


def test_a_thing_is_found_once_and_by_its_class() -> None:
    """The second box on a thing is wrong; a class without things does not count."""
    things = [truth((0, 0, 10, 10, 0), (0, 0, 10, 10, 1))]
    twice = [found((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 9, 0.8, 0), (0, 0, 9, 9, 0.7, 2))]

    (row,) = mean_precision(twice, things, ONCE, least_overlaps=[0.5])

    assert row[0] == pytest.approx(1 / 2)  # all of class 0, nothing of class 1
    assert mean_precision([found()], things, ONCE)[0].tolist() == [0] * 10
    assert mean_precision(twice, [truth((5, 5, 6, 6, 3))], ONCE * 0)[0, 0] == 0


def plain_precision(boxes: list[Found], things: list[Truth], least: float) -> float:
    """COCO's definition, one box after the other."""
    kinds = sorted({int(kind) for one in things for kind in one.classes})
    total = 0.0
    for kind in kinds:
        rows = sorted(
            ((score, i, k) for i, one in enumerate(boxes) for k, score in enumerate(one.scores)
             if one.classes[k] == kind),
            key=lambda row: -row[0],
        )  # fmt: skip
        free = {(i, k) for i, one in enumerate(things) for k in np.flatnonzero(one.classes == kind)}
        n, right, points = len(free), 0, []
        for seen, (_, i, k) in enumerate(rows, start=1):
            shared = overlaps(boxes[i].corners[k : k + 1], things[i].corners)[0]
            near = [(shared[t], -t) for j, t in free if j == i and shared[t] >= least]
            if near:
                free.remove((i, -max(near)[1]))
                right += 1
            points.append((right / n, right / seen))
        total += sum(
            max((p for r, p in points if r >= recall - 1e-9), default=0)
            for recall in np.linspace(0, 1, 101)
        ) / 101  # fmt: skip
    return total / len(kinds)


corner = st.integers(0, 6)
box = st.tuples(corner, corner, st.integers(1, 6), st.integers(1, 6), st.integers(0, 1))


@given(
    st.lists(
        st.tuples(st.lists(box, max_size=4), st.lists(box, max_size=4)), min_size=1, max_size=3
    ),
    st.randoms(use_true_random=False),
    st.sampled_from([0.3, 0.5, 0.75]),
)
def test_precision_is_what_its_definition_says(
    pictures: list[tuple[list[tuple[int, ...]], list[tuple[int, ...]]]], rng: object, least: float
) -> None:
    """All pictures at once give what one box after the other gives; drawn twice is the same."""
    n_boxes = sum(len(own) for own, _ in pictures)
    scores = iter(np.random.default_rng(n_boxes).permutation(n_boxes) + 1.0)
    boxes, things = [], []
    for own, theirs in pictures:
        rows = sorted(((x, y, x + w, y + h, next(scores), k) for x, y, w, h, k in own),
                      key=lambda row: -row[4])  # fmt: skip
        boxes.append(found(*rows))
        things.append(truth(*((x, y, x + w, y + h, k) for x, y, w, h, k in theirs)))
    if not any(len(one.classes) for one in things):
        return
    counts = np.array([[1.0] * len(boxes), [2.0] * len(boxes)])

    once, twice = mean_precision(boxes, things, counts, least_overlaps=[least])

    assert once[0] == pytest.approx(plain_precision(boxes, things, least))
    # Each box counts twice then, as does each thing.
    assert twice[0] == pytest.approx(once[0])


READER = BoxReader(
    detection=Detection(layout="rows", boxes="corners"), height=99, width=99, outputs=("y",)
)


def outputs(*rows: tuple[float, ...]) -> dict[str, np.ndarray]:
    """One output with rows of corners and two scores."""
    return {"y": np.array([rows], np.float32)}


def test_agreement_by_hand() -> None:
    """Of five boxes of both, four have a partner of their class; the threshold is the bundle's."""
    theirs = [outputs((0, 0, 10, 10, 0.9, 0), (20, 0, 30, 10, 0.5, 0), (50, 0, 60, 10, 0.1, 0))]
    ours = [outputs((0, 0, 10, 9, 0.8, 0), (20, 0, 30, 10, 0.6, 0), (70, 0, 80, 10, 0, 0.4))]

    figures = compare_boxes(theirs, ours, READER, truths=None, how="x")
    same = compare_boxes(theirs, theirs, READER, truths=[truth((0, 0, 10, 10, 0))], how="x")

    assert figures["box_agreement"].value == pytest.approx(0.8)
    assert figures["quality_loss"].value == pytest.approx(0.2)
    assert set(figures) == {"box_agreement", "quality_loss"}
    assert same["box_agreement"].value == 1
    assert same["map_50"].value == same["original_map_50"].value == pytest.approx(1)
    assert same["map_50_95"].value == pytest.approx(1)
    assert same["quality_loss"].value == same["map_50_loss"].value == 0
    assert same["map_50_loss"].interval == (0, 0)


def test_nothing_on_both_sides_is_agreement() -> None:
    """A picture in which both see nothing counts as the same; with a NaN nothing is judged."""
    nothing = [outputs((0, 0, 10, 10, 0.1, 0))]
    one = [outputs((0, 0, 10, 10, 0.9, 0))]

    assert compare_boxes(nothing, nothing, READER, truths=None, how="x")["quality_loss"].value == 0
    assert compare_boxes(nothing, one, READER, truths=None, how="x")["quality_loss"].value == 1
    damaged = Answers([outputs((0, 0, 10, 10, np.nan, 0))], "onnx")
    with pytest.raises(EngineError, match="NaN"):
        compare_answers(
            Answers(one, "onnx"), damaged, task="detection", labels=None, how="x", reader=READER
        )


def test_cells_are_what_the_graph_decodes() -> None:
    """The device's numpy and the operators of a fused graph read the same boxes."""
    rng = np.random.default_rng(0)
    value = Value(name="x", dtype=FLOAT, shape=(1, 9, 3, 5))
    graph = decode_cells(
        Graph(
            nodes=(Node(op="Identity", inputs=("x",), outputs=("y",)),),
            constants={},
            inputs=(value,),
            outputs=(replace(value, name="y"),),
            opset=17,
        )
    )
    x = rng.uniform(0, 1, (1, 9, 3, 5)).astype(np.float32)
    x[:, 1:5] = rng.normal(size=(1, 4, 3, 5)) / 9  # none beside the picture
    made = GraphRunner(graph, threads=1).run({"x": x})
    alone = BoxReader(
        detection=Detection(layout="cells", least_score=0, most_overlap=1),
        height=10, width=30, outputs=("x",),
    ).find({"x": x})  # fmt: skip
    order = np.argsort(-made["chances"][0].max(axis=0), kind="stable")
    corners = np.clip(made["candidates"][0][order], 0, 1) * [30, 10, 30, 10]

    np.testing.assert_allclose(alone.corners, corners, atol=1e-4)
    np.testing.assert_array_equal(alone.classes, made["chances"][0][:, order].argmax(axis=0))
    np.testing.assert_allclose(alone.scores, made["chances"][0].max(axis=0)[order], atol=1e-5)


def detector() -> Graph:
    """(B, 3, 8, 8) -> (B, 2, 6): a box whose score is how bright the picture is, and half of it."""
    rows = np.array([[[4, 4, 4, 4, 0, 0], [2, 2, 2, 2, 0, 0]]], np.float32)
    slope = np.array([[[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0.5]]], np.float32)
    return Graph(
        nodes=(
            Node(op="ReduceMean", inputs=("x",), outputs=("m",),
                 attributes={"axes": (1, 2, 3), "keepdims": 0}),
            Node(op="Reshape", inputs=("m", "shape"), outputs=("r",)),
            Node(op="Mul", inputs=("r", "slope"), outputs=("s",)),
            Node(op="Add", inputs=("s", "rows"), outputs=("y",)),
        ),
        constants={"rows": rows, "slope": slope, "shape": np.array([-1, 1, 1])},
        inputs=(Value(name="x", dtype=FLOAT, shape=("B", 3, 8, 8)),),
        outputs=(Value(name="y", dtype=FLOAT, shape=("B", 2, 6)),),
        opset=17,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A detector, how it is fed, and three pictures with what is in them."""
    (tmp_path / "net.onnx").write_bytes(model_bytes(detector()))
    (tmp_path / "feed.toml").write_text(FEED)
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    data = tmp_path / "data"
    data.mkdir()
    for name, level in (("bright", 255), ("dim", 127), ("dark", 0)):
        np.save(data / f"{name}.npy", np.full((8, 8, 3), level, np.uint8))
    (data / "boxes.csv").write_text(
        "file,label,x,y,width,height\nbright.npy,cat,2,2,4,4\nbright.npy,dog,1,1,2,1.9\n"
        "dim.npy,0,5,5,3,3\ndark.npy,,,,,\n"
    )
    return tmp_path


def test_a_detector_from_file_to_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes travel in the bundle; annotations judge it, and without them the original does."""

    def bench(root: Path, **given: object) -> tuple[dict[str, Measurement], str]:
        return {"size_bytes": summarize("size_bytes", [1], unit="byte", how="x")}, "onnx"

    monkeypatch.setattr(prove, "bench_network", bench)
    monkeypatch.setattr(prove, "sample_read_bandwidth", lambda *_, **__: [1e9])
    shutil.copytree(folder / "data", folder / "judged")
    options = NetworkOptions(
        task="detection", variants={"fp32": ()}, data=folder / "data", heldout=folder / "judged",
        feed=str(folder / "feed.toml"), labels=folder / "labels.txt", threads=1,
        measure_original=False, try_ways=False,
    )  # fmt: skip
    made = build_network(str(folder / "net.onnx"), folder / "out", options, home=folder / "home")
    figures = parse_report(made.report).variants["fp32"].figures
    (folder / "data" / "boxes.csv").unlink()
    alone = evaluate_network(
        made.root, folder / "data", original=None, variant=None, engine="onnx", threads=1,
        home=folder / "home",
    )  # fmt: skip

    detection = read_bundle(made.root).manifest.network.detection
    assert detection == Detection(layout="rows")
    # Of cats one of two is found at first, dogs all; the dog's box overlaps by 0.95.
    assert figures["map_50"].value == pytest.approx((51 / 101 + 1) / 2)
    assert figures["map_50_95"].value == pytest.approx((51 / 101 + 1) / 2)
    assert figures["quality_loss"].value == 0
    assert figures["box_agreement"].samples == 3
    assert set(alone) == {"box_agreement", "quality_loss"}
    with open_session(made.root, engine="onnx", home=folder / "home") as session:
        cat, dog = session.detect(folder / "data" / "bright.npy")
        assert (cat.label, cat.x, cat.width) == ("cat", 2, 4)
        assert (dog.label, dog.score) == ("dog", 0.5)
        with pytest.raises(InputError, match="has no classes"):
            session.classify(folder / "data" / "bright.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "features"}, "is for --task detection, the task is features"),
        ({"labels": "three.txt"}, "3 labels for 2 classes"),
        ({"feed": "unit"}, "nothing says how the network's outputs become boxes"),
        ({"feed": "odd.toml"}, "odd.toml: detection: layout is 'grid'"),
    ],
)
def test_what_does_not_go_with_boxes(folder: Path, change: dict[str, str], message: str) -> None:
    """One sentence, before any work."""
    (folder / "three.txt").write_text("a\nb\nc\n")
    (folder / "odd.toml").write_text(FEED.replace('"rows"', '"grid"'))
    given = {"feed": "feed.toml", "labels": "labels.txt", "task": "detection"} | change
    feed = given["feed"] if given["feed"] == "unit" else str(folder / given["feed"])
    options = NetworkOptions(
        task=given["task"], variants={"fp32": ()}, data=folder / "data", feed=feed,
        labels=folder / given["labels"], threads=1,
    )  # fmt: skip
    with pytest.raises(InputError, match=message):
        build_network(str(folder / "net.onnx"), folder / "out", options, home=folder / "home")


def test_a_file_may_say_boxes_alone(folder: Path) -> None:
    """The source's own feed stays then."""
    (folder / "boxes.toml").write_text('[detection]\nlayout = "rows"\nleast_score = 0.5\n')

    feed, detection = read_feed(str(folder / "boxes.toml"), detector())
    other, _ = read_feed(str(folder / "feed.toml"), detector())

    assert feed is None
    assert detection == Detection(layout="rows", least_score=0.5)
    assert isinstance(other, PictureFeed)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",cat,1,1,2,2", "line 2 has no file"),
        ("../net.onnx,cat,1,1,2,2", "which is no file in"),
        ("bright.npy,cow,1,1,2,2", "'cow' is no label of the network"),
        ("bright.npy,cat,1,1,2,", "height is '', must be a number"),
        ("bright.npy,cat,1,1,two,2", "width is 'two', must be a number"),
        ("bright.npy,cat,9,1,2,2", "is no box in a picture of 8 x 8 pixels"),
        ("bright.npy,cat,1,1,0,2", "is no box in a picture"),
        ("bright.npy,cat,1,1,nan,2", "is no box in a picture"),
        ("bright.npy,,1,1,2,2", "'' is no label"),
    ],
)
def test_attack_annotations(folder: Path, line: str, message: str) -> None:
    """A table may come from anywhere: the line is named, and nothing outside is read."""
    (folder / "data" / "boxes.csv").write_text(f"file,label,x,y,width,height\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_boxes(folder / "data", ["cat", "dog"])
    (folder / "data" / "boxes.csv").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="cannot be read"):
        read_boxes(folder / "data", ["cat", "dog"])
