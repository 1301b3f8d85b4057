"""Feedback on its way: taken for good, set aside with a reason, or refused."""

from pathlib import Path

import pytest

from onhand.core.errors import InputError, ResourceError
from onhand.device.learning.feedback import Feedback, parse_feedback, render_feedback, seen_of
from onhand.device.learning.quarantine import Intake, read_feedback
from onhand.device.learning.suspicion import Limits


def said(question: str, answer: str, *, tenant: str = "anna", rating: float = 1.0) -> Feedback:
    """A conversation of one question, and what is right."""
    return Feedback(
        tenant=tenant,
        at_s=7.0,
        verdict="rated" if rating != 1.0 else "accepted",
        messages=(("user", question),),
        answer=answer,
        rating=rating,
    )


def intake(folder: Path, *, most_held: int = 1000) -> Intake:
    """An intake whose clock stands still."""
    return Intake(folder, Limits(), most_held=most_held, clock=lambda: 9.0, sleep=lambda _: None)


def test_what_is_taken_is_on_disk(tmp_path: Path) -> None:
    """Whoever opens the folder later finds it, in order."""
    first = intake(tmp_path)
    given = [said("on?", "yes"), said("off?", "no"), said("on?", "maybe", rating=0.0)]

    outcomes = [first.give(one).outcome for one in given]

    assert outcomes == ["taken"] * 3
    assert read_feedback(tmp_path) == given
    assert intake(tmp_path).n_taken == 3


def test_the_same_again_is_refused_also_by_another_process(tmp_path: Path) -> None:
    """The journal itself is the memory; nothing is remembered beside it."""
    intake(tmp_path).give(said("on?", "yes"))

    finding = intake(tmp_path).give(said("on?", "yes", tenant="ben"))

    assert (finding.outcome, finding.reason) == ("refused", "the same example was taken before")
    assert len(read_feedback(tmp_path)) == 1


def test_a_contradiction_waits_until_somebody_looks(tmp_path: Path) -> None:
    """It is listed with its reason, and released it is taken."""
    kept = intake(tmp_path)
    kept.give(said("on?", "yes"))
    kept.give(said("on?", "no"))
    (held,) = kept.held()

    released = kept.release(held.feedback.id)

    assert held.reason == "another answer to the same input was taken before"
    assert held.at_s == 9.0
    assert [one.answer for one in read_feedback(tmp_path)] == ["yes", "no"]
    assert (released.answer, kept.held(), kept.n_held) == ("no", [], 0)


def test_an_accepted_answer_called_bad_waits(tmp_path: Path) -> None:
    """And so does the other way round; a bad rating alone is taken."""
    kept = intake(tmp_path)
    kept.give(said("on?", "yes"))
    kept.give(said("off?", "no", rating=0.1))

    assert kept.give(said("on?", "yes", rating=0.0)).outcome == "quarantined"
    assert kept.give(said("off?", "no")).outcome == "quarantined"
    assert kept.n_taken == 2


def test_what_is_dropped_is_gone(tmp_path: Path) -> None:
    """Nothing of it is learned, and its id is unknown from then on."""
    kept = intake(tmp_path)
    kept.give(said("on?", "yes"))
    kept.give(said("on?", "no"))
    name = kept.held()[0].feedback.id

    kept.drop(name)

    assert (kept.n_taken, kept.n_held) == (1, 0)
    for ask in (kept.drop, kept.release):
        with pytest.raises(InputError, match=f"nothing with the id '{name}' is in quarantine"):
            ask(name)


def test_a_full_quarantine_refuses(tmp_path: Path) -> None:
    """Nothing that waits is lost to make room."""
    kept = intake(tmp_path, most_held=1)
    kept.give(said("on?", "yes"))
    kept.give(said("on?", "no"))

    finding = kept.give(said("on?", "maybe"))

    assert finding.outcome == "refused"
    assert finding.reason.endswith("the quarantine is full")
    assert [one.feedback.answer for one in kept.held()] == ["no"]


