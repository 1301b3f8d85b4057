"""What to change, and why: pure functions from a reading to the next setting.

For every cause of trouble there is a ladder of what is given up, cheapest first; one change at a
time, and time to see what it did before the next. What was given up comes back one by one, the
dearest first, once all causes that might have taken it have been calm for as long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from onhand.device.serving.governor.findings import (
    CAUSES,
    Cause,
    Finding,
    find,
    processors_left,
)
from onhand.device.serving.governor.readings import Readings
from onhand.device.serving.governor.setting import Bounds, GovernorSettings, Kind, Setting

__all__ = ["Change", "Governed", "adjust", "value_of"]

LADDERS: Final[Mapping[Cause, tuple[Kind, ...]]] = {
    "memory": ("context", "batch", "variant", "cloud"),
    "quota": ("speculation", "threads", "cloud"),
    "contention": ("speculation", "threads"),
    "heat": ("speculation", "threads", "cloud", "variant"),
    "battery": ("speculation", "threads", "variant", "cloud"),
    "speed": ("prompts", "batch", "cloud", "variant"),
}
"""Cause -> what is given up for it, in this order. Beside others a thread that gets no core holds
up the rest, or not: fewer threads are tried there, and kept if tokens come sooner."""

# What comes back first hurts users most.
_RETURNS: Final[tuple[Kind, ...]] = (
    "variant",
    "context",
    "cloud",
    "batch",
    "prompts",
    "threads",
    "speculation",
)
_CLOUD_STEP = 0.25
_SMOOTH = 0.4  # of the newest in the mean of what others use
_LEAST_STEP = 0.02
_WORTH = 0.95  # of the time per token before, that a trial must stay within
_PATIENCE = 10.0  # times the dwell, until what failed is tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that was changed.

    Attributes:
        at_s: when, on the readings' clock.
        kind: what.
        before: its value until then.
        after: its value from then on.
        cause: what made it necessary, or had to be calm for it.
        reason: in words.
    """

    at_s: float
    kind: Kind
    before: float
    after: float
    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Fewer threads, tried beside others that compute: whether it helps is seen by what it does.

    Attributes:
        begun_s: when.
        threads: how many there were before.
        drift: how many times as long as at best steps took before; None if it was not measured.
        token_s: as in `Readings`, before.
    """

    begun_s: float
    threads: int
    drift: float | None
    token_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Governed:
    """What is set, and what must be remembered for the next decision.

    Attributes:
        setting: what is set.
        changed_s: when something was changed last; None for never.
        calm_since_s: cause -> since when it has been calm; without those that are not.
        others_cpus: processors that others keep busy, a mean of late readings.
        drift: how many times as long as at best steps take, a mean since the last change.
        trial: of fewer threads, which is not judged yet; None for none.
        failed_s: when a trial failed last; None for never.
        findings: of the last reading.
        change: what the last reading changed; None for nothing.
    """

    setting: Setting
    changed_s: float | None = None
    calm_since_s: Mapping[Cause, float] = field(default_factory=dict)
    others_cpus: float | None = None
    drift: float | None = None
    trial: Trial | None = None
    failed_s: float | None = None
    findings: tuple[Finding, ...] = ()
    change: Change | None = None


def adjust(before: Governed, now: Readings, aims: GovernorSettings, to: Bounds) -> Governed:
    """Decide what a reading changes: at most one thing.

    Between two changes lie `dwell_s`, or `urgent_s` if the second cannot wait. What was given up
    comes back no sooner than `dwell_s` after it, so nothing goes to and fro faster than that.

    Args:
        before: what was set so far.
        now: the reading.
        aims: what is to be kept to.
        to: how far settings may go.

    Returns:
        What is set now, with the change if there is one.
    """
    others_cpus = _smoothed(before.others_cpus, now.others_cpus)
    findings = find(now, before.setting, others_cpus=others_cpus, aims=aims, to=to)
    calm_since_s = {
        one.cause: before.calm_since_s.get(one.cause, now.at_s) for one in findings if one.is_calm
    }
    after = replace(
        before,
        calm_since_s=calm_since_s,
        others_cpus=others_cpus,
        drift=_smoothed(before.drift, now.drift),
        findings=findings,
        change=None,
    )
    since_s = float("inf") if before.changed_s is None else now.at_s - before.changed_s
    change = (
        _judged(after, now, aims)
        or _given_up(after, now, aims, to, since_s)
        or _given_back(after, now, aims, to, since_s)
    )
    if after.trial is not None and now.at_s - after.trial.begun_s >= aims.dwell_s:
        is_failed = change is not None and change.after == after.trial.threads
        failed_s = now.at_s if is_failed else after.failed_s
        after = replace(after, trial=None, failed_s=failed_s)
    if change is None:
        return after
    if change.kind == "threads" and change.cause == "contention" and change.after < change.before:
        trial = Trial(
            begun_s=now.at_s,
            threads=int(change.before),
            drift=after.drift,
            token_s=now.token_s,
        )
        after = replace(after, trial=trial)
    setting = _changed(before.setting, change)
    return replace(after, setting=setting, changed_s=now.at_s, change=change, drift=None)


def _judged(state: Governed, now: Readings, aims: GovernorSettings) -> Change | None:
    """Take fewer threads back that did not make tokens come sooner."""
    trial = state.trial
    if trial is None or now.at_s - trial.begun_s < aims.dwell_s:
        return None
    others = [one for one in state.findings if one.presses and one.cause != "contention"]
    if any("threads" in LADDERS[one.cause] for one in others):
        return None  # fewer are wanted whatever came of it
    ratio = None
    if now.token_s is not None and trial.token_s is not None:
        ratio = now.token_s / max(trial.token_s, 1e-9)
    elif state.drift is not None and trial.drift is not None:
        ratio = state.drift / trial.drift
    if ratio is not None and ratio < _WORTH:
        return None
    shown = "nothing was measured" if ratio is None else f"tokens took {ratio:.2f} times as long"
    reason = f"{shown} with fewer"
    return _change(now, "threads", state.setting.threads, trial.threads, "contention", reason)


def _changed(setting: Setting, change: Change) -> Setting:
    value = change.after
    changed: Mapping[Kind, Setting] = {
        "threads": replace(setting, threads=int(value)),
        "prompts": replace(setting, max_stall=value),
        "batch": replace(setting, max_active=int(value)),
        "context": replace(setting, context=int(value)),
        "variant": replace(setting, variant_step=int(value)),
        "speculation": replace(setting, speculation=value > 0),
        "cloud": replace(setting, cloud_share=value),
    }
    return changed[change.kind]


def value_of(setting: Setting, kind: Kind) -> float:
    """Return what is set of a kind, as a change has it."""
    values: Mapping[Kind, float] = {
        "threads": setting.threads,
        "prompts": setting.max_stall,
        "batch": setting.max_active,
        "context": setting.context,
        "variant": setting.variant_step,
        "speculation": setting.speculation,
        "cloud": setting.cloud_share,
    }
    return float(values[kind])


def _given_up(
    state: Governed, now: Readings, aims: GovernorSettings, to: Bounds, since_s: float
) -> Change | None:
    for one in state.findings:
        if not one.presses or since_s < (aims.urgent_s if one.is_urgent else aims.dwell_s):
            continue
        if state.trial is not None and one.cause in {"speed", "contention"}:
            continue  # what else is changed would hide what it does
        for kind in LADDERS[one.cause]:
            held = value_of(state.setting, kind)
            less = _less(kind, one.cause, state, now, aims, to)
            if abs(less - held) > _LEAST_STEP:
                return _change(now, kind, held, less, one.cause, one.why)
    return None


def _less(
    kind: Kind, cause: Cause, state: Governed, now: Readings, aims: GovernorSettings, to: Bounds
) -> float:
    """Return the next lower value of something; what it is already where there is none."""
    held = state.setting
    if kind == "threads":
        least = min(aims.least_threads, held.threads)
        if cause == "contention":
            return max(_tried_threads(state, now, aims, to), least)
        return max(held.threads - 1, least)
    if kind == "prompts":
        least_stall = min(aims.least_stall, held.max_stall)
        return max(1 + (held.max_stall - 1) / 2, least_stall)
    if kind == "batch":
        return _fewer(held.max_active, cause, now, aims)
    if kind == "context":
        most = held.context or to.context
        halved = max(most // 2, aims.least_context)
        return halved if halved < most else held.context
    if kind == "variant":
        return min(held.variant_step + 1, to.most_variant_step)
    if kind == "speculation":
        return 0.0
    share = min(held.cloud_share + _CLOUD_STEP, aims.most_cloud_share)
    return max(share, held.cloud_share) if to.has_cloud else held.cloud_share


def _tried_threads(state: Governed, now: Readings, aims: GovernorSettings, to: Bounds) -> int:
    """Return with how many threads to try it, as many as there are where it cannot be told."""
    threads = state.setting.threads
    rests_s = float("inf") if state.failed_s is None else now.at_s - state.failed_s
    is_measured = state.drift is not None or now.token_s is not None
    if not is_measured or rests_s < _PATIENCE * aims.dwell_s:
        return threads
    if now.n_active > state.setting.max_active:
        return threads  # a lower limit still takes effect
    if state.others_cpus is None:
        return threads - 1
    return min(int(processors_left(state.others_cpus, to) + 0.4), threads - 1)


def _fewer(max_active: int, cause: Cause, now: Readings, aims: GovernorSettings) -> int:
    # A limit above what runs changes nothing, so it begins there.
    running = max(min(max_active, now.n_active), 1) if now.n_active else max_active
    wanted = running // 2
    if cause == "speed" and now.token_s:
        # A step's time grows less than its answers do, so this is rather too few than too many;
        # not below half at once, since a reading may be a bad moment's.
        wanted = max(min(int(running * aims.token_s / now.token_s), running - 1), running // 2)
    return min(max(wanted, aims.least_active), max_active)


def _further(max_active: int, now: Readings, aims: GovernorSettings) -> int:
    # As many as the target has room for, if time grew as answers do: it grows less.
    wanted = max_active + max(max_active // 4, 1)
    if aims.token_s and now.token_s:
        wanted = int(max_active * aims.token_s / now.token_s)
    return max(max_active + 1, min(wanted, 2 * max_active))


def _given_back(
    state: Governed, now: Readings, aims: GovernorSettings, to: Bounds, since_s: float
) -> Change | None:
    if since_s < aims.dwell_s:
        return None
    for kind in _RETURNS:
        causes = [cause for cause in CAUSES if kind in LADDERS[cause]]
        calm = [state.calm_since_s.get(cause, now.at_s) for cause in causes]
        if any(cause not in state.calm_since_s for cause in causes):
            continue
        if now.at_s - max(calm) < aims.dwell_s:
            continue
        held = value_of(state.setting, kind)
        more = _more(kind, state, now, aims, to)
        if abs(more - held) > 1e-9:
            cause = causes[calm.index(max(calm))]
            reason = f"nothing has pressed for {now.at_s - max(calm):.0f} s"
            return _change(now, kind, held, more, cause, reason)
    return None


def _more(kind: Kind, state: Governed, now: Readings, aims: GovernorSettings, to: Bounds) -> float:
    """Return the next higher value of something, up to the usual one."""
    held, usual = state.setting, to.usual
    if kind == "threads":
        if state.others_cpus is None:
            return min(held.threads + 1, usual.threads)
        left = int(processors_left(state.others_cpus, to) + 0.4)
        return min(max(left, held.threads + 1), usual.threads)
    if kind == "prompts":
        return min(1 + (held.max_stall - 1) * 2, usual.max_stall)
    if kind == "batch":
        return min(_further(held.max_active, now, aims), usual.max_active)
    if kind == "context":
        doubled = held.context * 2
        return doubled if 0 < doubled < to.context else usual.context
    if kind == "variant":
        return max(held.variant_step - 1, usual.variant_step)
    if kind == "speculation":
        return float(usual.speculation)
    return max(held.cloud_share - _CLOUD_STEP, usual.cloud_share)


def _change(
    now: Readings, kind: Kind, before: float, after: float, cause: Cause, why: str
) -> Change:
    return Change(
        at_s=now.at_s,
        kind=kind,
        before=before,
        after=after,
        cause=cause,
        reason=f"{kind} from {before:g} to {after:g}: {why}",
    )


def _smoothed(before: float | None, now: float | None) -> float | None:
    if now is None or before is None:
        return now if before is None else before
    return before + _SMOOTH * (now - before)
