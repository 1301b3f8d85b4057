"""The order in which examples are taken: seeded, and known by its place alone."""

from dataclasses import dataclass, replace

import numpy as np

from onhand.core.errors import InputError

__all__ = ["Place", "take"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far the order has gone; with the seed it says all of what comes next.

    Attributes:
        round: times that all examples were taken.
        taken: examples of this round.
        size: examples that this round has; those that came since belong to the next.
        known: of these, those that were in the round before: the first ones by number.
    """

    round: int = 0
    taken: int = 0
    size: int = 0
    known: int = 0


def take(place: Place, n: int, *, available: int, seed: int) -> tuple[list[int], Place, bool]:
    """Return the next examples: in each round those first that were never taken before.

    Args:
        place: where the order is.
        n: most examples to take; a batch is smaller at the end of a round, and where the examples
            that are new to it end.
        available: examples that there are now; never fewer than before.
        seed: decides the order of every round.

    Returns:
        numbers: 1 to `n` of them, from 0 on.
        place: after them.
        first: whether they are taken for the first time.

    Raises:
        InputError: if there are no examples, or fewer than there were.
    """
    if place.taken >= place.size:
        started = place.round + (1 if place.size else 0)
        place = Place(round=started, taken=0, size=available, known=place.size)
    if not 0 < place.size <= available:
        raise InputError(f"there are {available} examples, {max(place.size, 1)} are needed")
    n_new = place.size - place.known
    draws = np.random.default_rng([seed, place.round])
    order = np.concatenate([
        place.known + draws.permutation(n_new),
        draws.permutation(place.known),
    ])
    first = place.taken < n_new
    end = min(place.taken + n, n_new if first else place.size)
    numbers = order[place.taken : end].tolist()
    return numbers, replace(place, taken=end), first