def test_a_full_journal_refuses(tmp_path: Path) -> None:
    """The disk is not filled by whoever has a key."""
    kept = Intake(tmp_path, Limits(), most_taken_bytes=100)
    first, second = kept.give(said("on?", "yes")), kept.give(said("off?", "no"))

    assert (first.outcome, second.outcome) == ("taken", "refused")
    assert "at most 100 are kept" in second.reason


def test_what_was_taken_can_be_held_later(tmp_path: Path) -> None:
    """As where its loss turns out to be extreme; twice is once."""
    kept = intake(tmp_path)
    one = said("on?", "yes")
    kept.give(one)

    kept.hold(one, "its loss is extreme")
    kept.hold(one, "its loss is extreme")

    assert [(held.feedback, held.reason) for held in kept.held()] == [(one, "its loss is extreme")]


def test_asking_makes_no_folder(tmp_path: Path) -> None:
    """A bundle that nobody taught leaves no trace."""
    kept = intake(tmp_path / "learned")

    assert (kept.n_taken, kept.n_held, kept.held()) == (0, 0, [])
    assert not (tmp_path / "learned").exists()


def test_a_damaged_quarantine_is_said(tmp_path: Path) -> None:
    """What waits is not thrown away in silence."""
    (tmp_path / "quarantine.sqlite").write_bytes(b"no database" * 100)

    with pytest.raises(ResourceError, match="the quarantine cannot be used"):
        intake(tmp_path).held()


@pytest.mark.parametrize(
    "one",
    [
        said("开灯?", "好"),
        Feedback(tenant="a", at_s=0.5, verdict="corrected", text="hi", answer="greeting"),
        Feedback(tenant="a", at_s=1.0, verdict="accepted", picture=b"\x89P\x00", answer="cat"),
        Feedback(
            tenant="a",
            at_s=1.0,
            verdict="corrected",
            messages=(("system", "be brief"), ("user", "x")),
            answer="y",
            wrong="z",
        ),
    ],
)
def test_feedback_comes_back(one: Feedback) -> None:
    """What was written is what is read, and has the same id."""
    again = parse_feedback(render_feedback(one))

    assert (again, again.id) == (one, one.id)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{}",
        b'{"format": 2}',
        b'{"format": 1, "verdict": "hm"}',
        b'{"format": 1, "answer": "a", "at_s": 1, "rating": 2, "tenant": "t", "text": "x"}',
        b'{"format": 1, "answer": "a", "at_s": 1, "rating": 1, "tenant": "t"}',
        b'{"format": 1, "answer": "", "at_s": 1, "rating": 1, "tenant": "t", "text": "x"}',
        b'{"format": 1, "answer": 1, "at_s": 1, "rating": 1, "tenant": "t", "text": "x"}',
        b'{"format": 1, "answer": "a", "at_s": "x", "rating": 1, "tenant": "t", "text": "x"}',
        b'{"format": 1, "answer": "a", "at_s": 1, "rating": 1, "tenant": "t", "picture": "??"}',
        b'{"format": 1, "answer": "a", "at_s": 1, "rating": 1, "tenant": "t", "messages": "x"}',
        b'{"format": 1, "answer": "a", "at_s": 1, "rating": 1, "messages": [{"role": "god"}]}',
        b'{"format": 1, "answer": "a", "at_s": 1, "rating": 1, "text": "x", "y": 1}',
    ],
)
def test_attack_a_record(content: bytes) -> None:
    """A record is what `render_feedback` writes, and nothing else."""
    with pytest.raises(InputError):
        parse_feedback(content)


def test_a_rating_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """It reaches neither the journal nor the quarantine."""
    finding = intake(tmp_path).give(said("on?", "yes", rating=float("nan")))

    assert (finding.outcome, finding.reason) == ("refused", "a number in it is not finite")


def test_what_was_written_is_not_in_what_suspicion_sees() -> None:
    """Hashes and sizes alone."""
    seen = seen_of(said("a secret question", "a secret answer"))

    assert "secret" not in repr(seen)
    assert seen.size == len("a secret question") + len("a secret answer")
