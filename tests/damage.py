"""JSON tables that somebody changed: a value, or a key, that does not belong there."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

Place = tuple[str | int, ...]

numbers = (
    st.sampled_from([0, 1, -1, 2, 0.0, -0.0, 0.5, 1.0, 1e-13, 5e-324, 1e300, 2**31, 10**400])
    | st.sampled_from([float("nan"), float("inf"), -float("inf")])
    | st.integers()
    | st.floats()
)
words = st.sampled_from([
    *("default", "linear", "llama3", "yarn", "longrope", "su"),
    *("gelu", "silu", "rms", "layer", "rope", "learned", "llama", "gpt2"),
    *("full_attention", "sliding_attention"),
])
names = words | st.text(max_size=3)
anything = st.recursive(
    st.none() | st.booleans() | numbers | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
plausible = (
    st.none()
    | st.booleans()
    | st.integers(1, 128)
    | st.floats(1e-3, 1e3)
    | words
    | st.lists(st.floats(0.5, 4.0), min_size=4, max_size=4)
    | st.lists(words, min_size=2, max_size=2)
)


def places(value: object) -> list[Place]:
    """The way to every value inside a value."""
    inside: list[tuple[str | int, object]] = []
    if isinstance(value, Mapping | list):
        inside = list(value.items() if isinstance(value, Mapping) else enumerate(value))
    return [(key, *rest) for key, part in inside for rest in ((), *places(part))]


def with_change(value: object, place: Place, fresh: object) -> Any:
    """A copy with another value at one place; what leads there is made where it is missing."""
    if not place:
        return fresh
    key, *rest = place
    if isinstance(key, int):
        items = list(value) if isinstance(value, list) else []
        items += [None] * (key + 1 - len(items))
        return [*items[:key], with_change(items[key], tuple(rest), fresh), *items[key + 1 :]]
    table = value if isinstance(value, Mapping) else {}
    return {**table, key: with_change(table.get(key), tuple(rest), fresh)}


@st.composite
def damaged(
    draw: st.DrawFn, table: Mapping[str, Any], others: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """A table with one or two values changed, or keys missing, or taken from other tables."""
    own, foreign = places(table), [place for other in others for place in places(other)]
    changed = dict(table)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(own) | st.sampled_from(foreign or own))
        first = place[0]
        if len(place) == 1 and first in changed and draw(st.integers(0, 9)) == 0:
            del changed[str(first)]
        else:
            changed = with_change(changed, place, draw(plausible | anything))
    return changed
