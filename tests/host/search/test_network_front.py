"""The front over a network's choices, beside all choices there are."""

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.budget import Budget
from onhand.host.costs.networks import Border, EngineCosts, NetworkCosts
from onhand.host.search.network_budget import next_candidate, refuse
from onhand.host.search.network_damage import Damages, LossCurve
from onhand.host.search.network_front import Candidate, Space, candidates, picks_under

NAMES = ("a", "b", "c", "d", "e")
CHOICES = ("float32", "static-8", "weights-8")


def space(
    *,
    gains: tuple[float, ...] = (1.0, 2.0, 0.1, 4.0, 0.5),
    border_s: float = 0.0,
    times: tuple[float, ...] = (4.0, 1.0, 3.0, 2.0, 5.0),
) -> Space:
    """Five layers in a chain: integers are half as slow and a quarter as large."""
    layers_s = {
        "float32": dict(zip(NAMES, times, strict=True)),
        "static-8": {n: t / 2 for n, t in zip(NAMES, times, strict=True)},
        "weights-8": dict(zip(NAMES, times, strict=True)),
    }
    peaks = zip(CHOICES, (9e6, 7e6, 9e6), strict=True)
    whole = {choice: {"peak_memory_bytes": peak} for choice, peak in peaks}
    engine = EngineCosts(
        layers_s=layers_s,
        fixed_s=dict.fromkeys(CHOICES, 0.5),
        whole=whole,
        border_s=border_s,
        value_s=0.0,
        watts=2.0,
        is_estimated=True,
    )
    sizes = {n: {"float32": 400.0, "static-8": 110.0, "weights-8": 105.0} for n in NAMES}
    costs = NetworkCosts(
        shares=dict.fromkeys(NAMES, 0.2),
        sizes=sizes,
        fixed_bytes=50.0,
        borders=tuple(Border(a, b, 10) for a, b in zip(("", *NAMES), NAMES, strict=False)),
        engines={"onnx": engine},
    )
    damages = Damages(
        layers={
            n: {"float32": 0.0, "static-8": 1e-3 * g, "weights-8": 4e-4 * g}
            for n, g in zip(NAMES, gains, strict=True)
        },
        gains={"weights": dict(zip(NAMES, gains, strict=True))},
        measured={},
        corrections={},
        base=0.0,
        seen=(),
        curve=LossCurve(1.0, 0.5),
    )
    return Space(
        base="whole",
        engine="onnx",
        costs=costs,
        damages=damages,
        choices=dict.fromkeys(NAMES, CHOICES),
    )


def everything(where: Space) -> list[tuple[float, float, float]]:
    """Damage, size and time of all choices."""
    found = []
    for picked in product(CHOICES, repeat=len(NAMES)):
        choices = dict(zip(NAMES, picked, strict=True))
        whole = where.costs.whole(choices, "onnx")
        found.append((where.damages.total(choices), whole["size_bytes"], whole["latency_s"]))
    return found


def best_loss(points: list[tuple[float, float, float]], size: float, time: float) -> float:
    """The least damage under two ceilings."""
    return min((d for d, s, t in points if s <= size and t <= time), default=1e9)


def of(found: list[Candidate]) -> list[tuple[float, float, float]]:
    """The same of candidates."""
    return [(c.damage, c.predicted["size_bytes"], c.predicted["latency_s"]) for c in found]


def test_a_whole_network_is_the_sum_of_its_layers_and_borders() -> None:
    """By hand: two borders between integers and float, and the energy of the time."""
    where = space(border_s=0.25)

    whole = where.costs.whole(dict.fromkeys(NAMES, "float32") | {"c": "static-8"}, "onnx")

    assert whole["size_bytes"] == 50 + 4 * 400 + 110
    assert whole["latency_s"] == pytest.approx(4 + 1 + 1.5 + 2 + 5 + 0.5 + 2 * 0.25)
    assert whole["energy_j_per_run"] == pytest.approx(2 * whole["latency_s"])
    assert whole["peak_memory_bytes"] == pytest.approx(0.8 * 9e6 + 0.2 * 7e6)


