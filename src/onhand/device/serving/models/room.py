"""How room is made for memory that is wanted: what is forgotten first, and who goes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Holder", "RoomPlan", "budget_bytes", "plan_room"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A model that takes memory.

    Attributes:
        key: which.
        weights_bytes: what it takes when nobody asks it anything.
        sessions_bytes: key/value memory of answers that run.
        remembered: of each conversation that it remembers, when it was used last and its bytes.
        used_s: when it was last asked, or an answer of it ended.
        n_leases: answers that run.
        stays_until_s: it was opened not long ago, and goes no sooner.
        is_open: False while it is opened.
        is_leaving: it is closed as soon as its last answer has ended.
    """

    key: str
    weights_bytes: int
    sessions_bytes: int = 0
    remembered: tuple[tuple[float, int], ...] = ()
    used_s: float = 0.0
    n_leases: int = 0
    stays_until_s: float = 0.0
    is_open: bool = True
    is_leaving: bool = False

    @property
    def remembered_bytes(self) -> int:
        """What it remembers takes."""
        return sum(n_bytes for _, n_bytes in self.remembered)

    @property
    def n_bytes(self) -> int:
        """All that it takes."""
        return self.weights_bytes + self.sessions_bytes + self.remembered_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomPlan:
    """What to do about memory that is wanted.

    Attributes:
        fits: whether there is room once the plan was carried out.
        forget: model -> how many of its remembered conversations to forget, the oldest first.
        close: models to close, none of which answers.
        drain: models that answer, to close when their last answer ended; only where nothing less
            helps.
        again_s: when a model that was opened not long ago may go; None where waiting for that
            is of no use.
    """

    fits: bool
    forget: Mapping[str, int] = field(default_factory=dict)
    close: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    again_s: float | None = None


def budget_bytes(free_bytes: int, *, taken_bytes: int, margin: float, margin_bytes: int) -> int:
    """Return how much all models may take together.

    Args:
        free_bytes: what this process may still take.
        taken_bytes: what they take already.
        margin: share of what is free that is left to others.
        margin_bytes: what is left to others at least.

    Returns:
        At least what is taken: what is there already is not asked back by this.
    """
    left = max(margin_bytes, int(margin * free_bytes))
    return taken_bytes + max(0, free_bytes - left)


def plan_room(
    need_bytes: int, holders: Sequence[Holder], *, total_bytes: int, now_s: float
) -> RoomPlan:
    """Say how room is made: conversations that ended are forgotten first, then idle models go.

    Of both the longest unused ones go, over all models, and none that need not. A model that
    answers is never closed; where room cannot be had otherwise, one whose turn was long enough
    takes no more requests for a while.

    Args:
        need_bytes: what is wanted.
        holders: who takes memory.
        total_bytes: what all of them may take.
        now_s: on the clock of `used_s`.

    Returns:
        The plan; nothing is given up where that would not be enough.
    """
    # What is closed already counts as free here, so that nothing goes in its place.
    staying = [one for one in holders if not one.is_leaving]
    lacking = need_bytes - (total_bytes - sum(one.n_bytes for one in staying))
    if lacking <= 0:
        return RoomPlan(fits=True)
    idle = [one for one in staying if one.is_open and one.n_leases == 0]
    closed = _enough(
        lacking - sum(one.remembered_bytes for one in staying),
        sorted((one for one in idle if one.stays_until_s <= now_s), key=lambda one: one.used_s),
    )
    if closed is not None:
        gone = {one.key for one in closed}
        lacking -= sum(one.n_bytes for one in closed)
        kept = [one for one in staying if one.key not in gone]
        close = tuple(one.key for one in closed)
        return RoomPlan(fits=True, forget=_forgotten(lacking, kept), close=close)
    return _later(lacking, staying, now_s)


def _enough(lacking: int, candidates: Sequence[Holder]) -> list[Holder] | None:
    """Return the first candidates whose going is enough; None if that of all is not.

    What they remember is taken to be forgotten anyway.
    """
    chosen: list[Holder] = []
    for one in candidates:
        if lacking <= 0:
            break
        chosen.append(one)
        lacking -= one.weights_bytes + one.sessions_bytes
    return chosen if lacking <= 0 else None


def _forgotten(lacking: int, holders: Sequence[Holder]) -> dict[str, int]:
    oldest = sorted(
        (used_s, one.key, n_bytes) for one in holders for used_s, n_bytes in one.remembered
    )
    counts: dict[str, int] = {}
    for _, key, n_bytes in oldest:
        if lacking <= 0:
            break
        counts[key] = counts.get(key, 0) + 1
        lacking -= n_bytes
    return counts


def _later(lacking: int, staying: Sequence[Holder], now_s: float) -> RoomPlan:
    """Say whose turn ends, and when to ask again: nothing that can go now is enough."""
    lacking -= sum(one.remembered_bytes for one in staying)
    movable = [one for one in staying if one.is_open]
    over = [one for one in movable if one.stays_until_s <= now_s]
    drained = _enough(lacking, sorted(over, key=lambda one: (one.n_leases > 0, one.stays_until_s)))
    if drained is not None:
        return RoomPlan(fits=False, drain=tuple(one.key for one in drained if one.n_leases))
    coming = [one.stays_until_s for one in movable if one.stays_until_s > now_s]
    return RoomPlan(fits=False, again_s=min(coming, default=None))
