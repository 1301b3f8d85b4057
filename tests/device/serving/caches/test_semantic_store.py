"""Answered questions: found by what asks the same, by their owner alone, within their budget."""

import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError, ResourceError
from onhand.device.serving.asks import Ending, Piece
from onhand.device.serving.caches.closeness import Closeness
from onhand.device.serving.caches.exact import Kept
from onhand.device.serving.caches.questions import Question
from onhand.device.serving.caches.semantic_store import SemanticStore
from onhand.device.tools.kinds import CallPart

ENDING = Ending(reason="stop", prompt_tokens=7, cached_tokens=0, generated_tokens=3)
KEPT = Kept((Piece("By the menu."),), ENDING)
HOW = Question("How do I open the window?", b"here")


def at(cosine: float) -> FloatArray:
    """A vector so near to the first axis."""
    return np.array([cosine, np.sqrt(1 - cosine**2), 0, 0], dtype=np.float32)


def store(
    path: Path | None = None, *, encoder: str = "e", most_bytes: int = 10**6
) -> SemanticStore:
    return SemanticStore(path, encoder=encoder, most_bytes=most_bytes)


def asked(text: str, around: bytes = b"here") -> Question:
    return Question(text, around)


def test_what_asks_the_same_is_found(tmp_path: Path) -> None:
    """With its similarity; also by the next process, whose salt is the same."""
    other = asked("how can I open the window")
    with store(tmp_path / "q.sqlite") as first:
        assert first.find(other, at(0.95)) is None
        first.keep(HOW, at(1), KEPT)
        salt = first.salt
    with store(tmp_path / "q.sqlite") as again:
        found = again.find(other, at(0.95))

        assert found is not None
        assert found.kept == KEPT
        assert found.similarity == pytest.approx(0.95, abs=1e-3)
        assert (again.n_hits, again.n_misses, again.n_entries) == (1, 0, 1)
        assert again.salt == salt
    assert (tmp_path / "q.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("How do I close the window?", "opposite"),
        ("How do I not open the window?", "negation"),
        ("How do I open 2 windows?", "number"),
        ("Why do I open the window?", "question"),
        ("How do I open the door?", "words"),
    ],
)
def test_what_asks_something_else_is_not(text: str, reason: str) -> None:
    """However near its vector is; and the figures say why."""
    with store() as kept:
        kept.keep(HOW, at(1), KEPT)

        assert kept.find(asked(text), at(0.999)) is None
        assert {why: n for why, n in kept.rejected.items() if n} == {reason: 1}


def test_what_is_far_is_not_found() -> None:
    """Though its words are the same."""
    with store() as kept:
        kept.keep(HOW, at(1), KEPT)

        assert kept.find(asked("how do I open the window"), at(0.84)) is None
        assert kept.find(asked("how do I open the window"), at(0.86)) is not None


@pytest.mark.parametrize("said", ["By the handle.", "By the menu."])
def test_two_answers_that_compete_are_none(said: str) -> None:
    """Unless they say the same."""
    with store() as kept:
        kept.keep(HOW, at(1), KEPT)
        kept.keep(asked("How to open a window?"), at(0.99), replace(KEPT, pieces=(Piece(said),)))
        found = kept.find(asked("How can I open the window?"), at(0.995))

        assert (found is None) == (said == "By the handle.")
        assert kept.rejected["ambiguous"] == (said == "By the handle.")


def test_a_nearer_question_that_asks_something_else_hides_the_rest() -> None:
    """What fits better than a match shows that it is none."""
    with store() as kept:
        kept.keep(HOW, at(0.9), KEPT)
        kept.keep(asked("How do I close the window?"), at(1), KEPT)

        assert kept.find(asked("How can I open the window?"), at(1)) is None


@given(arounds=st.lists(st.binary(min_size=1, max_size=2), min_size=2, max_size=2, unique=True))
@settings(deadline=None)
def test_attack_what_stands_around_is_a_wall(arounds: list[bytes]) -> None:
    """The very same question of another tenant is never found."""
    with store() as kept:
        kept.keep(replace(HOW, around=arounds[0]), at(1), KEPT)

        assert kept.find(replace(HOW, around=arounds[1]), at(1)) is None
        assert kept.find(replace(HOW, around=arounds[0]), at(1)) is not None