def test_costs_survive_a_file() -> None:
    """What is kept between searches says the same again."""
    costs = space(border_s=0.1).costs

    assert NetworkCosts.from_json(costs.to_json()) == costs


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.floats(0.01, 10.0)] * 5),
    st.floats(0.0, 2.0),
    st.integers(0, 100),
)
def test_no_ceiling_is_answered_much_worse_than_by_trying_all(
    gains: tuple[float, ...], border_s: float, place: int
) -> None:
    """Points between two of a front's may be missed, points under a ceiling nearly never."""
    where = space(gains=gains, border_s=border_s)
    every = everything(where)
    size = 600 + 14 * place
    time = min(t for _, s, t in every if s <= size) * 1.2

    found = candidates(where) + picks_under(where, size_bytes=size, latency_s=time, memory=None)

    worst = sum(max(d.values()) for d in where.damages.layers.values())
    assert best_loss(of(found), size, time) <= best_loss(every, size, time) + 0.15 * worst


def test_dear_borders_are_not_crossed() -> None:
    """With a toll above all that integers save, a network is on one side or the other."""
    dear = candidates(space(border_s=100.0))
    free = candidates(space(border_s=0.0))

    fastest = min(dear, key=lambda one: one.predicted["latency_s"])
    assert len(set(fastest.choices.values())) == 1
    assert any(0 < list(c.choices.values()).count("static-8") < 5 for c in free)
    for one in dear:
        static = [choice == "static-8" for choice in one.choices.values()]
        crossed = sum(a != b for a, b in pairwise(static))
        assert one.predicted["latency_s"] > 100 * crossed


def test_the_next_build_is_the_least_loss_that_holds() -> None:
    """And once it was built, the next one."""
    front = candidates(space())
    budget = Budget(size_bytes=1000.0)

    first = next_candidate(front, budget, scales={}, tried=[], most_over=0.1)
    assert first is not None
    second = next_candidate(front, budget, scales={}, tried=[first], most_over=0.1)

    assert second is not None
    assert first.predicted["size_bytes"] <= 1000
    assert first.damage <= second.damage
    assert all(c.damage >= first.damage for c in front if c.predicted["size_bytes"] <= 1000)


def test_what_a_build_taught_moves_the_choice() -> None:
    """A forecast that is half of what was measured asks for a faster point."""
    front = candidates(space())
    budget = Budget(latency_s=12.0)

    plain = next_candidate(front, budget, scales={}, tried=[], most_over=0.1)
    slow = next_candidate(front, budget, scales={"latency_s": 1.4}, tried=[], most_over=0.1)

    assert plain is not None
    assert slow is not None
    assert slow.predicted["latency_s"] < plain.predicted["latency_s"]


def test_a_refusal_names_the_ceiling_that_binds() -> None:
    """No size helps where the time cannot be met, and the least time is said."""
    front = candidates(space())
    fastest = min(one.predicted["latency_s"] for one in front)

    found = refuse(front, Budget(size_bytes=1e6, latency_s=fastest / 2))

    assert found is not None
    assert found.key == "latency"
    assert found.reachable == pytest.approx(fastest)
    assert "latency is at most" in found.sentence("a point")
    assert refuse(front, Budget(latency_s=fastest * 1.01)) is None


def test_a_refusal_of_two_ceilings_that_exclude_each_other_names_the_nearer() -> None:
    """Little loss and little size: the one that is missed by less is named."""
    front = candidates(space())
    smallest = min(one.predicted["size_bytes"] for one in front)

    found = refuse(front, Budget(size_bytes=smallest, quality_loss=1e-9))

    assert found is not None
    assert found.key in {"disk", "loss"}
    assert found.nearest in front
