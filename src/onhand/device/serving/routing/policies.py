"""Routing policies: pure functions of a situation.

| policy | asks |
|---|---|
| `balanced` | the device and peers by their load, clouds where those are full or fail |
| `local-only` | the device alone |
| `local-first` | the device; others where it cannot answer or fails |
| `cloud-first` | clouds, then peers, then the device |
| `cheapest` | whoever costs least; the device costs nothing |
| `fastest` | whoever should have answered first, the wait for a place included |
| `hedge` | as `fastest`, and the next one beside it where that is slower than usual |
| `race` | the device and the best of the others at once; the first content wins |
| `cascade` | the device, and the others where its answer is unsure |
| `adaptive` | see `adaptive` |

Before any of them, `fitting` passes over what cannot or must not answer: a private request never
leaves the device, whatever the policy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from onhand.core.errors import InputError
from onhand.core.tables import unknown
from onhand.device.serving.asks import Route
from onhand.device.serving.routing.situation import Candidate, Decision, Mode, Situation

__all__ = ["LOW_BATTERY", "POLICIES", "Policy", "check_policy", "decide", "fitting"]

Policy = Callable[[Situation, Sequence[Candidate]], Decision]
"""Chooses among those that can answer; there is at least one."""

LOW_BATTERY: Final = 0.2
"""Charge below which a device that is not plugged in saves its own work."""

# What passes: asking again later may help. All else stays as long as the request is the same.
_PASSING: Final = frozenset({"unreachable", "budget"})
_NEAR_FIRST: Final[Mapping[Route, int]] = {"local": 0, "peer": 1, "cloud": 2}


def decide(now: Situation, policy: str) -> Decision:
    """Say who answers.

    Args:
        now: the facts.
        policy: its name, one of `POLICIES`.

    Returns:
        The decision; the same for the same facts.

    Raises:
        InputError: if there is no such policy.
    """
    check_policy(policy)
    able, passed_over = fitting(now)
    reasons = {name: reason for name, (_, reason) in passed_over.items()}
    if policy == "local-only":
        for one in able:
            if one.place != "local":
                passed_over[one.name] = ("policy", "local-only")
                reasons[one.name] = "the policy asks the device alone"
        able = [one for one in able if one.place == "local"]
    kinds = {kind for kind, _ in passed_over.values()}
    if not able and not kinds & _PASSING:
        return _refused(passed_over, reasons)
    if now.defer == "must":
        return Decision(
            mode="defer", reason="the request asks to be answered later", why="asked",
            passed_over=reasons,
        )  # fmt: skip
    if not able and now.defer == "allow":
        return Decision(
            mode="defer",
            reason=f"nobody can answer now: {_told(reasons)}",
            why=min(kinds & _PASSING),
            passed_over=reasons,
        )
    if not able:
        return _refused(passed_over, reasons)
    return replace(POLICIES[policy](now, able), passed_over=reasons)


def check_policy(name: str) -> None:
    """Refuse the name of a policy that there is not.

    Raises:
        InputError: with the nearest one.
    """
    if name not in POLICIES:
        raise InputError(unknown("policy", name, POLICIES))


def fitting(now: Situation) -> tuple[list[Candidate], dict[str, tuple[str, str]]]:
    """Part what can answer from what cannot.

    Args:
        now: the facts.

    Returns:
        able: those that can, in their order.
        passed_over: name -> the reason's kind and the reason, of those that cannot.
    """
    able: list[Candidate] = []
    passed_over: dict[str, tuple[str, str]] = {}
    for one in now.candidates:
        found = _why_not(now, one)
        if found is None:
            able.append(one)
        else:
            passed_over[one.name] = found
    return able, passed_over


def _why_not(now: Situation, one: Candidate) -> tuple[str, str] | None:
    if one.place != "local" and now.privacy == "private":
        return "privacy", "the request is private"
    must_redact = one.place != "local" and now.privacy == "redact" and not one.sees_personal
    if must_redact and not now.can_redact:
        return "privacy", "nothing here redacts personal data"
    if one.place == "peer" and now.is_handed_on:
        # Two devices that name each other would hand it to and fro.
        return "hops", "another device handed the request on"
    lacking = now.needs - one.capabilities
    if lacking:
        return "capability", f"it lacks {', '.join(sorted(lacking))}"
    # At least one token of an answer must have room; a shorter answer than wished is no refusal.
    if one.context and now.prompt_tokens >= one.context:
        return "context", f"the prompt exceeds its context of {one.context} tokens"
    if not one.is_healthy:
        return "unreachable", "it does not answer its health checks"
    cost = one.cost(now.prompt_tokens, now.max_tokens)
    if now.budget_left is not None and cost > now.budget_left and cost > 0:
        return "budget", "the budget is spent"
    return None


def _refused(passed_over: Mapping[str, tuple[str, str]], reasons: Mapping[str, str]) -> Decision:
    kinds = {kind for kind, _ in passed_over.values()}
    return Decision(
        mode="refuse",
        reason=f"nobody can answer: {_told(reasons)}",
        why=min(kinds & _PASSING or kinds or {"nobody"}),
        passed_over=reasons,
        is_passing=bool(kinds & _PASSING),
    )


def _told(reasons: Mapping[str, str]) -> str:
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return told or "there is no backend"


def _local_first(now: Situation, able: Sequence[Candidate]) -> Decision:
    near = _by_nearness(now, able)
    if near[0].place == "local":
        return _first(near, "the device can answer", "local")
    return _first(near, "the device cannot answer this", "local-unable")


def _balanced(now: Situation, able: Sequence[Candidate]) -> Decision:
    away = [one for one in able if one.place != "local"]
    if away and now.draw < now.cloud_share:
        away_first = _cloud_first(now, able)
        return replace(away_first, reason="the device is under load", why="governor")
    return _first(_by_nearness(now, able), "whoever has room", "load", "balance")


def _local_only(now: Situation, able: Sequence[Candidate]) -> Decision:
    return _first(able, "the policy asks the device alone", "policy")


def _cloud_first(now: Situation, able: Sequence[Candidate]) -> Decision:
    order = sorted(able, key=lambda one: (-_NEAR_FIRST[one.place], *_speed(now, one)))
    if order[0].place == "local":
        return _first(order, "nothing beyond the device can answer", "remote-unable")
    return _first(order, "the policy prefers the cloud", "policy")


def _cheapest(now: Situation, able: Sequence[Candidate]) -> Decision:
    def key(one: Candidate) -> tuple[float, ...]:
        cost = one.cost(now.prompt_tokens, now.max_tokens)
        return (cost, _NEAR_FIRST[one.place], *_speed(now, one))

    return _first(sorted(able, key=key), "it costs least", "cost")


def _fastest(now: Situation, able: Sequence[Candidate]) -> Decision:
    return _first(_by_speed(now, able), "it should answer first", "speed")


def _hedge(now: Situation, able: Sequence[Candidate]) -> Decision:
    order = _by_speed(now, able)
    mode: Mode = "hedge" if len(order) > 1 else "first"
    return _first(order, "it should answer first", "speed", mode)


def _race(now: Situation, able: Sequence[Candidate]) -> Decision:
    here = [one for one in able if one.place == "local"]
    away = [one for one in _by_speed(now, able) if one.place != "local"]
    if here and away:
        return _first([here[0], away[0]], "the first content wins", "race", "race")
    return _first(here or away, "there is nobody to race against", "alone")


def _cascade(now: Situation, able: Sequence[Candidate]) -> Decision:
    order = _by_nearness(now, able)
    places = {one.place for one in order}
    if "local" not in places:
        return _first(order, "the device cannot answer this", "local-unable")
    if places == {"local"}:
        return _first(order, "nothing beyond the device can answer", "remote-unable")
    return _first(order, "the device answers where it is sure", "cascade", "cascade")


def adaptive(now: Situation, able: Sequence[Candidate]) -> Decision:
    """Combine what is known; the first that holds decides.

    1. Only one side can answer: that one.
    2. The battery is low and the device not plugged in: elsewhere first, to spare it.
    3. The device would miss the deadline and another would not: the fastest, hedged.
    4. The governor sends a share elsewhere, and this request is drawn for it: elsewhere first.
    5. The device answers where it is sure, and another where it is not: a cascade; where the
       deadline leaves no time for two answers in a row, a race.

    Args:
        now: the facts.
        able: those that can answer.

    Returns:
        The decision.
    """
    places = {one.place == "local" for one in able}
    if len(places) == 1:
        return _local_first(now, able)
    power = now.power
    if power.battery is not None and not power.is_plugged and power.battery < LOW_BATTERY:
        return replace(_cloud_first(now, able), reason="the battery is low", why="battery")
    here = [one for one in able if one.place == "local"]
    away = [one for one in able if one.place != "local"]
    if now.deadline_s is not None:
        here_s, away_s = (_soonest_s(now, side) for side in (here, away))
        if here_s is not None and here_s > now.deadline_s and (away_s or 0) <= now.deadline_s:
            late = "the device would miss the deadline"
            return replace(_hedge(now, able), reason=late, why="deadline")
    if now.draw < now.cloud_share:
        away_first = _cloud_first(now, able)
        return replace(away_first, reason="the device is under load", why="governor")
    if now.deadline_s is not None:
        both_s = [_soonest_s(now, side) for side in (here, away)]
        if sum(one or 0.0 for one in both_s) > now.deadline_s:
            return replace(_race(now, able), reason="too late for two in a row", why="deadline")
    return _cascade(now, able)


POLICIES: Final[Mapping[str, Policy]] = {
    "balanced": _balanced,
    "local-only": _local_only,
    "local-first": _local_first,
    "cloud-first": _cloud_first,
    "cheapest": _cheapest,
    "fastest": _fastest,
    "hedge": _hedge,
    "race": _race,
    "cascade": _cascade,
    "adaptive": adaptive,
}
"""Name -> policy."""


def _first(order: Sequence[Candidate], reason: str, why: str, mode: Mode = "first") -> Decision:
    return Decision(mode=mode, targets=tuple(one.name for one in order), reason=reason, why=why)


def _by_nearness(now: Situation, able: Sequence[Candidate]) -> list[Candidate]:
    return sorted(able, key=lambda one: (_NEAR_FIRST[one.place], *_speed(now, one)))


def _by_speed(now: Situation, able: Sequence[Candidate]) -> list[Candidate]:
    return sorted(able, key=lambda one: (*_speed(now, one), _NEAR_FIRST[one.place]))


def _speed(now: Situation, one: Candidate) -> tuple[float, float]:
    # What was never asked counts as fast: otherwise it would never be asked, and never known.
    answer_s = one.answer_s(now.max_tokens)
    return (0.0 if answer_s is None else answer_s, one.n_active)


def _soonest_s(now: Situation, side: Sequence[Candidate]) -> float | None:
    known = [s for one in side if (s := one.answer_s(now.max_tokens)) is not None]
    return min(known) if known else None
