"""Boxes of a detector: decoded, chosen, and brought back to the picture."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.network_bundles import Drawing, Op, info, pack

from onhand.cli.main import main
from onhand.core.detection import Detection
from onhand.core.errors import InputError, ShapeError
from onhand.core.feed import PictureFeed
from onhand.core.network import ArrayInfo, Network
from onhand.device.networks.boxes import BoxReader, box_reader, overlaps
from onhand.device.networks.pictures import feed_picture, picture_size, placement
from onhand.device.networks.session import open_session

FEED = PictureFeed(height=20, width=40, resize="stretch", std=(1.0, 1.0, 1.0))


def reader(layout: str, *, feed: PictureFeed | None = None, **given: object) -> BoxReader:
    """A reader for an input of 20 rows and 40 columns."""
    detection = replace(Detection(layout=layout), **given)  # type: ignore[arg-type]  # by name
    outputs = ("boxes", "scores") if layout == "boxes-scores" else ("boxes",)
    return BoxReader(detection=detection, height=20, width=40, outputs=outputs, feed=feed)


def logit(x: float) -> float:
    """What the logistic function makes `x` of."""
    return float(np.log(x / (1 - x)))


# One box: left 10, top 5, right 30, bottom 15, of the second of two classes, as likely as 0.8.
ONE: Mapping[str, tuple[BoxReader, Mapping[str, Any]]] = {
    "rows": (
        reader("rows"),
        {"boxes": [[[20, 10, 20, 10, 0.1, 0.8], [1, 1, 1, 1, 0.2, 0.1]]]},
    ),
    "columns, in shares": (
        reader("columns", unit="shares"),
        {"boxes": [[[0.5, 0], [0.5, 0], [0.5, 0], [0.5, 0], [0.1, 0], [0.8, 0]]]},
    ),
    "rows, with objectness and logits": (
        reader("rows", objectness=True, scores="logits"),
        {"boxes": [[[20, 10, 20, 10, logit(0.9), logit(0.1), logit(0.8 / 0.9)]]]},
    ),
    "boxes-scores, top first, background": (
        reader("boxes-scores", boxes="corners-yx", unit="shares", background=True),
        {"boxes": [[[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]]],
         "scores": [[[0.1, 0.1, 0.8], [0.9, 0.05, 0.05]]]},
    ),
    "corners, softmax": (
        reader("boxes-scores", boxes="corners", scores="softmax", background=True),
        {"boxes": [[[10, 5, 30, 15]]], "scores": [[np.log([0.1, 0.1, 0.8]).tolist()]]},
    ),
    "cells": (
        reader("cells"),
        # One of two cells of 20 x 20; the middle is at its right edge, and the box half as large.
        {"boxes": [[[[0.8**(1 / 0.6), 0]], [[20, 0]], [[np.arctanh(0.5), 0]], [[0, 0]], [[0, 0]],
                    [[0, 0]], [[1, 0]]]]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_a_box_by_hand(name: str) -> None:
    """Every layout says the same box."""
    how, outputs = ONE[name]
    arrays = {key: np.array(value, np.float32) for key, value in outputs.items()}

    (box,) = how.boxes(arrays, ["cat", "dog"], None)

    assert (box.index, box.label) == (1, "dog")
    assert box.score == pytest.approx(0.8, abs=1e-5)
    assert (box.x, box.y, box.width, box.height) == pytest.approx((10, 5, 20, 10), abs=1e-4)


def test_the_better_of_two_that_overlap() -> None:
    """One box of a class stays, the likelier; other classes and boxes apart do as well."""
    rows = np.array(
        [
            [10, 10, 10, 10, 0.7, 0.0],
            [11, 10, 10, 10, 0.9, 0.0],  # overlaps the first by 9 of 11
            [10, 10, 10, 10, 0.0, 0.6],
            [30, 10, 10, 10, 0.5, 0.0],
            [30, 10, 0, 10, 0.9, 0.0],  # has no area
            [np.nan, 10, 10, 10, 0.9, 0.0],
        ],
        np.float32,
    )[None]

    found = reader("rows").find({"boxes": rows})
    few = reader("rows", most_boxes=1).find({"boxes": rows})
    all_of_them = reader("rows", most_overlap=0.9).find({"boxes": rows}, least_score=0.65)

    assert found.scores.tolist() == pytest.approx([0.9, 0.6, 0.5])
    assert found.classes.tolist() == [0, 1, 0]
    assert few.scores.tolist() == pytest.approx([0.9])
    assert all_of_them.scores.tolist() == pytest.approx([0.9, 0.7])


@given(
    st.lists(
        st.tuples(*[st.integers(0, 20)] * 4, st.floats(0, 1), st.floats(0, 1)),
        min_size=1,
        max_size=12,
    ),
    st.floats(0, 1),
)
def test_what_stays_does_not_overlap(rows: list[tuple[float, ...]], most: float) -> None:
    """Of one class, no two overlap too much; and what went, a likelier one of its class covers."""
    outputs = {"boxes": np.array(rows, np.float64)[None]}
    found = reader("rows", most_overlap=most, least_score=0.2).find(outputs)
    everything = reader("rows", most_overlap=1.0, least_score=0.2).find(outputs)
    shared = overlaps(found.corners, found.corners)
    same = found.classes[:, None] == found.classes[None, :]
    np.fill_diagonal(same, val=False)

    assert (np.diff(found.scores) <= 0).all()
    assert (shared[same] <= most).all()
    for corners, score, kind in zip(
        everything.corners, everything.scores, everything.classes, strict=True
    ):
        near = overlaps(corners[None], found.corners)[0]
        covers = (found.classes == kind) & (found.scores >= score)
        assert ((near > most) & covers).any() or (near[covers] > 1 - 1e-9).any()


@given(
    st.sampled_from(["crop", "stretch", "pad"]), st.integers(8, 90), st.integers(8, 90), st.data()
)
def test_a_box_comes_back_to_the_picture(
    resize: str, height: int, width: int, data: st.DataObject
) -> None:
    """Where a white rectangle lies in the input, its box in the picture is found again."""
    pytest.importorskip("PIL")
    feed = replace(FEED, resize=resize, short_side=44 if resize == "crop" else 0)
    x, y = data.draw(st.integers(0, width - 4)), data.draw(st.integers(0, height - 4))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y : y + 4, x : x + 4] = 255
    seen = feed_picture(pixels, feed, ArrayInfo(name="x", dtype="float32", shape=()))[0, 0]
    place = placement(feed, height, width)
    inside = seen > 127
    if resize == "pad":  # gray beside it is 114
        assert (seen == 114).sum() >= seen.size - (height * place.down + 1) * (
            width * place.across + 1
        )
    if not inside.any():
        return
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    row = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1, 1.0]

    found = reader("rows", boxes="corners", feed=feed).find(
        {"boxes": np.array([[row]], np.float64)}, (height, width)
    )

    # A pixel of the input, or one of the picture, is lost at each edge; a crop may cut more off.
    slack = np.array([1 / place.across, 1 / place.down] * 2) + 1
    wanted = np.array([x, y, x + 4, y + 4])
    if resize == "crop":
        low = [place.left / place.across, place.top / place.down]
        high = [low[0] + 40 / place.across, low[1] + 20 / place.down]
        wanted = np.clip(wanted, [*low, *low], [*high, *high])
    assert (np.abs(found.corners[0] - wanted) <= slack).all()


def described(layout: str, *outputs: ArrayInfo, n_labels: int = 0, **given: object) -> Network:
    """A detector of 20 x 40 pixels."""
    return Network(
        task="detection",
        inputs=(info("x", 1, 3, 20, 40),),
        outputs=outputs,
        n_parameters=0,
        feed=FEED,
        n_labels=n_labels,
        detection=replace(Detection(layout=layout), **given),  # type: ignore[arg-type]  # by name
    )


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (described("cells", info("y", 1, 85)), r"'y' is of shape \(1, 85\), .* \(1, 5 \+ C, h, w"),
        (described("cells", info("y", 1, 5, 2, 2)), "layout 'cells' needs"),
        (described("rows", info("y", 1, 9, 4)), r"needs \(1, N, 4 \+ C\)"),
        (described("rows", info("y", 1, 9, 5), objectness=True), r"needs \(1, N, 5 \+ C\)"),
        (described("columns", info("y", 9, 4)), r"needs \(1, 4 \+ C, N\)"),
        (described("boxes-scores", info("y", 1, 9, 4)), "needs 2 outputs, the network has 1"),
        (described("boxes-scores", info("y", 1, 9, 5), info("s", 1, 9, 2)), r"\(1, N, 4\)"),
        (described("boxes-scores", info("y", 1, 9, 4), info("s", 9, 2)), r"needs \(1, N, C\)"),
        (described("rows", info("y", 1, 9, 7), n_labels=2), "2 labels for 3 classes"),
        (
            described("boxes-scores", info("y", 1, 9, 4), info("s", 1, 9, 3), n_labels=3,
                      background=True),
            "3 labels for 2 classes of output 's'",
        ),
        (
            replace(described("rows", info("y", 1, 9, 7)), feed=replace(FEED, resize="none")),
            "must be brought to one size",
        ),
        (
            replace(described("rows", info("y", 1, 9, 7)), feed=None, inputs=(info("x", 1, 7),)),
            r"input 'x' is of shape \(1, 7\), must be a picture of one size",
        ),
    ],
)  # fmt: skip
def test_shapes_that_hold_no_boxes(network: Network, message: str) -> None:
    """What a bundle says of its outputs is checked before anything runs."""
    with pytest.raises(InputError, match=f"^detection: .*{message}"):
        box_reader(network)


def test_a_network_without_a_picture_feed_has_its_own_pixels() -> None:
    """Channels first and last; without a detection there is no reader."""
    network = described("rows", info("y", None, None, None))
    last = replace(network, feed=None, inputs=(info("x", None, 10, 12, 3),))
    first = box_reader(replace(network, feed=None))
    other = box_reader(last)

    assert box_reader(replace(network, detection=None)) is None
    assert first is not None
    assert (first.height, first.width) == (20, 40)
    assert other is not None
    assert (other.height, other.width) == (10, 12)


@pytest.mark.parametrize(
    ("how", "shapes"),
    [
        (reader("rows"), [(1, 3, 4)]),
        (reader("rows"), [(2, 3, 6)]),
        (reader("columns"), [(1, 4, 9)]),
        (reader("cells"), [(1, 5, 2, 2)]),
        (reader("boxes-scores"), [(1, 3, 4), (1, 2, 7)]),
        (reader("boxes-scores", background=True), [(1, 3, 4), (1, 3, 1)]),
    ],
)
def test_outputs_of_other_shapes(how: BoxReader, shapes: list[tuple[int, ...]]) -> None:
    """An engine that gives something else is told so."""
    arrays = [np.zeros(shape, np.float32) for shape in shapes]
    with pytest.raises(ShapeError, match="the output"):
        how.find(dict(zip(how.outputs, arrays, strict=True)))


def test_size_of_a_picture(tmp_path: Path) -> None:
    """From its head, turned as EXIF says."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path
    picture = image.new("RGB", (30, 20))
    turned = image.Exif()
    turned[0x0112] = 6
    picture.save(folder / "a.png")
    picture.save(folder / "b.jpg", exif=turned)
    np.save(folder / "c.npy", np.zeros((4, 5, 3), np.uint8))
    (folder / "d.png").write_bytes(b"nothing")

    assert [picture_size(folder / n) for n in ("a.png", "b.jpg", "c.npy")] == [
        (20, 30), (30, 20), (4, 5),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"d\.png: not a picture"):
        picture_size(folder / "d.png")