@pytest.mark.parametrize(
    "kept",
    [
        replace(KEPT, ending=replace(ENDING, reason="length")),
        replace(KEPT, ending=replace(ENDING, reason="tool_calls")),
        replace(KEPT, ending=replace(ENDING, is_repeatable=False)),
        replace(KEPT, pieces=(Piece("", (), CallPart(0, "f", "id")),)),
        replace(KEPT, pieces=(Piece("x" * 2_000_000),)),
    ],
)
def test_some_answers_are_not_kept(kept: Kept) -> None:
    """Cut ones, calls of tools, what may not be repeated, and what is too large."""
    with store() as cache:
        cache.keep(HOW, at(1), kept)

        assert cache.n_entries == cache.n_bytes == 0


@given(sizes=st.lists(st.integers(0, 600), max_size=12), most=st.integers(0, 3000))
@settings(deadline=None)
def test_the_budget_holds(sizes: list[int], most: int) -> None:
    """The longest unused go first; the last that fits is there."""
    with store(most_bytes=most) as cache:
        for i, size in enumerate(sizes):
            question = asked(f"What is {i}?", bytes([i % 3]))
            cache.keep(question, at(1), Kept((Piece("x" * size),), ENDING))

            assert cache.n_bytes <= most
            assert size + 700 > most or cache.find(question, at(1)) is not None


def test_the_latest_answer_to_a_question_counts() -> None:
    """One question has one entry."""
    with store() as cache:
        cache.keep(HOW, at(1), KEPT)
        cache.keep(HOW, at(1), replace(KEPT, pieces=(Piece("Push."),)))
        found = cache.find(HOW, at(1))

        assert cache.n_entries == 1
        assert found is not None
        assert found.kept.pieces == (Piece("Push."),)


def test_another_encoder_begins_anew(tmp_path: Path) -> None:
    """Its vectors mean something else."""
    with store(tmp_path / "q.sqlite") as first:
        first.keep(HOW, at(1), KEPT)
    with store(tmp_path / "q.sqlite", encoder="f") as other:
        assert other.n_entries == 0


def test_attack_a_damaged_file_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """That is said, and nothing of it is trusted."""
    place = tmp_path / "q.sqlite"
    place.write_bytes(b"SQLite format 3\0" + b"\xff" * 4000)
    with caplog.at_level(logging.WARNING), store(place) as cache:
        cache.keep(HOW, at(1), KEPT)
        assert cache.find(HOW, at(1)) is not None

    assert (tmp_path / "q.sqlite.damaged").is_file()
    assert "put aside" in caplog.text


@pytest.mark.parametrize("change", [{"vector": b"\xff" * 8}, {"answer": "{"}, {"vector": b"1"}])
def test_attack_damaged_entries_answer_nothing(
    tmp_path: Path, change: Mapping[str, object]
) -> None:
    """Vectors of no length, answers that are no JSON."""
    place = tmp_path / "q.sqlite"
    with store(place) as first:
        first.keep(HOW, at(1), KEPT)
    ((column, value),) = change.items()
    with sqlite3.connect(place) as rows:
        rows.execute(f"UPDATE entries SET {column} = ?", (value,))  # noqa: S608 (one of ours)
    rows.close()
    with store(place) as again:
        assert again.find(HOW, at(1)) is None


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """By its name."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ResourceError, match="the cache cannot be opened"):
        store(tmp_path / "file" / "q.sqlite")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"same": 0.0}, "semantic_similarity"),
        ({"same": 0.9, "reworded": 0.8}, "at least"),
        ({"apart": -1.0}, "semantic_apart"),
    ],
)
def test_thresholds_have_bounds(values: dict[str, float], message: str) -> None:
    """Zero is no threshold, and is refused as one."""
    with pytest.raises(InputError, match=message):
        Closeness(**values)
