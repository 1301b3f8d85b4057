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
    """

    round: int = 0
    taken: int = 0
    size: int = 0


def take(place: Place, n: int, *, available: int, seed: int) -> tuple[list[int], Place]:
    """Return the next examples; a round ends with a smaller batch.

    Args:
        place: where the order is.
        n: most examples to take.
        available: examples that there are now; never fewer than before.
        seed: decides the order of every round.

    Returns:
        numbers: 1 to `n` of them, from 0 on.
        place: after them.

    Raises:
        InputError: if there are no examples, or fewer than there were.
    """
    if place.taken >= place.size:
        new_round = place.round + (1 if place.size else 0)
        place = Place(round=new_round, taken=0, size=available)
    if not 0 < place.size <= available:
        raise InputError(f"there are {available} examples, {max(place.size, 1)} are needed")
    order = np.random.default_rng([seed, place.round]).permutation(place.size)
    numbers = order[place.taken : place.taken + n].tolist()
    return numbers, replace(place, taken=place.taken + len(numbers))
