"""Feedback that may be damaged or an attack: refused or set aside, always with the reason."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.learning.suspicion import (
    Finding,
    History,
    Limits,
    Seen,
    extreme_losses,
    judge,
    unlikely_many,
)


def seen(
    subject: object, label: object, *, tenant: str = "anna", size: int = 10, number: float = 0.0
) -> Seen:
    """An example."""
    return Seen(tenant=tenant, claims=((str(subject), str(label)),), size=size, numbers=(number,))


def history(examples: list[Seen]) -> History:
    """What was taken before."""
    past = History()
    for one in examples:
        past.add(one)
    return past


def fed(examples: list[Seen], past: list[Seen] | None = None) -> list[Finding]:
    """What becomes of examples given one after the other."""
    taken = history(past or [])
    findings = []
    for one in examples:
        findings.append(judge(one, taken, Limits()))
        if findings[-1].outcome == "taken":
            taken.add(one)
    return findings


def test_different_examples_are_taken() -> None:
    """Nothing is suspect about many answers to many questions."""
    findings = fed([seen(i, i % 7) for i in range(200)])

    assert {one.outcome for one in findings} == {"taken"}


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (seen(1, 1, number=float("nan")), "not finite"),
        (seen(1, 1, number=float("inf")), "not finite"),
        (seen(1, 1, size=10**6), "1000000 bytes, at most 65536"),
        (seen(5, 5), "the same example was taken before"),
        (seen(5, 5, tenant="ben"), "the same example was taken before"),
    ],
)
def test_what_is_no_example_is_refused(one: Seen, reason: str) -> None:
    """Damaged, too long, or there already."""
    finding = judge(one, history([seen(5, 5)]), Limits())

    assert finding.outcome == "refused"
    assert reason in finding.reason


def test_a_contradiction_is_set_aside() -> None:
    """The same input with another answer: one of them is wrong, and nobody knows which."""
    finding = judge(seen(5, 6, tenant="ben"), history([seen(5, 5)]), Limits())

    assert finding == Finding("quarantined", "another answer to the same input was taken before")


def test_every_claim_counts() -> None:
    """An answer that was accepted and is then called bad contradicts, whatever else is new."""
    accepted = Seen(tenant="anna", claims=(("in", "a"), ("in a", "good")), size=1)
    bad = Seen(tenant="anna", claims=(("in a", "bad"),), size=1)
    other = Seen(tenant="anna", claims=(("in b", "bad"),), size=1)

    assert judge(bad, history([accepted]), Limits()).outcome == "quarantined"
    assert judge(other, history([accepted]), Limits()).outcome == "taken"


def test_a_flood_of_one_label_is_set_aside() -> None:
    """After the first ones every more of it waits; another label is taken all the same."""
    findings = fed([seen(i, "same") for i in range(100)])
    outcomes = [one.outcome for one in findings]

    n_taken = outcomes.index("quarantined")
    assert 20 < n_taken <= 32
    assert set(outcomes[n_taken:]) == {"quarantined"}
    assert findings[40].reason == "30 of the last 30 examples have this answer"
    past = history([seen(i, "same") for i in range(n_taken)])
    assert judge(seen("x", "other"), past, Limits()).outcome == "taken"


def test_teaching_one_class_with_twenty_examples_is_no_flood() -> None:
    """Who shows a new thing shows it again and again."""
    past = [seen(i, i % 5) for i in range(100)]

    findings = fed([seen(f"new {i}", "new") for i in range(20)], past)

    assert {one.outcome for one in findings} == {"taken"}


def test_a_flood_after_a_long_history_is_seen() -> None:
    """What came before does not hide what comes now."""
    past = [seen(i, i % 5) for i in range(1000)]

    findings = fed([seen(f"new {i}", 3) for i in range(64)], past)

    assert findings[-1].outcome == "quarantined"


def test_a_label_that_was_always_usual_is_no_flood() -> None:
    """Where nearly all answers are the same by nature, many of them say nothing."""
    past = [seen(i, "no" if i % 50 else "yes") for i in range(2000)]

    findings = fed([seen(f"new {i}", "no") for i in range(64)], past)

    assert {one.outcome for one in findings} == {"taken"}


def test_one_tenants_flood_is_not_anothers() -> None:
    """Who floods shuts only himself out."""
    past = history([seen(i, "same") for i in range(32)])

    assert judge(seen("x", "same"), past, Limits()).outcome == "quarantined"
    assert judge(seen("x", "same", tenant="ben"), past, Limits()).outcome == "taken"


@pytest.mark.parametrize(
    ("found", "n", "expected"), [(29, 29, False), (30, 30, True), (20, 32, False), (0, 64, False)]
)
def test_many_by_hand(found: int, n: int, expected: bool) -> None:
    """Half of the time, thirty in a row have a chance of 2 to the power of -30: 0.93e-9."""
    assert unlikely_many(found, n, share=0.5, chance=1e-9) is expected


@given(n=st.integers(1, 64), share=st.floats(0.01, 0.99))
def test_more_of_one_kind_are_less_likely(n: int, share: float) -> None:
    """Once a count is no coincidence, none above it is."""
    flags = [unlikely_many(k, n, share=share, chance=1e-6) for k in range(n + 1)]

    assert flags == sorted(flags)
    assert not flags[0]


def test_an_extreme_loss_is_found() -> None:
    """Far above the others by their own spread; a low one is no harm."""
    past = np.linspace(1.0, 2.0, 50, dtype=np.float32)
    losses = np.array([1.5, 30.0, 0.0, np.nan, np.inf], dtype=np.float32)

    found = extreme_losses(losses, past, Limits())

    assert found.keys() == {1, 3, 4}
    assert "its loss of 30 is" in found[1]
    assert found[3] == "its loss is not finite"


def test_many_far_losses_are_a_kind_of_their_own() -> None:
    """What is taught for the first time is far from what is known, and all of it is."""
    past = np.linspace(0.0, 0.2, 60, dtype=np.float32)
    losses = np.array([5.0] * 20 + [np.nan], np.float32)

    assert extreme_losses(losses, past, Limits()).keys() == {20}


def test_few_losses_say_nothing() -> None:
    """Without others nobody knows what is usual; what is no number is found all the same."""
    losses = np.array([1.0, 30.0, np.nan], np.float32)

    assert extreme_losses(losses, np.zeros(0, np.float32), Limits()).keys() == {2}


def test_losses_all_alike_have_a_spread() -> None:
    """Where the spread is zero a small difference is still small."""
    past = np.full(50, 2.0, np.float32)

    assert extreme_losses(np.array([2.3, 4.0], np.float32), past, Limits()).keys() == {1}


@pytest.mark.parametrize(
    "wrong",
    [{"most_bytes": 0}, {"chance": 0.0}, {"usual_share": 1.0}, {"most_deviation": float("nan")}],
)
def test_limits_are_checked(wrong: dict[str, float]) -> None:
    """A slip in them is said where they are given."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        Limits(**wrong)  # type: ignore[arg-type] # wrong on purpose
