"""Examples from folders, tables and arrays."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed, TextFeed
from onhand.core.network import ArrayInfo, Network
from onhand.device.networks.inputs import feeds_from_file
from onhand.host.networks.data import hash_data, read_data, split_data
from onhand.host.networks.loading import read_labels
from onhand.host.networks.samples import Samples

NETWORK = Network(
    task="image-classification",
    inputs=(ArrayInfo(name="x", dtype="float32", shape=(None, 2, 2, 3)),),
    outputs=(ArrayInfo(name="y", dtype="float32", shape=(None, 2)),),
    n_parameters=0,
    feed=PictureFeed(height=2, width=2, layout="nhwc", std=(1.0, 1.0, 1.0)),
)
LABELS = ("cat", "dog")


def picture(path: Path, value: int) -> Path:
    """A picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.full((2, 2, 3), value, np.uint8))
    return path


def test_folders_are_classes(tmp_path: Path) -> None:
    """Named after labels; without labels, in the order of their names."""
    picture(tmp_path / "dog" / "a.npy", 1)
    picture(tmp_path / "cat" / "b.npy", 2)

    samples = read_data(tmp_path, NETWORK, LABELS)

    assert samples.labels == [0, 1]
    assert samples.feeds[0]["x"].max() == 2
    assert read_data(tmp_path, NETWORK, ()).labels == [0, 1]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    """And files of other kinds are no examples."""
    picture(tmp_path / "b.npy", 2)
    (tmp_path / "notes.txt").write_text("x")

    samples = read_data(tmp_path, NETWORK, LABELS)

    assert (len(samples), samples.labels) == (1, None)


def test_a_table_names_files_and_labels(tmp_path: Path) -> None:
    """By name or by number."""
    picture(tmp_path / "a.npy", 1)
    picture(tmp_path / "b.npy", 2)
    (tmp_path / "labels.csv").write_text("file,label\nb.npy,dog\na.npy,0\n")

    samples = read_data(tmp_path, NETWORK, LABELS)

    assert samples.labels == [1, 0]
    assert samples.feeds[0]["x"].max() == 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label\na.npy,cow\n", "line 2: 'cow' is no label of the network"),
        ("file,label\na.npy,2\n", "line 2: '2' is no label"),
        ("file,label\n../b.npy,cat\n", "line 2 names '../b.npy', which is no file in"),
        ("file,label\nz.npy,cat\n", "line 2 names 'z.npy'"),
        ("name,label\na.npy,cat\n", "line 2 has no file"),
        ("file,label\na.npy,cat\na.npy,\n", "1 of 2 lines have no label"),
    ],
)
def test_a_table_that_is_wrong_says_where(tmp_path: Path, table: str, message: str) -> None:
    """With the line."""
    picture(tmp_path / "a.npy", 1)
    (tmp_path / "labels.csv").write_text(table)

    with pytest.raises(InputError, match=message):
        read_data(tmp_path, NETWORK, LABELS)


def test_arrays_are_examples(tmp_path: Path) -> None:
    """The first size counts them; labels may stand beside."""
    x = np.arange(36, dtype=np.float32).reshape(3, 2, 2, 3)
    np.savez(tmp_path / "a.npz", x=x, labels=[1, 0, 1])

    samples = read_data(tmp_path / "a.npz", NETWORK, ())

    assert samples.labels == [1, 0, 1]
    np.testing.assert_array_equal(samples.batch([2, 0])["x"], x[[2, 0]])
    assert [len(batch["x"]) for batch in samples.batches(2)] == [2, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(3)}, "'x' is in the file or an input of the network, not both"),
        ({"x": np.zeros(3), "labels": np.zeros(2, int)}, r"hold \[2, 3\] examples"),
        ({"x": np.zeros((3, 2, 2, 3))}, "npz: input 'x' is float64, must be float32"),
        ({"x": np.zeros((2, 2, 2, 3), np.float32), "labels": [0, 2]}, "label 2, .* has 2 classes"),
        ({"x": np.zeros((2, 2, 2, 3), np.float32), "labels": [0.5, 1]}, "must be .N,. whole num"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    """Names and numbers must match."""
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]

    with pytest.raises(InputError, match=message):
        read_data(tmp_path / "a.npz", NETWORK, ())


def test_a_damaged_file_of_arrays_is_refused(tmp_path: Path) -> None:
    """Half a zip archive is no accident of ours."""
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2, 2, 3), np.float32))
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:200])

    with pytest.raises(InputError, match="not arrays that can be read"):
        read_data(tmp_path / "a.npz", NETWORK, ())
    with pytest.raises(InputError, match="not arrays that can be read"):
        feeds_from_file(tmp_path / "a.npz", NETWORK)


def test_a_picture_for_a_network_that_nobody_told_of_pictures(tmp_path: Path) -> None:
    """What says how they become numbers is named."""
    with pytest.raises(InputError, match=r"takes arrays: give \.npz with x; .* built with --feed"):
        feeds_from_file(picture(tmp_path / "a.png", 3), replace(NETWORK, feed=None))


def test_examples_that_are_no_rows(tmp_path: Path) -> None:
    """A state with the batch behind it, and a number: each example is a batch of its own."""
    inputs = (
        ArrayInfo(name="state", dtype="float32", shape=(2, None, 4)),
        ArrayInfo(name="rate", dtype="int64", shape=()),
    )
    network = replace(NETWORK, inputs=inputs, feed=None, task="features")
    rates = np.arange(3)
    np.savez(tmp_path / "a.npz", state=np.zeros((3, 2, 1, 4), np.float32), rate=rates)

    samples = read_data(tmp_path / "a.npz", network, ())

    assert [feeds["rate"].tolist() for feeds in samples.batches(8)] == [0, 1, 2]
    assert samples.feeds[0]["state"].shape == (2, 1, 4)
    assert isinstance(samples.feeds[0]["rate"], np.ndarray)
    with pytest.raises(InputError, match=r"'state' of an example has shape \(2, 1, 4\)"):
        samples.batch([0, 1])


