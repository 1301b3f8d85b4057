"""Labelled examples as a lesson of classes takes them, and how a model is judged on them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.device.learning.bundles import N_PIXELS, lesson_of_head, write_bundle
from tests.device.learning.models import LinearTeachable, TableTeachable, three_clouds
from tests.device.learning.test_text_feeds import text_files

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.feed import TextFeed
from onhand.core.lesson import Lesson
from onhand.core.network import ArrayInfo, Network
from onhand.device.learning.base import Feeds, Taught, Values
from onhand.device.learning.class_feeds import ClassSource, classes_of
from onhand.device.learning.examples import Labelled, PlainText
from onhand.device.learning.judging import judge
from onhand.device.learning.text_feeds import TextSource, sequences_of


class Trunk:
    """A lesson whose trunk says which inputs it saw. See `Teachable`."""

    def __init__(self, *, by_token: bool = False, trunk: str | None = "trunk.onnx") -> None:
        """Give one row for each example, or one for each token."""
        self.by_token = by_token
        self.seen: list[dict[str, np.ndarray]] = []
        self._lesson = replace(lesson_of_head(), trunk=trunk)

    @property
    def lesson(self) -> Lesson:
        """Of a head."""
        return self._lesson

    def start(self) -> dict[str, FloatArray]:
        """Nothing."""
        return {}

    def latent(self, inputs: Feeds) -> FloatArray:
        """Sums of ids, or the ids."""
        self.seen.append(dict(inputs))
        ids = next(iter(inputs.values())).astype(np.float32)  # (B, T)
        return ids[:, :, None] if self.by_token else ids.sum(axis=1, keepdims=True)

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """Nobody asks."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to release."""


@pytest.fixture
def pixels(tmp_path: Path) -> Bundle:
    """A network of arrays."""
    return write_bundle(tmp_path / "things")


@pytest.fixture
def texts(pixels: Bundle) -> Bundle:
    """The same, said to take texts."""
    (pixels.root / "tokenizer.json").write_bytes(tokenizer_json())
    feed = TextFeed(max_tokens=6, ids="input_ids", mask="attention_mask", types="")
    inputs = tuple(
        ArrayInfo(name=name, dtype="int64", shape=(None, None))
        for name in ("input_ids", "attention_mask")
    )
    network: Network = replace(pixels.manifest.network, feed=feed, inputs=inputs)
    entry = pixels.manifest.files["labels.txt"]
    files = {**pixels.manifest.files, "tokenizer.json": entry}
    return replace(pixels, manifest=replace(pixels.manifest, model=network, files=files))


