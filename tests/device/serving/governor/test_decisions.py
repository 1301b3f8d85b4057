"""What a reading changes: tables, and bounds that hold whatever is read."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.device.serving.governor.decisions import Change, Governed, adjust
from onhand.device.serving.governor.readings import Readings
from onhand.device.serving.governor.setting import Bounds, GovernorSettings, Kind, Setting

USUAL = Setting(threads=4, max_active=8, max_stall=3.0)
DRAFTS = replace(USUAL, speculation=True)
TO = Bounds(usual=USUAL, processors=4, context=8192, most_variant_step=2, has_cloud=True)
AIMS = GovernorSettings(token_s=0.1, variants=("int4", "int3"))
FINE = Readings(
    at_s=0, token_s=0.05, n_active=8, others_cpus=0.1, memory_pressure=0.0, temperature_c=50
)
NOTHING = Readings(at_s=0)


def after(
    now: Readings,
    setting: Setting = USUAL,
    *,
    aims: GovernorSettings = AIMS,
    to: Bounds = TO,
    changed_s: float | None = None,
) -> Governed:
    """One decision."""
    return adjust(Governed(setting=setting, changed_s=changed_s), now, aims, to)


def walk(
    now: Readings, n: int, *, every_s: float = 1.0, start: Governed | None = None
) -> list[Change]:
    """The changes that n same readings make, one after the other."""
    governed = start or Governed(setting=USUAL)
    found: list[Change] = []
    for i in range(n):
        running = min(now.n_active, governed.setting.max_active)
        reading = replace(now, at_s=now.at_s + i * every_s, n_active=running)
        governed = adjust(governed, reading, AIMS, TO)
        found += [governed.change] if governed.change is not None else []
    return found


@pytest.mark.parametrize(
    ("now", "kind", "value"),
    [
        (FINE, None, 0),
        (NOTHING, None, 0),
        (replace(FINE, memory_pressure=0.5), "context", 4096),
        (replace(FINE, memory_available_bytes=2**20), "context", 4096),
        (replace(FINE, throttled=0.5), "threads", 3),
        (replace(FINE, others_cpus=1.0, drift=1.2), "threads", 3),
        (replace(FINE, others_cpus=2.0, drift=1.2), "threads", 3),
        (replace(FINE, others_cpus=4.0, drift=1.2), "threads", 2),
        (replace(FINE, others_cpus=4.0, token_s=None, drift=None), None, 0),
        (replace(FINE, others_cpus=0.5, drift=1.2), None, 0),
        (replace(FINE, others_cpus=None, waiting_threads=3.0, drift=1.2), "threads", 3),
        (replace(FINE, temperature_c=90), "threads", 3),
        (replace(FINE, temperature_c=None, drift=2.0), "threads", 3),
        (replace(FINE, temperature_c=60, drift=2.0), None, 0),
        (replace(FINE, battery=0.1, is_plugged=False), "threads", 3),
        (replace(FINE, battery=0.1, is_plugged=True), None, 0),
        (replace(FINE, token_s=0.11), "prompts", 2.0),
        (replace(FINE, token_s=0.1), None, 0),
    ],
)
def test_what_is_given_up_first(now: Readings, kind: Kind | None, value: float) -> None:
    """The cheapest thing of the most pressing cause; nothing for what was not read."""
    change = after(now).change

    assert (None if change is None else change.kind) == kind
    assert change is None or change.after == value


def test_the_most_pressing_cause_counts() -> None:
    """Memory comes before heat, heat before speed; every reason says what was read."""
    bad = replace(FINE, memory_pressure=0.4, temperature_c=95, token_s=0.2)
    first, second = (after(now).change for now in (bad, replace(bad, memory_pressure=0)))

    assert first is not None
    assert second is not None
    assert first.reason == "context from 0 to 4096: work waits for memory 40% of the time"
    assert second.reason == "threads from 4 to 3: it is 95 degrees hot"


def test_the_ladder_of_speed() -> None:
    """Shorter steps beside prompts, fewer answers at once, the cloud, smaller variants; no end."""
    changes = walk(replace(FINE, token_s=0.12), 2000)

    kinds = list(dict.fromkeys(change.kind for change in changes))
    assert kinds == ["prompts", "batch", "cloud", "variant"]
    last = {change.kind: change.after for change in changes}
    assert last == {"prompts": 1.25, "batch": 1, "cloud": 0.5, "variant": 2}


@pytest.mark.parametrize(
    ("n_active", "token_s", "left"), [(8, 0.11, 7), (8, 0.15, 5), (8, 0.9, 4), (3, 0.12, 2)]
)
def test_as_few_answers_as_the_target_asks_for(n_active: int, token_s: float, left: int) -> None:
    """In proportion, but at least half of what runs goes on; a limit above it begins there."""
    low = replace(USUAL, max_stall=1.25)
    change = after(replace(FINE, token_s=token_s, n_active=n_active), low).change

    assert change is not None
    assert (change.kind, change.after) == ("batch", left)


def test_one_change_and_then_time_to_see_it() -> None:
    """Half a minute lies between two changes; five seconds where the target is far."""
    slow = walk(replace(FINE, token_s=0.12), 65)
    far = walk(replace(FINE, token_s=0.2), 13)
    near = walk(replace(FINE, token_s=0.12, deadline_s=10), 13)

    assert [change.at_s for change in slow] == [0, 30, 60]
    assert [change.at_s for change in far] == [change.at_s for change in near] == [0, 5, 10]


def test_everything_comes_back_when_it_is_calm() -> None:
    """One by one, the variant first, each after half a minute of calm; then nothing changes."""
    low = Setting(
        threads=1,
        max_stall=1.25,
        max_active=2,
        context=1024,
        variant_step=1,
        cloud_share=0.25,
    )
    start = Governed(setting=low, changed_s=0.0)
    changes = walk(replace(FINE, at_s=1), 900, start=start)

    assert changes[0].kind == "variant"
    assert changes[0].at_s == 31
    gaps = [b.at_s - a.at_s for a, b in pairwise(changes)]
    assert min(gaps) >= 30
    kinds = list(dict.fromkeys(change.kind for change in changes))
    assert kinds == ["variant", "context", "cloud", "batch", "prompts", "threads"]
    last = {change.kind: change.after for change in changes}
    assert last == {
        "variant": 0,
        "context": 0,
        "cloud": 0,
        "batch": 8,
        "prompts": 3,
        "threads": 4,
    }


@pytest.mark.parametrize(
    ("before", "later", "kept"),
    [
        (replace(FINE, token_s=0.09), replace(FINE, token_s=0.07), True),
        (replace(FINE, token_s=0.07), replace(FINE, token_s=0.069), False),
        (replace(FINE, token_s=0.07), replace(FINE, token_s=0.099), False),
        (replace(FINE, token_s=None, drift=2.0), replace(FINE, token_s=None, drift=1.5), True),
        (replace(FINE, token_s=None, drift=2.0), replace(FINE, token_s=None, drift=3.0), False),
        (replace(FINE, token_s=0.09, drift=2.0), replace(FINE, token_s=None, drift=3.0), False),
    ],
)
def test_fewer_threads_beside_others_are_tried_and_judged(
    before: Readings, later: Readings, *, kept: bool
) -> None:
    """They stay if tokens come sooner; else they come back, and are tried again much later."""
    governed = after(replace(before, others_cpus=2.0))
    assert governed.change is not None
    assert governed.change.kind == "threads"
    assert governed.trial is not None

    now = replace(later, at_s=1, others_cpus=2.0)
    changes = walk(now, 300, start=governed)
    if kept:
        assert changes == []
        return
    assert (changes[0].at_s, changes[0].after) == (30, 4)
    assert "times as long with fewer" in changes[0].reason
    assert changes[1:] == []
    assert walk(now, 400, start=governed)[1].at_s == 330


def test_a_trial_is_not_disturbed() -> None:
    """What is too slow meanwhile waits; what presses more does not."""
    governed = after(replace(FINE, others_cpus=2.0))
    slow = replace(FINE, at_s=1, others_cpus=2.0, token_s=0.9)
    changes = walk(slow, 60, start=governed)
    assert [(one.at_s, one.kind) for one in changes][:2] == [(30, "threads"), (35, "prompts")]

    hot = walk(replace(slow, temperature_c=99), 60, start=governed)
    assert [(one.at_s, one.kind, one.cause) for one in hot][:1] == [(30, "threads", "heat")]
    short = walk(replace(slow, memory_pressure=0.9), 60, start=governed)
    assert [(one.at_s, one.kind) for one in short][:1] == [(5, "context")]


def test_a_trial_without_requests_is_taken_back() -> None:
    """Where nothing was measured, nothing is known in its favour."""
    governed = after(replace(FINE, others_cpus=2.0))
    idle = replace(FINE, at_s=1, others_cpus=2.0, drift=None, token_s=None, n_active=0)

    assert [change.after for change in walk(idle, 400, start=governed)] == [4]


@pytest.mark.parametrize(("token_s", "more"), [(0.05, 4), (0.059, 3), (0.01, 4), (None, 3)])
def test_as_many_answers_come_back_as_the_target_has_room_for(
    token_s: float | None, more: int
) -> None:
    """At most twice as many, and one at least; one where nothing is measured."""
    low = Governed(setting=replace(USUAL, max_active=2), changed_s=-100.0)
    n_active = 0 if token_s is None else 2
    changes = walk(replace(FINE, token_s=token_s, n_active=n_active), 40, start=low)

    assert (changes[0].kind, changes[0].after) == ("batch", more)


def test_between_the_thresholds_nothing_changes() -> None:
    """Neither fast enough to take more on, nor too slow."""
    low = Governed(setting=replace(USUAL, max_active=4), changed_s=-100.0)

    assert walk(replace(FINE, token_s=0.08), 200, start=low) == []
    assert walk(replace(FINE, token_s=0.05), 200, start=low) != []


def test_what_was_slow_waits_for_others_to_leave() -> None:
    """Without requests nothing is measured: only once others leave, more is tried."""
    low = Governed(setting=replace(USUAL, threads=2, max_active=2), changed_s=-100.0)
    idle = replace(FINE, token_s=None, n_active=0)

    assert walk(replace(idle, others_cpus=3.0), 200, start=low) == []
    assert {change.kind for change in walk(idle, 400, start=low)} == {"batch", "threads"}


@pytest.mark.parametrize(
    "now",
    [
        replace(FINE, throttled=0.5),
        replace(FINE, others_cpus=3.0),
        replace(FINE, temperature_c=95),
        replace(FINE, battery=0.1, is_plugged=False),
    ],
)
def test_drafts_are_given_up_first_and_come_back_last(now: Readings) -> None:
    """They compute tokens that may be of no use; where nothing presses they are free."""
    to = replace(TO, usual=DRAFTS)
    governed = adjust(Governed(setting=DRAFTS), now, AIMS, to)
    assert governed.change is not None
    assert (governed.change.kind, governed.setting.speculation) == ("speculation", False)

    for i in range(200):
        governed = adjust(governed, replace(FINE, at_s=1.0 + i), AIMS, to)
    assert governed.setting == DRAFTS


def test_without_a_target_speed_changes_nothing() -> None:
    """However slow it is."""
    assert after(replace(FINE, token_s=60.0), aims=replace(AIMS, token_s=0.0)).change is None


def test_without_a_cloud_or_variants_there_is_nothing_to_give() -> None:
    """The ladder ends with what there is."""
    alone = replace(TO, has_cloud=False, most_variant_step=0)
    low = replace(USUAL, max_stall=1.25, max_active=1)

    assert after(replace(FINE, token_s=0.5), low, to=alone).change is None


some = st.one_of(st.none(), st.floats(0, 1))
readings = st.builds(
    Readings,
    at_s=st.just(0.0),
    cpu_pressure=some,
    memory_pressure=some,
    others_cpus=st.one_of(st.none(), st.floats(0, 64)),
    waiting_threads=st.one_of(st.none(), st.floats(0, 64)),
    stolen=some,
    throttled=some,
    n_runnable=st.one_of(st.none(), st.integers(0, 1000)),
    memory_available_bytes=st.one_of(st.none(), st.integers(0, 2**40)),
    temperature_c=st.one_of(st.none(), st.floats(-40, 200)),
    battery=some,
    is_plugged=st.one_of(st.none(), st.booleans()),
    n_active=st.integers(0, 64),
    n_waiting=st.integers(0, 64),
    tokens_per_s=st.one_of(st.none(), st.floats(0, 1e4)),
    token_s=st.one_of(st.none(), st.floats(0, 60)),
    drift=st.one_of(st.none(), st.floats(0.01, 100)),
    deadline_s=st.one_of(st.none(), st.floats(-10, 600)),
)


@settings(max_examples=40, deadline=None)
@given(
    seen=st.lists(st.tuples(readings, st.floats(0.1, 20)), max_size=60),
    least_threads=st.integers(1, 6),
    least_active=st.integers(1, 12),
)
def test_bounds_hold_and_nothing_goes_to_and_fro(
    seen: list[tuple[Readings, float]], least_threads: int, least_active: int
) -> None:
    """Whatever is read: within the bounds, one step at a time, and back no sooner than dwell."""
    aims = replace(AIMS, least_threads=least_threads, least_active=least_active)
    governed, now_s = Governed(setting=USUAL), 0.0
    given_up_s: dict[Kind, float] = {}
    last_s = float("-inf")
    for reading, wait_s in seen:
        now_s += wait_s
        before = governed.setting
        governed = adjust(governed, replace(reading, at_s=now_s), aims, TO)
        held, change = governed.setting, governed.change

        assert min(least_threads, 4) <= held.threads <= 4
        assert min(least_active, 8) <= held.max_active <= 8
        assert 1.25 <= held.max_stall <= 3
        assert held.context == 0 or 1024 <= held.context < 8192
        assert 0 <= held.variant_step <= 2
        assert 0 <= held.cloud_share <= 0.5
        if change is None:
            assert held == before
            continue
        assert change.reason
        assert now_s - last_s >= aims.urgent_s
        last_s = now_s
        if is_given_up(change):
            given_up_s[change.kind] = now_s
        else:
            assert now_s - given_up_s.get(change.kind, float("-inf")) >= aims.dwell_s


def is_given_up(change: Change) -> bool:
    """Whether a change asks less of the device; a context of 0 has no ceiling."""
    if change.kind in {"variant", "cloud"}:
        return change.after > change.before
    if change.kind == "context":
        return change.before == 0 or 0 < change.after < change.before
    return change.after < change.before
