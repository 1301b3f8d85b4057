"""Tests of `onhand.host.search.planner` and `onhand.host.search.search`, without a model."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import pytest

from onhand.core.budget import Budget, parse_budget
from onhand.core.errors import BudgetExceeded
from onhand.core.measurement import Measurement
from onhand.core.progress import Quiet
from onhand.core.quantized import GroupFormat
from onhand.host.search.cost_table import CostTable, as_cost, cost_table
from onhand.host.search.knapsack import Choice, Group
from onhand.host.search.planner import Planner
from onhand.host.search.search import Search, plan_search

pytest.importorskip("scipy", reason="exact points: needs onhand[host]")

NAMES = ("size_bytes", "peak_memory_bytes", "decode_tokens_per_s", "energy_j_per_token")
FORMS = {bits: GroupFormat(bits=bits) for bits in (2, 4, 8)}
MATRICES = {"embed": 400.0, "layers.0.down": 100.0, "layers.0.qkv": 100.0}
# What a matrix loses at 2 bits; a sixteenth at 4, and of that 1/256 at 8.
DAMAGES = {"embed": 0.4, "layers.0.down": 0.8, "layers.0.qkv": 0.05}


@dataclass(frozen=True)
class Forecast:
    """Figures of a whole."""

    bits: float
    spread: Mapping[str, float]

    def figures(self) -> dict[str, float]:
        """Name -> value."""
        return {
            "size_bytes": 1000 + self.bits / 8,
            "peak_memory_bytes": 5000 + self.bits / 4,
            "decode_tokens_per_s": 1 / (0.01 + self.bits * 1e-5),
            "energy_j_per_token": self.bits * 1e-3,
        }


@dataclass(frozen=True)
class Linear:
    """A cost model in which every bit counts alike."""

    spread: float = 0.0

    def whole(self, formats: Mapping[str, GroupFormat | None]) -> Forecast:
        """See `Costs`."""
        bits = sum(MATRICES[name] * (32 if f is None else f.bits) for name, f in formats.items())
        return Forecast(bits, dict.fromkeys(NAMES, self.spread))

    def factorised(self, ranks: Mapping[str, int]) -> "Linear":
        """See `Costs`."""
        raise NotImplementedError(ranks)


def table(spread: float = 0.0) -> CostTable:
    """The costs of three matrices."""
    return cost_table(Linear(spread), {name: list(FORMS.values()) for name in MATRICES}, NAMES)


def planner(budget: str, *, spread: float = 0.0) -> Planner:
    """A planner for three matrices."""
    costs = table(spread)
    groups = [
        Group(
            name,
            tuple(
                Choice(
                    name=f"int{bits} g32",
                    damage=DAMAGES[name] * 16.0 ** (1 - bits / 2),
                    costs=costs.each[name][f"int{bits} g32"],
                )
                for bits in FORMS
            ),
        )
        for name in MATRICES
    ]
    return Planner(
        groups=groups,
        members={name: [name] for name in MATRICES},
        table=costs,
        budget=parse_budget(budget),
        observations=[],
        label=lambda choices: "-".join(form[3] for form in choices.values()),
    )


def figures_of(made: Planner, choices: Mapping[str, str], *, by: float = 1.0) -> dict[str, float]:
    """What a device measures: `by` times the costs, and the damage as it is."""
    found = made.table.figures(choices)
    damage = sum(
        next(c.damage for c in g.choices if c.name == choices[g.name]) for g in made.groups
    )
    costs = {name: as_cost(name, by * as_cost(name, value)) for name, value in found.items()}
    return costs | {"kl_divergence": damage, "perplexity_increase": damage}


def measured(
    made: Planner, choices: Mapping[str, str], *, by: float = 1.0
) -> dict[str, Measurement]:
    """The same as measurements."""
    return {
        name: Measurement(name=name, value=value, unit="one", samples=1, spread=0.0, how="")
        for name, value in figures_of(made, choices, by=by).items()
    }


def test_costs_add_up_to_the_whole() -> None:
    """Every sum of the table is what the cost model says of the whole."""
    costs = table()
    choices = {"embed": "int8 g32", "layers.0.down": "int2 g32", "layers.0.qkv": "int4 g32"}

    whole = Linear().whole({"embed": FORMS[8], "layers.0.down": FORMS[2], "layers.0.qkv": FORMS[4]})
    assert costs.figures(choices) == pytest.approx(whole.figures())
    assert min(min(cost) for own in costs.each.values() for cost in own.values()) >= 0


def test_the_best_point_under_every_ceiling_is_proposed() -> None:
    """1200 bytes hold int2 throughout and 4 more bits for one of the small ones: the worse."""
    made = planner("disk=1200,ram=1MiB")

    pick = made.propose()

    assert pick is not None
    assert pick.choices == {
        "embed": "int2 g32", "layers.0.down": "int4 g32", "layers.0.qkv": "int4 g32",
    }  # fmt: skip
    assert made.refusal() is None


def test_where_quality_alone_is_limited_the_smallest_point_is_proposed() -> None:
    """Nothing smaller is good enough."""
    made = planner("quality=6%")

    pick = made.propose()

    assert pick is not None
    size = made.point(pick).predicted["size_bytes"]
    for other, point in made.front():
        if point.predicted["perplexity_increase"] <= 0.06:
            assert other.choices == pick.choices or point.predicted["size_bytes"] >= size


@pytest.mark.parametrize(
    ("budget", "binding", "said"),
    [
        ("disk=1100", ("disk",), "disk: at most 1.1 KiB allowed, the best that can be reached"),
        ("disk=1MiB,decode=99/s", ("decode",), "decode: at least 99.0 tokens/s allowed"),
        ("disk=1MiB,quality=0.01%", ("quality",), "quality: at most +0.01% perplexity allowed"),
        ("ram=1MiB,disk=1200,quality=1%", ("disk", "quality"), "cannot hold together"),
    ],
)
def test_a_budget_that_cannot_hold_names_what_binds(
    budget: str, binding: tuple[str, ...], said: str
) -> None:
    """One limit alone, or the smallest set that cannot hold together; and the nearest point."""
    made = planner(budget)

    refusal = made.refusal()

    assert refusal is not None
    assert refusal.binding == binding
    sentence = refusal.sentence(made.budget.limits())
    assert said in sentence
    assert "the nearest point has" in sentence


def test_a_forecast_in_doubt_refuses_nothing_that_may_hold() -> None:
    """A speed 30 % out of reach, by a forecast that may be off by half, is tried."""
    assert planner("decode=60/s").refusal() is not None
    made = planner("decode=60/s", spread=0.5)

    assert made.refusal() is None
    assert made.propose() is not None


def test_what_is_measured_corrects_the_next_proposal() -> None:
    """Twice the time of the forecast: what was fast enough is not, and a smaller one is built."""
    made = planner("decode=35/s", spread=0.6)
    first = made.propose()
    assert first is not None

    made.observe(first, measured(made, made.choices(first), by=1.3))
    second = made.propose()

    assert second is not None
    assert second.costs[0] < first.costs[0]
    told = made.point(first).predicted["decode_tokens_per_s"]
    assert told == pytest.approx(
        figures_of(made, made.choices(first), by=1.3)["decode_tokens_per_s"]
    )


@pytest.mark.parametrize("by", [1.0, 1.04, 1.2])
@pytest.mark.parametrize("budget", ["decode=35/s,disk=2KiB", "energy=3mJ,quality=20%", "ram=5.5kB"])
def test_what_a_search_accepts_holds_its_budget(budget: str, by: float) -> None:
    """However far the forecast is off, the figures that are measured hold; or it is refused."""
    made = planner(budget, spread=0.3)

    def measure(choices: Mapping[str, str]) -> dict[str, Measurement]:
        return measured(made, choices, by=by)

    search = Search(planner=made, measure=measure, accept_estimates=False, progress=Quiet())
    found = None
    with suppress(BudgetExceeded):
        found = search.run()

    holding = [one for one in search.built if not one.breaches]
    assert (found is None) == (not holding)
    if found is not None:
        assert made.budget.breaches(found.measured.values()) == []
    assert len(search.built) <= 6


def test_a_point_that_fails_when_measured_again_is_given_up() -> None:
    """Another one is found, or the search says so."""
    made = planner("disk=1300")

    def measure(choices: Mapping[str, str]) -> dict[str, Measurement]:
        return measured(made, choices)

    search = Search(planner=made, measure=measure, accept_estimates=False, progress=Quiet())
    first = search.run()
    search.reject(first, measured(made, made.choices(first.pick), by=1.1))
    second = search.run()

    assert second.pick.choices != first.pick.choices
    assert second.measured["size_bytes"].value < first.measured["size_bytes"].value


def test_variants_are_smaller_and_larger_points() -> None:
    """The running device may step down and up."""
    made = planner("disk=1300")
    search = Search(
        planner=made,
        measure=lambda choices: measured(made, choices),
        accept_estimates=False,
        progress=Quiet(),
    )
    chosen = search.run().pick

    down, up = search.steps(chosen, n_variants=3)

    size = [one.costs[0] for one in (down, chosen, up)]
    assert size[0] < size[1] < size[2]
    assert down.damage > chosen.damage > up.damage


def test_a_plan_is_the_front_and_the_point_that_would_be_built() -> None:
    """Every point of the sweep is in it, and the chosen one; as JSON too."""
    made = planner("disk=1200")

    plan = plan_search(made)

    assert plan.refusal is None
    assert plan.chosen in {point.label for point in plan.points}
    table = plan.to_json()
    assert table["chosen"] == "2-4-4"
    assert table["binding"] == []
    none = plan_search(planner("disk=1100"))
    assert (none.chosen, none.to_json()["binding"]) == ("", ["disk"])


def test_a_budget_without_limits_is_held_by_the_best_point() -> None:
    """There is nothing to trade."""
    made = planner("disk=1MiB")
    made.budget = Budget(size_bytes=1e9)

    pick = made.propose()

    assert pick is not None
    assert set(pick.choices.values()) == {"int8 g32"}
