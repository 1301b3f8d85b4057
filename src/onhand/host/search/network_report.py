"""What a search found, as a report holds it: the front, and what each layer's choices lose."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from onhand.core.measurement import Measurement
from onhand.host.costs.networks import AXES_OF_NETWORKS
from onhand.host.search.front import FrontPoint, front_json
from onhand.host.search.network_front import Candidate, Space

__all__ = ["AXES", "label_of", "points_json", "sensitivity_json"]

AXES: Final = ("quality_loss", *AXES_OF_NETWORKS)
"""Names of the measurements along which points lie."""
_MOST_POINTS: Final = 60
_BITS: Final = {"float32": 32, "static-4": 4, "weights-4": 4}


def label_of(one: Candidate) -> str:
    """Return a name for people: what was done before, and how many layers have which choice."""
    counted = Counter(one.choices.values())
    said = ", ".join(f"{n} {choice}" for choice, n in sorted(counted.items()))
    return f"{one.space.base}, {one.space.engine}: {said}"


def points_json(
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
    ranked = sorted(range(len(front)), key=lambda i: front[i].damage)
    step = max(-(-len(ranked) // _MOST_POINTS), 1)
    answer = next((i for i, one in enumerate(front) if one is chosen), None)
    shown = {*ranked[::step], *ranked[-1:], *measured, *([] if answer is None else [answer])}
    points = [
        FrontPoint(
            label=_numbered(i, front[i]),
            choices=dict(front[i].choices),
            predicted=dict(front[i].predicted),
            measured=measured.get(i),
        )
        for i in sorted(shown)
    ]
    label = "" if answer is None else _numbered(answer, front[answer])
    return front_json(points, chosen=label, axes=AXES)


def _numbered(i: int, one: Candidate) -> str:
    return f"{i + 1}: {label_of(one)}"


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
