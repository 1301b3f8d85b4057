"""Texts become arrays, and vectors become answers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.network_bundles import Drawing, Op, info, pack

from onhand.core.errors import BundleCorrupt, InputError, ShapeError
from onhand.core.feed import TextFeed
from onhand.device.networks.embeddings import class_means, cosines, embed_texts
from onhand.device.networks.texts import TextReader, open_texts

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "sat", "on", "mat"]
PAD, CLS, SEP, A, CAT, SAT, ON, MAT = 7, 2, 3, 4, 5, 6, 7, 8


def tokenizer(*, frame: bool = True) -> bytes:
    """A tokenizer of words whose own settings would cut at 2 and pad with 7."""
    special = {"[CLS]": 2, "[SEP]": 3}
    ends = {
        name: {"id": name, "ids": [number], "tokens": [name]} for name, number in special.items()
    }

    def piece(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def part(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [piece("[CLS]", 0), part("A", 0), piece("[SEP]", 0)]
    processor = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, part("B", 1), piece("[SEP]", 1)],
        "special_tokens": ends,
    }
    table: dict[str, Any] = {
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Left", "pad_id": PAD, "pad_type_id": 0,
                    "pad_token": "on", "pad_to_multiple_of": None},
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": processor if frame else None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(WORDS)},
                  "unk_token": "[UNK]"},
    }  # fmt: skip
    return json.dumps(table).encode()


def reader(max_tokens: int = 16, *, frame: bool = True, **names: str) -> TextReader:
    """A reader of texts of at most so many tokens."""
    return TextReader(TextFeed(max_tokens=max_tokens, **names), tokenizer(frame=frame))


def test_one_text_has_no_padding() -> None:
    """What the file itself asks for is not done."""
    found = reader().read("a cat sat on mat")

    assert {name: array.tolist() for name, array in found.feeds.items()} == {
        "input_ids": [[CLS, A, CAT, SAT, ON, MAT, SEP]],
        "attention_mask": [[1] * 7],
        "token_type_ids": [[0] * 7],
    }
    assert found.cut == (False,)
    assert {array.dtype for array in found.feeds.values()} == {np.dtype(np.int64)}


def test_a_batch_is_padded_and_masked() -> None:
    """Shorter texts are filled up with the tokenizer's own padding, at their ends."""
    found = reader().batch(["a cat", ("a", "cat sat")])

    assert found.feeds["input_ids"].tolist() == [
        [CLS, A, CAT, SEP, PAD, PAD],
        [CLS, A, SEP, CAT, SAT, SEP],
    ]
    assert found.feeds["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert found.feeds["token_type_ids"].tolist() == [[0] * 6, [0, 0, 0, 1, 1, 1]]


def test_what_does_not_fit_is_cut_and_told() -> None:
    """The ends stay in place; of two texts the longer one gives way."""
    found = reader(5).batch(["a cat sat on mat", "a cat sat", ("a", "cat sat on")])

    assert found.feeds["input_ids"].tolist() == [
        [CLS, A, CAT, SAT, SEP],
        [CLS, A, CAT, SAT, SEP],
        [CLS, A, SEP, CAT, SEP],
    ]
    assert found.cut == (True, False, True)


def test_only_the_inputs_of_the_network_are_made() -> None:
    """A feed without mask or types gives none, and then all lengths must be equal."""
    bare = reader(mask="", types="", ids="tokens")
    assert list(bare.batch(["a cat", "on mat"]).feeds) == ["tokens"]
    with pytest.raises(InputError, match="need a mask"):
        bare.batch(["a", "a cat"])


def test_what_is_no_text_is_refused() -> None:
    """Half a character, nothing at all, or two texts where there is no room."""
    with pytest.raises(InputError, match="half a surrogate"):
        reader().read(("a", "\ud800"))
    with pytest.raises(InputError, match="give one or more"):
        reader().batch([])
    with pytest.raises(InputError, match="has no tokens"):
        reader(frame=False).read("  ")
    with pytest.raises(InputError, match="do not fit into 4"):
        reader(4).read(("a", "cat"))
    with pytest.raises(BundleCorrupt, match="puts 2 tokens around every text"):
        reader(2)
    with pytest.raises(BundleCorrupt, match="is not a tokenizer"):
        TextReader(TextFeed(max_tokens=4), b"{}")


class Bag:
    """A network that counts tokens: the vector of a text is how often each word is in it."""

    def __init__(self) -> None:
        self.widths: list[int] = []

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Count what is not padding."""
        ids, mask = feeds["input_ids"], feeds["attention_mask"]
        self.widths.append(ids.shape[1])
        counts = np.zeros((len(ids), len(WORDS)))
        for row in range(len(ids)):
            np.add.at(counts[row], ids[row][mask[row] == 1], 1)
        return {"embedding": counts[:, 4:]}

    def close(self) -> None:
        """Nothing to release."""


def test_vectors_come_in_the_order_of_the_texts() -> None:
    """Texts are sorted by length for the run, and back again."""
    texts = ["a cat sat on mat", "a", "cat sat", "mat"]
    bag = Bag()
    found = embed_texts(bag, reader(5), texts, batch=2)

    assert found.vectors.tolist() == [
        [1, 1, 1, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1],
    ]
    assert found.vectors.dtype == np.float32
    assert found.cut == (True, False, False, False)
    assert bag.widths == [3, 5]  # the two of one word share a batch
    with pytest.raises(InputError, match="no texts"):
        embed_texts(bag, reader(), [])
    with pytest.raises(ShapeError, match="batch is 0"):
        embed_texts(bag, reader(), ["a"], batch=0)


def test_states_are_no_vectors() -> None:
    """A network that gives states of tokens is told apart."""

    class States:
        def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return {"states": np.zeros((1, 3, 4))}

        def close(self) -> None:
            """Nothing to release."""

    with pytest.raises(ShapeError, match="not a vector for each"):
        embed_texts(States(), reader(), ["a"])


def test_the_nearest_mean_by_hand() -> None:
    """Length has no part in it: each vector counts as much."""
    vectors = np.array([[1, 0], [3, 3], [0, 9], [0, 2]], dtype=np.float32)
    means = class_means(vectors, [4, 4, 2, 2])

    assert means.classes == (2, 4)
    assert means.nearest(np.array([[1, 0.5], [1, 4]], dtype=np.float32)).tolist() == [4, 2]
    with pytest.raises(ShapeError, match="one for each"):
        class_means(vectors, [1])
    with pytest.raises(ShapeError, match="need"):
        means.nearest(np.zeros((1, 3), dtype=np.float32))


@given(
    seed=st.integers(0, 2**16),
    n=st.integers(1, 5),
    width=st.integers(1, 6),
    scale=st.floats(0.1, 9),
)
def test_cosines_know_direction_only(seed: int, n: int, width: int, scale: float) -> None:
    """1 with itself, the same at any length, never beyond 1; 0 for a vector of zeros."""
    vectors = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    found = cosines(vectors, vectors * np.float32(scale))

    np.testing.assert_allclose(np.diag(found), 1, atol=1e-5)
    np.testing.assert_allclose(found, found.T, atol=1e-5)
    assert np.abs(found).max() <= 1
    assert not cosines(vectors, np.zeros_like(vectors)).any()


def test_open_texts_reads_a_bundle(tmp_path: Path) -> None:
    """The bundle's own tokenizer and feed; other networks take no texts."""
    ids = info("input_ids", None, None, dtype="int64")
    drawing = Drawing(
        ops=[Op(kind="Gather", inputs=["table", "input_ids"], outputs=["states"])],
        constants={"table": np.ones((9, 2), dtype=np.float32)},
        inputs=(ids,),
        outputs=(info("states", None, None, 2),),
    )
    feed = TextFeed(max_tokens=8, mask="", types="")
    files = {"tokenizer.json": tokenizer()}
    made = pack(tmp_path / "whole", {"fp32": drawing}, feed=feed, files=files)
    assert open_texts(made).read("a cat").feeds["input_ids"].tolist() == [[CLS, A, CAT, SEP]]
    with pytest.raises(BundleCorrupt, match=r"has no tokenizer\.json"):
        open_texts(pack(tmp_path / "bare", {"fp32": drawing}, feed=feed))
    with pytest.raises(InputError, match="takes no texts"):
        open_texts(pack(tmp_path / "arrays", {"fp32": drawing}))