def test_run_shows_boxes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One line for each, in pixels of the picture; the same for programs and in Python."""
    monkeypatch.setenv("ONHAND_HOME", str(tmp_path / "home"))
    drawing = Drawing(
        ops=[Op(kind="Identity", inputs=["rows"], outputs=["y"])],
        constants={"rows": np.array([[[4, 4, 4, 2, 0.75, 0], [4, 4, 4, 2, 0.7, 0]]], np.float32)},
        inputs=(info("x", 1, 3, 8, 8),),
        outputs=(info("y", 1, 2, 6),),
    )
    bundle = pack(
        tmp_path / "net", {"fp32": drawing}, task="detection",
        feed=PictureFeed(height=8, width=8, resize="stretch"), detection=Detection(layout="rows"),
    )  # fmt: skip
    np.save(tmp_path / "p.npy", np.zeros((8, 8, 3), np.uint8))
    line = ["run", str(bundle.root), "--input", str(tmp_path / "p.npy"), "--engine", "reference"]

    assert main(line) == 0
    shown = capsys.readouterr().out.splitlines()
    assert main([*line, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert main([*line, "--top", "1"]) == 2
    refused = capsys.readouterr().err
    with open_session(bundle.root, engine="reference", home=tmp_path / "home") as session:
        (box,) = session.detect(np.zeros((16, 8, 3), np.uint8)) if _has_pillow() else [None]

    assert shown[0].startswith(f"{tmp_path / 'p.npy'}: 1 box (")
    assert shown[1:] == ["  0 75.0% at x 2 y 3 width 4 height 2"]
    assert answer["boxes"] == [
        {"index": 0, "label": "0", "score": 0.75, "x": 2, "y": 3, "width": 4, "height": 2}
    ]
    assert "--top is for networks that name classes" in refused
    assert box is None or (box.y, box.height) == (6, 4)


def _has_pillow() -> bool:
    try:
        import PIL  # noqa: F401 (only whether it is there)
    except ImportError:
        return False
    return True
