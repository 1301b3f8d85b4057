"""Policies: tables of decisions, and what holds whatever the facts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.serving.routing.policies import POLICIES, decide, fitting
from onhand.device.serving.routing.situation import (
    Candidate,
    Decision,
    Expected,
    Power,
    Situation,
    stricter,
)

LOCAL = Candidate(
    name="local",
    place="local",
    context=4096,
    capabilities=frozenset({"schema", "scores"}),
    expected=Expected(first_s=0.5, token_s=0.05),
)
PEER = Candidate(
    name="peer",
    place="peer",
    context=8192,
    capabilities=frozenset({"schema"}),
    expected=Expected(first_s=0.4, token_s=0.02),
)
CLOUD = Candidate(
    name="cloud",
    place="cloud",
    capabilities=frozenset({"schema", "tools"}),
    expected=Expected(first_s=0.8, token_s=0.01),
    prompt_cost=0.001,
    answer_cost=0.002,
)
ALL = Situation(candidates=(LOCAL, PEER, CLOUD), max_tokens=100)


def down(one: Candidate) -> Candidate:
    """The same backend, out of reach."""
    return replace(one, is_healthy=False)


@pytest.mark.parametrize(
    ("policy", "mode", "targets"),
    [
        ("balanced", "balance", ("local", "peer", "cloud")),
        ("local-only", "first", ("local",)),
        ("local-first", "first", ("local", "peer", "cloud")),
        ("cloud-first", "first", ("cloud", "peer", "local")),
        ("cheapest", "first", ("local", "peer", "cloud")),
        ("fastest", "first", ("cloud", "peer", "local")),
        ("hedge", "hedge", ("cloud", "peer", "local")),
        ("race", "race", ("local", "cloud")),
        ("cascade", "cascade", ("local", "peer", "cloud")),
        ("adaptive", "cascade", ("local", "peer", "cloud")),
    ],
)
def test_what_each_policy_asks(policy: str, mode: str, targets: tuple[str, ...]) -> None:
    """All can answer: 1.79 s in the cloud, 2.38 s at the peer, 5.45 s here."""
    decision = decide(ALL, policy)

    assert (decision.mode, decision.targets) == (mode, targets)
    assert set(decision.passed_over) == ({"peer", "cloud"} if policy == "local-only" else set())


def test_every_policy_is_in_the_table_above() -> None:
    """A new one needs its line."""
    assert set(POLICIES) == {
        "balanced", "local-only", "local-first", "cloud-first", "cheapest", "fastest", "hedge",
        "race", "cascade", "adaptive",
    }  # fmt: skip


def test_an_unknown_policy_is_an_error_with_a_suggestion() -> None:
    """A slip is not taken for another policy."""
    with pytest.raises(InputError, match=r"unknown policy 'cascad'; did you mean 'cascade'\?"):
        decide(ALL, "cascad")


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"privacy": "private"}, "privacy"),
        ({"privacy": "redact"}, "privacy"),
        ({"needs": frozenset({"scores"})}, "capability"),
        ({"budget_left": 0.0}, "budget"),
        ({"candidates": (LOCAL, PEER, down(CLOUD))}, "unreachable"),
        ({"candidates": (LOCAL, PEER, replace(CLOUD, context=50)), "prompt_tokens": 60}, "context"),
    ],
)
def test_what_cannot_answer_is_passed_over(facts: dict[str, object], kind: str) -> None:
    """With the reason."""
    _, passed_over = fitting(replace(ALL, **facts))  # type: ignore[arg-type] # as the table says

    assert passed_over["cloud"][0] == kind


def test_what_a_peer_handed_on_goes_to_no_other_peer() -> None:
    """Two devices that name each other would never end."""
    assert decide(replace(ALL, is_handed_on=True), "balanced").targets == ("local", "cloud")


def test_redacted_requests_may_leave_where_something_redacts() -> None:
    """Or where the backend may see personal data."""
    asked = replace(ALL, privacy="redact")

    assert decide(asked, "cloud-first").targets == ("local",)
    assert decide(replace(asked, can_redact=True), "cloud-first").targets[0] == "cloud"
    trusted = replace(asked, candidates=(LOCAL, replace(PEER, sees_personal=True), CLOUD))
    assert decide(trusted, "cloud-first").targets == ("peer", "local")


def test_the_last_token_of_room_is_room() -> None:
    """A prompt that leaves one token for the answer fits; one more does not."""
    alone = Situation(candidates=(replace(LOCAL, context=100),))

    assert decide(replace(alone, prompt_tokens=99), "local-first").mode == "first"
    assert decide(replace(alone, prompt_tokens=100), "local-first").mode == "refuse"


def test_a_private_request_too_long_for_the_device_is_refused() -> None:
    """And it says both reasons."""
    decision = decide(replace(ALL, privacy="private", prompt_tokens=5000), "cloud-first")

    assert decision.mode == "refuse"
    assert decision.why == "context"
    assert "local: the prompt exceeds its context of 4096 tokens" in decision.reason
    assert "cloud: the request is private" in decision.reason
    assert not decision.is_passing


@pytest.mark.parametrize(
    ("defer", "mode"), [("never", "refuse"), ("allow", "defer"), ("must", "defer")]
)
def test_out_of_reach_is_later(defer: str, mode: str) -> None:
    """Where the request allows it; otherwise asking again may help."""
    now = Situation(candidates=(down(CLOUD),), defer=defer)  # type: ignore[arg-type] # as listed
    decision = decide(now, "cloud-first")

    assert decision.mode == mode
    assert decision.is_passing is (mode == "refuse")


@pytest.mark.parametrize("defer", ["allow", "must"])
def test_what_never_can_be_answered_is_not_put_off(defer: str) -> None:
    """Waiting helps nobody."""
    asked = replace(ALL, needs=frozenset({"pictures"}), defer=defer)  # type: ignore[arg-type]

    assert decide(asked, "adaptive").mode == "refuse"


def test_where_the_device_can_answer_nothing_is_put_off() -> None:
    """Unless it must be."""
    cut_off = replace(ALL, candidates=(LOCAL, down(CLOUD)))

    assert decide(replace(cut_off, defer="allow"), "cloud-first").targets == ("local",)
    assert decide(replace(cut_off, defer="must"), "cloud-first").mode == "defer"


def test_a_backend_that_was_never_asked_is_tried() -> None:
    """Otherwise its speed would never be known."""
    fresh = replace(PEER, expected=Expected())

    assert decide(replace(ALL, candidates=(LOCAL, fresh, CLOUD)), "fastest").targets[0] == "peer"


def test_a_queue_counts_as_time() -> None:
    """With all places taken, one waits for a whole answer."""
    full = replace(CLOUD, n_active=4, most_active=4)

    assert decide(replace(ALL, candidates=(LOCAL, PEER, full)), "fastest").targets[0] == "peer"


@pytest.mark.parametrize(
    ("facts", "why", "mode", "first"),
    [
        ({"power": Power(battery=0.1, is_plugged=False)}, "battery", "first", "cloud"),
        ({"power": Power(battery=0.1, is_plugged=True)}, "cascade", "cascade", "local"),
        ({"power": Power(battery=0.9, is_plugged=False)}, "cascade", "cascade", "local"),
        ({"deadline_s": 3.0}, "deadline", "hedge", "cloud"),
        ({"deadline_s": 6.0}, "deadline", "race", "local"),
        ({"deadline_s": 60.0}, "cascade", "cascade", "local"),
        ({"deadline_s": 0.1}, "deadline", "race", "local"),
        ({"cloud_share": 0.6, "draw": 0.5}, "governor", "first", "cloud"),
        ({"cloud_share": 0.4, "draw": 0.5}, "cascade", "cascade", "local"),
        ({"privacy": "private", "cloud_share": 1.0}, "local", "first", "local"),
        ({"budget_left": 0.0}, "cascade", "cascade", "local"),
        ({"candidates": (down(LOCAL), PEER, CLOUD)}, "local-unable", "first", "peer"),
    ],
)
def test_adaptive(facts: dict[str, object], why: str, mode: str, first: str) -> None:
    """The first rule that holds decides; its reason is said."""
    decision = decide(replace(ALL, **facts), "adaptive")  # type: ignore[arg-type] # as listed

    assert (decision.why, decision.mode, decision.targets[0]) == (why, mode, first)


def test_a_balanced_request_may_be_moved_by_the_governor() -> None:
    """By its draw; alone on the device there is nowhere to move it."""
    pressed = replace(ALL, cloud_share=0.6, draw=0.5)

    assert decide(pressed, "balanced").targets[0] == "cloud"
    assert decide(replace(pressed, privacy="private"), "balanced").targets == ("local",)
    assert decide(replace(pressed, draw=0.7), "balanced").mode == "balance"


def test_the_stricter_class_wins() -> None:
    """Whoever says it."""
    assert stricter("public", "private", "redact") == "private"
    assert stricter("public", "redact") == "redact"
    assert stricter() == "public"


seconds = st.none() | st.floats(0, 100)
candidates = st.builds(
    Candidate,
    name=st.sampled_from("abcdefgh"),
    place=st.sampled_from(["local", "peer", "cloud"]),
    is_healthy=st.booleans(),
    context=st.integers(0, 100),
    capabilities=st.frozensets(st.sampled_from(["tools", "schema", "pictures"])),
    sees_personal=st.booleans(),
    n_active=st.integers(0, 9),
    most_active=st.integers(0, 4),
    expected=st.builds(Expected, first_s=seconds, token_s=seconds),
    prompt_cost=st.floats(0, 1),
    answer_cost=st.floats(0, 1),
)
situations = st.builds(
    Situation,
    candidates=st.lists(candidates, max_size=5, unique_by=lambda one: one.name).map(tuple),
    privacy=st.sampled_from(["public", "redact", "private"]),
    can_redact=st.booleans(),
    needs=st.frozensets(st.sampled_from(["tools", "schema", "pictures"]), max_size=1),
    prompt_tokens=st.integers(0, 120),
    max_tokens=st.integers(1, 100),
    deadline_s=seconds,
    budget_left=st.none() | st.floats(0, 10),
    power=st.builds(Power, battery=st.none() | st.floats(0, 1), is_plugged=st.booleans()),
    cloud_share=st.floats(0, 1),
    is_handed_on=st.booleans(),
    draw=st.floats(0, 1, exclude_max=True),
    defer=st.sampled_from(["never", "allow", "must"]),
)


@given(now=situations, policy=st.sampled_from(sorted(POLICIES)))
def test_a_private_request_never_leaves_the_device(now: Situation, policy: str) -> None:
    """Whatever the facts and the policy."""
    places = {one.name: one.place for one in now.candidates}

    decision = decide(replace(now, privacy="private"), policy)

    assert {places[name] for name in decision.targets} <= {"local"}


@given(now=situations, policy=st.sampled_from(sorted(POLICIES)))
def test_only_what_can_answer_is_asked(now: Situation, policy: str) -> None:
    """And whatever cannot has its reason."""
    able, passed_over = fitting(now)
    decision = decide(now, policy)

    assert set(decision.targets) <= {one.name for one in able}
    assert set(passed_over) <= set(decision.passed_over)
    assert len(set(decision.targets)) == len(decision.targets)
    assert bool(decision.targets) is (decision.mode not in {"defer", "refuse"})
    if decision.mode in {"race", "hedge", "cascade"}:
        assert len(decision.targets) > 1


@given(now=situations, policy=st.sampled_from(sorted(POLICIES)))
def test_a_decision_can_stand_in_a_header(now: Situation, policy: str) -> None:
    """One line of ASCII, the same for the same facts."""
    decision = decide(now, policy)

    assert decision == decide(now, policy)
    assert isinstance(decision, Decision)
    assert decision.reason.isascii()
    assert decision.reason.isprintable()
    assert decision.why


@given(now=situations)
def test_a_cascade_begins_on_the_device(now: Situation) -> None:
    """It is what the confidence is measured of."""
    places = {one.name: one.place for one in now.candidates}
    for policy in POLICIES:
        decision = decide(now, policy)
        if decision.mode == "cascade":
            assert places[decision.targets[0]] == "local"
            assert any(places[name] != "local" for name in decision.targets)
