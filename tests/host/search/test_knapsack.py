"""Tests of `onhand.host.search.knapsack` and `onhand.host.search.exact`."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.host.search.exact import best_pick, nearest_pick
from onhand.host.search.knapsack import Choice, Group, Pick, hull_front, pick_of, tie_groups

_numbers = st.integers(0, 40).map(float)


@st.composite
def _problems(draw: st.DrawFn, *, n_axes: int = 1) -> list[Group]:
    """Return a few groups with a few choices each."""
    groups: list[Group] = []
    for g in range(draw(st.integers(1, 4))):
        choices = tuple(
            Choice(
                name=f"c{c}",
                damage=draw(_numbers),
                costs=tuple(draw(_numbers) + 1 for _ in range(n_axes)),
            )
            for c in range(draw(st.integers(1, 4)))
        )
        groups.append(Group(f"g{g}", choices))
    return groups


def _all_picks(groups: list[Group]) -> list[Pick]:
    """Return every possible pick, by brute force."""
    return [
        pick_of(groups, {g.name: c.name for g, c in zip(groups, chosen, strict=True)})
        for chosen in itertools.product(*(group.choices for group in groups))
    ]


def _two_groups() -> list[Group]:
    """Return a case that can be checked by hand."""
    return [
        Group(
            "a",
            (
                Choice(name="small", damage=10, costs=(1, 5)),
                Choice(name="large", damage=0, costs=(3, 1)),
            ),
        ),
        Group(
            "b",
            (
                Choice(name="small", damage=4, costs=(1, 1)),
                Choice(name="large", damage=0, costs=(3, 1)),
            ),
        ),
    ]


def test_the_step_that_saves_most_damage_for_its_cost_comes_first() -> None:
    """From cheapest to best, `a` grows first: it saves 5 for each unit, `b` only 2."""
    front = hull_front(_two_groups(), weights=(1, 0))

    assert [(pick.damage, pick.costs[0]) for pick in front] == [(14, 2), (4, 4), (0, 6)]
    assert front[1].choices == {"a": "large", "b": "small"}


@settings(max_examples=60, deadline=None)
@given(groups=_problems())
def test_every_pick_of_the_sweep_minimises_damage_plus_a_price_for_cost(
    groups: list[Group],
) -> None:
    """No pick at all lies below the line through two neighbours of the sweep."""
    front = hull_front(groups)
    everything = _all_picks(groups)

    for left, right in itertools.pairwise(front):
        assert right.damage < left.damage
        assert right.costs[0] > left.costs[0]
        price = (left.damage - right.damage) / (right.costs[0] - left.costs[0])
        best = min(pick.damage + price * pick.costs[0] for pick in everything)
        assert left.damage + price * left.costs[0] <= best + 1e-9


@settings(max_examples=60, deadline=None)
@given(groups=_problems())
def test_the_sweep_goes_from_the_cheapest_to_the_least_damaged_pick(groups: list[Group]) -> None:
    """The ends of the front are the ends of what is possible."""
    front = hull_front(groups)
    everything = _all_picks(groups)

    assert front[0].costs[0] == min(pick.costs[0] for pick in everything)
    assert front[-1].damage == min(pick.damage for pick in everything)


@settings(max_examples=60, deadline=None)
@given(groups=_problems(n_axes=2), first=st.integers(1, 120), second=st.integers(1, 120))
def test_the_exact_pick_is_the_best_of_all_under_two_ceilings(
    groups: list[Group], first: int, second: int
) -> None:
    """Brute force finds nothing better, and nothing where there is nothing."""
    allowed = [p for p in _all_picks(groups) if p.costs[0] <= first and p.costs[1] <= second]

    found = best_pick(groups, most=(first, second))

    if not allowed:
        assert found is None
    else:
        assert found is not None
        assert found.costs[0] <= first
        assert found.costs[1] <= second
        least = min(pick.damage for pick in allowed)
        assert found.damage == least
        # The tie goes to the least first cost.
        assert found.costs[0] == min(p.costs[0] for p in allowed if p.damage == least)


@settings(max_examples=40, deadline=None)
@given(groups=_problems(n_axes=2), seed=st.integers(0, 99))
def test_the_order_of_groups_and_choices_does_not_change_the_exact_pick(
    groups: list[Group], seed: int
) -> None:
    """Ties are settled by names, so a shuffled problem has the same answer."""
    random = np.random.default_rng(seed)
    shuffled = [
        Group(groups[g].name, tuple(groups[g].choices[c] for c in random.permutation(n)))
        for g in random.permutation(len(groups))
        for n in [len(groups[g].choices)]
    ]

    assert best_pick(groups, most=(60, 60)) == best_pick(shuffled, most=(60, 60))


@settings(max_examples=40, deadline=None)
@given(groups=_problems(n_axes=2), first=st.integers(1, 60), second=st.integers(1, 60))
def test_the_nearest_pick_oversteps_its_worst_ceiling_least(
    groups: list[Group], first: int, second: int
) -> None:
    """Brute force finds no pick whose worst excess is smaller."""

    def excess(pick: Pick) -> float:
        return max(pick.costs[0] / first, pick.costs[1] / second) - 1

    found, stated = nearest_pick(groups, most=(first, second))

    assert stated == pytest.approx(excess(found))
    assert stated <= min(map(excess, _all_picks(groups))) + 1e-6


def test_a_ceiling_on_damage_counts_as_well() -> None:
    """A pick that is small enough but too damaged is refused."""
    assert best_pick(_two_groups(), most=(4, None), most_damage=4) is not None
    assert best_pick(_two_groups(), most=(4, None), most_damage=3) is None


def test_tied_groups_share_a_choice_and_add_up() -> None:
    """A tie has the sums of its members, and only the choices that all of them have."""
    groups = _two_groups()
    groups[1] = Group("b", groups[1].choices[1:])

    (tied,) = tie_groups(groups, [("a", "b")])

    assert tied.name == "a + b"
    assert tied.choices == (Choice(name="large", damage=0, costs=(6, 2)),)


def test_an_unknown_tie_is_refused() -> None:
    """A name that no group has is a slip."""
    with pytest.raises(InputError, match="unknown or already tied"):
        tie_groups(_two_groups(), [("a", "x")])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "at least one group"),
        ([Group("a", ())], "at least one choice"),
        ([Group("a", (Choice(name="x", damage=-1, costs=(1,)),))], "at least 0"),
        ([Group("a", (Choice(name="x", damage=float("nan"), costs=(1,)),))], "finite"),
        ([Group("a", (Choice(name="x", damage=0, costs=(1,)),) * 2)], "same name"),
        ([Group("a", (Choice(name="x", damage=0, costs=(1,)),))] * 2, "same name"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(groups: list[Group], message: str) -> None:
    """What cannot be added up is an error, not a wrong answer."""
    with pytest.raises(InputError, match=message):
        hull_front(groups)


def test_many_groups_are_solved_to_a_small_gap() -> None:
    """A hundred groups with ten choices: the exact pick is no worse than the sweep's."""
    random = np.random.default_rng(0)
    groups = [
        Group(
            f"g{g}",
            tuple(
                Choice(
                    name=f"c{bits}",
                    damage=float(random.uniform(0.5, 2) * 4.0**-bits),
                    costs=(float(bits), 1.0),
                )
                for bits in range(2, 12)
            ),
        )
        for g in range(100)
    ]

    found = best_pick(groups, most=(450, None))
    swept = min(p.damage for p in hull_front(groups, weights=(1, 0)) if p.costs[0] <= 450)

    assert found is not None
    assert found.costs[0] <= 450
    assert found.damage <= swept * (1 + 1e-6)