def test_one_file_is_one_example(tmp_path: Path) -> None:
    """Three rows in a file of a folder would be counted as one."""
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2, 2, 3), np.float32))

    with pytest.raises(InputError, match="holds 3 examples of 'x', must hold one"):
        read_data(tmp_path, NETWORK, ()).batch([0])


def test_nothing_in_a_folder_is_left_out_in_silence(tmp_path: Path) -> None:
    """A picture beside folders of classes, or of a kind that is not read."""
    picture(tmp_path / "cat" / "a.npy", 1)
    picture(tmp_path / "b.npy", 1)
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"")
    (tmp_path / "cat" / "notes.md").write_text("mine")

    with pytest.raises(InputError, match=r"'b.npy' lies beside folders"):
        read_data(tmp_path, NETWORK, LABELS)
    (tmp_path / "b.npy").unlink()
    assert len(read_data(tmp_path, NETWORK, LABELS)) == 1
    (tmp_path / "cat" / "b.heic").write_bytes(b"")
    with pytest.raises(InputError, match=r"b.heic: is of a kind that is not read"):
        read_data(tmp_path, NETWORK, LABELS)


def test_a_mark_before_the_first_letter_is_no_letter(tmp_path: Path) -> None:
    """As spreadsheets and Windows write UTF-8."""
    picture(tmp_path / "a.npy", 1)
    (tmp_path / "labels.csv").write_text("file,label\na.npy,dog\n", encoding="utf-8-sig")
    (tmp_path / "names.txt").write_text("dog\ncat\n", encoding="utf-8-sig")

    assert read_labels(tmp_path / "names.txt") == ("dog", "cat")
    assert read_data(tmp_path, NETWORK, LABELS).labels == [1]


TEXTS = replace(
    NETWORK,
    feed=TextFeed(max_tokens=4, types=""),
    inputs=tuple(
        ArrayInfo(name=name, dtype="int64", shape=(None, None))
        for name in ("input_ids", "attention_mask")
    ),
)
WORDS = json.dumps({
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {
        "type": "WordLevel",
        "vocab": {"[UNK]": 0, "hello": 1, "you": 2},
        "unk_token": "[UNK]",
    },
}).encode()


def test_texts_are_lines_or_rows(tmp_path: Path) -> None:
    """With labels in a table; empty lines are none."""
    (tmp_path / "a.txt").write_text("hello you\n\nyou\n")
    (tmp_path / "a.csv").write_text("text,label\nhello,dog\nyou,0\n")

    lines = read_data(tmp_path / "a.txt", TEXTS, LABELS, tokenizer=WORDS)
    rows = read_data(tmp_path / "a.csv", TEXTS, LABELS, tokenizer=WORDS)

    assert [lines.feeds[i]["input_ids"].tolist() for i in range(2)] == [[[1, 2]], [[2]]]
    assert (lines.labels, rows.labels) == (None, [1, 0])


@pytest.mark.parametrize(
    ("name", "content", "tokenizer", "message"),
    [
        ("a.txt", "x", None, "the network has no tokenizer"),
        ("a.md", "x", WORDS, "is no .txt, .csv or .npz file"),
        ("a.csv", "text,label\n,dog\n", WORDS, "line 2 has no text"),
        ("a.csv", "text,label\nx,dog\ny,\n", WORDS, "1 of 2 lines have no label"),
    ],
)
def test_texts_that_cannot_be_read_are_refused(
    tmp_path: Path, name: str, content: str, tokenizer: bytes | None, message: str
) -> None:
    """In one sentence."""
    (tmp_path / name).write_text(content)

    with pytest.raises(InputError, match=message):
        read_data(tmp_path / name, TEXTS, LABELS, tokenizer=tokenizer)


@pytest.mark.parametrize(("name", "message"), [("empty", "has no file"), ("gone", "is no folder")])
def test_a_place_without_examples_is_refused(tmp_path: Path, name: str, message: str) -> None:
    """With what would be read."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(InputError, match=message):
        read_data(tmp_path / name, NETWORK, ())


def test_what_judges_was_never_seen(tmp_path: Path) -> None:
    """The parts are apart, whole together, and the same each time."""
    samples = Samples(feeds=[{"x": np.full((1, 1), i)} for i in range(20)], labels=range(20))

    first = split_data(samples, n_calibration=5, what="x", sha256="")
    again = split_data(samples, n_calibration=5, what="x", sha256="")

    seen, judged = list(first.calibration.labels or ()), list(first.heldout.labels or ())
    assert (len(seen), sorted(seen + judged)) == (5, list(range(20)))
    assert (seen, judged) == (
        list(again.calibration.labels or ()),
        list(again.heldout.labels or ()),
    )
    assert first.heldout.feeds[0]["x"][0, 0] == judged[0]
    most = split_data(samples, n_calibration=19, what="x", sha256="")
    assert len(most.calibration) == 10
    with pytest.raises(InputError, match="has 1 examples, needs 2 or more"):
        split_data(samples.part([0]), n_calibration=1, what="x", sha256="")


def test_the_hash_of_a_folder_sees_names_and_sizes(tmp_path: Path) -> None:
    """A file more, or a longer one, is other data."""
    picture(tmp_path / "a" / "a.npy", 1)
    before = hash_data(tmp_path / "a")
    picture(tmp_path / "a" / "b.npy", 1)

    assert hash_data(tmp_path / "a") != before
    assert len(hash_data(tmp_path / "a" / "a.npy")) == 64
