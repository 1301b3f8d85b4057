"""Who goes when there is no room: the longest unused, none that answers, none that need not."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from onhand.device.serving.models.room import Holder, RoomPlan, budget_bytes, plan_room


def holder(key: str, weights: int, **more: object) -> Holder:
    return Holder(key=key, weights_bytes=weights, **more)  # type: ignore[arg-type] # its fields


def plan(need: int, *holders: Holder, total: int = 100, now: float = 50.0) -> RoomPlan:
    return plan_room(need, holders, total_bytes=total, now_s=now)


def test_where_there_is_room_nothing_goes() -> None:
    """To the last byte."""
    assert plan(40, holder("a", 60, remembered=((1.0, 0),))) == RoomPlan(fits=True)


def test_the_longest_unused_conversations_are_forgotten_first() -> None:
    """Over all models, and no more of them than need be; the models stay."""
    a = holder("a", 30, remembered=((1.0, 10), (4.0, 10)))
    b = holder("b", 30, remembered=((2.0, 10), (3.0, 10)))

    assert plan(20, a, b) == RoomPlan(fits=True, forget={"a": 1, "b": 1})


def test_idle_models_go_where_forgetting_is_not_enough() -> None:
    """The longest unused one; what others remember stays if its going is enough."""
    old = holder("old", 40, used_s=1.0)
    new = holder("new", 40, used_s=2.0, remembered=((0.0, 15),))

    assert plan(30, old, new) == RoomPlan(fits=True, close=("old",))


def test_both_where_neither_is_enough() -> None:
    """A model goes, and as much is forgotten as is still lacking."""
    old = holder("old", 20, used_s=1.0)
    new = holder("new", 40, used_s=2.0, n_leases=1, remembered=((7.0, 20), (8.0, 5)))

    assert plan(45, old, new) == RoomPlan(fits=True, forget={"new": 1}, close=("old",))


def test_a_model_that_answers_is_never_closed() -> None:
    """Nor one that was opened a moment ago: it is known when that ends."""
    busy = holder("busy", 50, n_leases=1, stays_until_s=99.0)
    fresh = holder("fresh", 50, stays_until_s=60.0)

    assert plan(30, busy, fresh) == RoomPlan(fits=False, again_s=60.0)


def test_a_turn_ends_where_nothing_else_helps() -> None:
    """The one that was opened first takes no more requests; nothing is forgotten in vain."""
    first = holder("first", 50, n_leases=2, stays_until_s=10.0, remembered=((1.0, 0),))
    second = holder("second", 50, n_leases=1, stays_until_s=20.0)

    assert plan(30, first, second) == RoomPlan(fits=False, drain=("first",))


def test_what_is_leaving_is_not_replaced() -> None:
    """Its memory is as good as free: nobody else goes for the same request."""
    leaving = holder("leaving", 60, is_leaving=True, n_leases=1)
    idle = holder("idle", 40)

    assert plan(50, leaving, idle) == RoomPlan(fits=True)


def test_a_budget_leaves_a_margin() -> None:
    """A tenth, or a fixed number of bytes where that is more; what is taken stays allowed."""
    assert budget_bytes(1000, taken_bytes=0, margin=0.1, margin_bytes=50) == 900
    assert budget_bytes(1000, taken_bytes=70, margin=0.1, margin_bytes=300) == 770
    assert budget_bytes(10, taken_bytes=70, margin=0.1, margin_bytes=300) == 70


sizes = st.integers(0, 40)
times = st.floats(0, 100)
holders = st.lists(
    st.builds(
        Holder,
        key=st.uuids().map(str),
        weights_bytes=sizes,
        sessions_bytes=sizes,
        remembered=st.lists(st.tuples(times, sizes), max_size=3).map(sorted).map(tuple),
        used_s=times,
        n_leases=st.integers(0, 2),
        stays_until_s=times,
        is_open=st.booleans(),
        is_leaving=st.booleans(),
    ),
    max_size=5,
)


@given(need=st.integers(0, 150), found=holders, total=st.integers(0, 200), now=times)
def test_a_plan_keeps_its_word(need: int, found: Sequence[Holder], total: int, now: float) -> None:
    """What it says fits does fit then, and none goes that answers, stays, or need not go."""
    made = plan_room(need, found, total_bytes=total, now_s=now)
    by_key = {one.key: one for one in found}

    for key in made.close:
        one = by_key[key]
        assert one.is_open
        assert not one.is_leaving
        assert one.n_leases == 0
        assert one.stays_until_s <= now
    if made.fits:
        assert _taken(found, made) + need <= total or (need == 0 and not made.close)
        if made.close:  # without the last of them it would not have fitted, all else forgotten
            fewer = [one for one in found if one.key not in made.close[:-1] and not one.is_leaving]
            assert sum(one.weights_bytes + one.sessions_bytes for one in fewer) + need > total
    else:
        assert not made.close
        assert not made.forget
        assert all(by_key[key].n_leases for key in made.drain)


def _taken(found: Sequence[Holder], made: RoomPlan) -> int:
    taken = 0
    for one in found:
        if not one.is_leaving and one.key not in made.close:
            kept = one.remembered[made.forget.get(one.key, 0) :]
            taken += one.weights_bytes + one.sessions_bytes + sum(size for _, size in kept)
    return taken