def tokenizer_json() -> bytes:
    """One token for each byte."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    model = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return model.to_str().encode()


def labelled(*pairs: tuple[str | Path, str]) -> list[Labelled]:
    """Examples, by the number of their line."""
    return [
        Labelled(given=given, label=label, where=f"line {i}")
        for i, (given, label) in enumerate(pairs, start=1)
    ]


def names_of(examples: Sequence[Labelled], **changes: bool) -> tuple[str, ...]:
    """Classes of examples, beside two that are known."""
    return classes_of(examples, ("cup", "lamp"), n_known=2, can_grow=changes.get("grow", True))


def test_new_classes_come_behind_the_known_ones_in_the_order_of_the_file() -> None:
    """Each once."""
    examples = labelled(("a", "roof"), ("b", "lamp"), ("c", "door"), ("d", "roof"))

    assert names_of(examples) == ("cup", "lamp", "roof", "door")
    assert classes_of(labelled(("a", "1")), (), n_known=2, can_grow=False) == ("0", "1")


def test_a_class_that_cannot_be_added_is_named() -> None:
    """With those that there are."""
    with pytest.raises(InputError, match=r"line 2: class 'roof' is unknown.*known: cup, lamp"):
        names_of(labelled(("a", "lamp"), ("b", "roof")), grow=False)
    with pytest.raises(InputError, match=r"known: 0, 1; a build with --labels FILE names them"):
        classes_of(labelled(("a", "lamp")), (), n_known=2, can_grow=False)
    with pytest.raises(InputError, match="no labelled example"):
        classes_of([PlainText(text="a")], ("cup",), n_known=1, can_grow=True)


def test_texts_are_padded_together(texts: Bundle) -> None:
    """Where there is no trunk, the lesson gets the network's inputs."""
    source = ClassSource(texts, Trunk(trunk=None), ("x", "y"), labelled(("abc", "y"), ("de", "x")))

    feeds = source.feeds([1, 0], scale=0.5)

    np.testing.assert_array_equal(feeds["attention_mask"], [[1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(feeds["labels"], [0, 1])
    np.testing.assert_array_equal(feeds["weights"], np.array([0.5, 0.5], np.float32))


def test_the_trunk_runs_once_for_each_example(texts: Bundle) -> None:
    """Alone, so that what it gives is the same in every batch; and again where it is not kept."""
    trunk, examples = Trunk(), labelled(("abc", "x"), ("de", "x"), ("f", "x"))
    source = ClassSource(texts, trunk, ("x",), examples)
    first, again = source.feeds([0, 2], scale=1), source.feeds([2, 1, 0], scale=1)

    assert [seen["input_ids"].shape for seen in trunk.seen] == [(1, 3), (1, 1), (1, 2)]
    np.testing.assert_array_equal(first["latent"], again["latent"][[2, 0]])
    forgetful = ClassSource(texts, trunk, ("x",), examples, kept_bytes=0)
    forgetful.feeds([0], scale=1)
    forgetful.feeds([0], scale=1)
    assert len(trunk.seen) == 5


def test_what_is_as_long_as_a_text_is_computed_together(texts: Bundle) -> None:
    """Rows of several lengths could not be put together."""
    source = ClassSource(texts, Trunk(by_token=True), ("x",), labelled(("abc", "x"), ("de", "x")))

    assert source.feeds([0, 1], scale=1)["latent"].shape == (2, 3, 1)
    assert source.feeds([1], scale=1)["latent"].shape == (1, 2, 1)


def test_a_text_that_is_cut_is_known(texts: Bundle) -> None:
    """By its number."""
    source = ClassSource(texts, Trunk(), ("x",), labelled(("abc", "x"), ("abcdefgh", "x")))
    source.feeds([0, 1], scale=1)

    assert source.cut == {1}


def test_what_the_network_does_not_take_is_refused(
    texts: Bundle, pixels: Bundle, tmp_path: Path
) -> None:
    """By its line."""
    with pytest.raises(InputError, match="line 1: is a file, this network takes texts"):
        ClassSource(texts, Trunk(), ("x",), labelled((tmp_path / "a.png", "x")))
    with pytest.raises(InputError, match="line 1: is a text, this network takes files"):
        ClassSource(pixels, Trunk(), ("x",), labelled(("a", "x")))
    with pytest.raises(InputError, match="line 1: is not labelled with one of the classes"):
        ClassSource(texts, Trunk(), ("x",), labelled(("a", "z")))
    bad = tmp_path / "bad.npz"
    np.savez(bad, pixels=np.zeros((1, N_PIXELS + 1), np.float32))
    source = ClassSource(pixels, Trunk(), ("x",), labelled((bad, "x")))
    with pytest.raises(InputError, match=r"line 1: .*must be"):
        source.feeds([0], scale=1)


def test_a_classifier_is_marked_on_each_example() -> None:
    """Whatever the size of its batches."""
    points, teachable = three_clouds(20), LinearTeachable()
    values = {
        "head.weight": np.eye(3, 4, dtype=np.float32) * 5,
        "head.bias": np.zeros(3, np.float32),
    }

    marks, again = (judge(teachable, values, points, batch=size) for size in (7, 20))

    assert marks.n == 20
    assert marks.accuracy == 1.0
    assert marks.answers == tuple(points.labels.tolist())
    assert marks.confidences.min() > 0.9
    np.testing.assert_allclose(marks.losses, again.losses, rtol=1e-5)
    assert judge(teachable, values, three_clouds(0), batch=4).n == 0


def test_a_text_is_right_where_each_token_is_the_likeliest_for_sure() -> None:
    """Its loss is the mean over its tokens."""
    files = text_files()
    source = TextSource()
    for text in ("abab", "ac"):
        source.add(sequences_of(PlainText(text=text), files, context=9))
    teachable = TableTeachable(260)
    a, b = (int(files.tokenizer.encode_template(letter)[0]) for letter in "ab")
    table = np.zeros((260, 260), np.float32)
    table[a, b] = table[b, a] = 30

    marks = judge(teachable, {"table": table}, source, batch=2)

    assert marks.is_right.tolist() == [True, False]
    np.testing.assert_allclose(marks.losses, [0, 30], atol=1e-3)
