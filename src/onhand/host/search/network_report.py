"""What a search found, as a report holds it: the front, and what each layer's choices lose."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from onhand.core.measurement import Measurement
from onhand.host.costs.networks import AXES_OF_NETWORKS
from onhand.host.search.network_front import Candidate, Space, dominated

__all__ = ["AXES", "front_json", "label_of", "sensitivity_json"]

AXES: Final = ("quality_loss", *AXES_OF_NETWORKS)
"""Names of the measurements along which points lie."""
_MOST_POINTS: Final = 60
_BITS: Final = {"float32": 32, "static-4": 4, "weights-4": 4}


def label_of(one: Candidate) -> str:
    """Return a name for people: what was done before, and how many layers have which choice."""
    counted = Counter(one.choices.values())
    said = ", ".join(f"{n} {choice}" for choice, n in sorted(counted.items()))
    return f"{one.space.base}, {one.space.engine}: {said}"


def front_json(
    front: Sequence[Candidate],
    measured: Mapping[int, Mapping[str, Measurement]],
    chosen: Candidate | None,
) -> dict[str, object]:
    """Return the points of a front, spread evenly where there are many; those built are all there.

    Args:
        front: all candidates.
        measured: place in `front` -> what was measured.
        chosen: the answer; None for none.
    """
    on_front = {i for i, one in enumerate(front) if not any(dominated(one, o) for o in front)}
    ranked = sorted(on_front, key=lambda i: front[i].damage)
    step = max(-(-len(ranked) // _MOST_POINTS), 1)
    shown = {*ranked[::step], *ranked[-1:], *measured}
    shown |= {i for i, one in enumerate(front) if one is chosen}
    points = [
        {
            "label": label_of(front[i]),
            "choices": dict(front[i].choices),
            "predicted": dict(front[i].predicted),
            "measured": None
            if i not in measured
            else {name: measured[i][name].value for name in AXES if name in measured[i]},
            "is_chosen": front[i] is chosen,
            "is_on_front": i in on_front,
        }
        for i in sorted(shown)
    ]
    return {"points": points, "axes": list(AXES)}


def sensitivity_json(space: Space) -> list[dict[str, object]]:
    """Return what each choice of each layer is expected to lose, and takes.

    Args:
        space: of the network as a whole.
    """
    return [
        {
            "group": name,
            "choice": choice,
            "bits": _BITS.get(choice, 8),
            "damage": space.damages.layers[name][choice],
            "size_bytes": space.costs.sizes[name][choice],
        }
        for name, choices in space.choices.items()
        for choice in choices
    ]
