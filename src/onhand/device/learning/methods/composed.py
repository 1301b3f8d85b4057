"""A method made of parts: plain training, and what was added to it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.core.outside import count, object_of, shown
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.methods.batches import check_batch, completed, total_weight
from onhand.device.learning.methods.distilling import Distilling
from onhand.device.learning.methods.elastic import Elastic
from onhand.device.learning.methods.kept import Kept, Part
from onhand.device.learning.methods.orthogonal import Orthogonal
from onhand.device.learning.methods.prototypes import Prototypes
from onhand.device.learning.methods.replaying import Replaying
from onhand.device.learning.methods.soft import Pull, pull_to_given, pulled

__all__ = ["Composed", "Parts"]

_MOST: Final = 2**31
_FACTS: Final = frozenset({"generator", "known", "name", "orthogonal", "session", "width"})
_PARTS: Final = ("memory", "penalty", "previous", "prototypes", "sample")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What is added to plain training.

    Attributes:
        replaying: a memory that is learned from again.
        distilling: the previous version as a teacher.
        elastic: a penalty for what mattered.
        orthogonal: ranks of its own for each session.
        prototypes: a head without training, in place of training.
        asymmetric: whether new examples are told apart among their own classes only.
    """

    replaying: Replaying | None = None
    distilling: Distilling | None = None
    elastic: Elastic | None = None
    orthogonal: Orthogonal | None = None
    prototypes: Prototypes | None = None
    asymmetric: bool = False


class Composed:
    """See `Method`.

    Args:
        name: as it was chosen.
        lesson: what is learned.
        rng: the only source of chance.
        parts: what is added to plain training.
    """

    def __init__(self, name: str, lesson: Lesson, rng: np.random.Generator, parts: Parts) -> None:
        self.name = name
        self._lesson, self._rng, self._parts = lesson, rng, parts
        self._width = self._known = self._session = 0

    @property
    def trains(self) -> bool:
        """See `Method`."""
        return self._parts.prototypes is None

    @property
    def notes(self) -> tuple[str, ...]:
        """What happened in this session that its report should say."""
        lost = self._parts.orthogonal.lost if self._parts.orthogonal else 0.0
        if not lost:
            return ()
        return (
            "no free ranks were left: earlier sessions were merged into fewer, which lost "
            f"{100 * lost:.2g} % of what they had learned (by the norm of its product)",
        )

    def remember(self, teachable: Teachable, values: Values, batch: Feeds, *, width: int) -> None:
        """See `Method`."""
        check_batch(self._lesson, batch, width=width)
        self._take_in(teachable, values, batch, None, width=width)

    def begin(
        self, teachable: Teachable, values: Values, *, width: int, known: int | None = None
    ) -> dict[str, FloatArray]:
        """See `Method`.

        Raises:
            InputError: if it cannot have known so many classes, or a part cannot serve.
        """
        self._width, self._known = width, width if known is None else known
        if not 0 <= self._known <= width:
            raise InputError(f"{known} of {width} classes cannot have been known")
        parts, started = self._parts, dict(values)
        if parts.elastic:
            parts.elastic.consolidate(teachable, values, width=width, rng=self._rng)
        if parts.distilling:
            parts.distilling.begin(values, known=self._known)
        if parts.orthogonal:
            started = parts.orthogonal.begin(values, self._rng)
        self._session += 1
        return started

    def feeds(self, teachable: Teachable, values: Values, batch: Feeds) -> Feeds:
        """See `Method`."""
        check_batch(self._lesson, batch, width=self._width)
        if self._lesson.feeds == "tokens":
            made: Feeds = batch
            if self._parts.distilling:
                made = self._parts.distilling.text(teachable, batch, width=self._width)
        else:
            made = self._with_pulls(teachable, values, completed(batch, width=self._width))
        if self._parts.replaying:
            return self._parts.replaying.mixed(
                teachable,
                values,
                made,
                total=total_weight(batch),
                width=self._width,
                rng=self._rng,
            )
        return made

    def adjust(self, values: Values, gradients: Values) -> dict[str, FloatArray]:
        """See `Method`."""
        made = dict(gradients)
        if self._parts.elastic:
            made = self._parts.elastic.adjust(values, made)
        # Last: what is not this session's has no gradient, whatever else there is.
        if self._parts.orthogonal:
            made = self._parts.orthogonal.adjust(values, made)
        return made

    def hold(self, before: Values, after: Values) -> dict[str, FloatArray]:
        """See `Method`."""
        if self._parts.orthogonal:
            return self._parts.orthogonal.hold(before, after)
        return dict(after)

    def after(
        self,
        teachable: Teachable,
        values: Values,
        batch: Feeds,
        taught: Taught | None,
        *,
        first: bool = True,
    ) -> None:
        """See `Method`."""
        check_batch(self._lesson, batch, width=self._width)
        if first:
            self._take_in(teachable, values, batch, taught, width=self._width)

    def end(self, teachable: Teachable, values: Values) -> dict[str, FloatArray]:
        """See `Method`."""
        parts, width = self._parts, self._width
        if parts.prototypes:
            return parts.prototypes.head(values, width=width)
        if parts.elastic:
            parts.elastic.consolidate(teachable, values, width=width, rng=self._rng)
        if parts.replaying:
            parts.replaying.refresh(teachable, values, session=self._session, width=width)
        return dict(values)

    def save(self) -> Kept:
        """See `Method`."""
        kept, parts = dict[str, Part](), self._parts
        if parts.replaying:
            kept["memory"] = parts.replaying.save()
        if parts.distilling:
            kept["previous"] = parts.distilling.save()
        if parts.elastic:
            kept["penalty"], kept["sample"] = parts.elastic.save()
        if parts.prototypes:
            kept["prototypes"] = parts.prototypes.save()
        facts: dict[str, object] = {
            "generator": json.loads(json.dumps(self._rng.bit_generator.state)),
            "known": self._known,
            "name": self.name,
            "orthogonal": parts.orthogonal.save() if parts.orthogonal else None,
            "session": self._session,
            "width": self._width,
        }
        return Kept(facts=facts, parts=kept)

    def load(self, kept: Kept) -> None:
        """See `Method`.

        Raises:
            InputError: if anything in it is not this method's, or not valid.
        """
        facts = object_of(kept.facts, "the method's state", set(_FACTS))
        if facts.get("name") != self.name:
            raise InputError(
                f"the state is of method {shown(facts.get('name'))}, this is {self.name!r}"
            )
        given = {name: kept.parts[name] for name in _PARTS if name in kept.parts}
        if given.keys() != kept.parts.keys() or given.keys() != self.save().parts.keys():
            raise InputError(f"the method's state has the parts {sorted(kept.parts)}, not its own")
        width, known, session = (
            count(facts, key, "the method's state", least=0, most=_MOST)
            for key in ("width", "known", "session")
        )
        self._load_parts(given, facts.get("orthogonal"))
        self._set_generator(facts.get("generator"))
        self._width, self._known, self._session = width, known, session

    def _load_parts(self, given: Mapping[str, Part], orthogonal: object) -> None:
        """Let each part read its own.

        Raises:
            InputError: if one is not valid.
        """
        parts = self._parts
        if parts.replaying:
            parts.replaying.load(given["memory"])
        if parts.distilling:
            parts.distilling.load(given["previous"])
        if parts.elastic:
            parts.elastic.load(given["penalty"], given["sample"])
        if parts.prototypes:
            parts.prototypes.load(given["prototypes"])
        if parts.orthogonal:
            parts.orthogonal.load(object_of(orthogonal, "the method's ranks", {"taken"}))

    def _set_generator(self, state: object) -> None:
        """Go on with the chance of another process.

        Raises:
            InputError: if it is no state of this kind of generator.
        """
        if not isinstance(state, dict):
            raise InputError("the method's state has no generator")
        try:
            self._rng.bit_generator.state = state
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError("the method's state of its generator is not valid") from error

    def _with_pulls(self, teachable: Teachable, values: Values, feeds: Feeds) -> Feeds:
        """Return a classifier's batch with the losses that its graph does not have."""
        pulls: list[Pull] = []
        if self._parts.distilling:
            pull = self._parts.distilling.pull(teachable, feeds, width=self._width)
            pulls += [pull] if pull else []
        if self._parts.asymmetric:
            pulls.append(pull_to_given(feeds["labels"], width=self._width))
        if not pulls:
            return feeds
        made = pulled(teachable, values, feeds, pulls, width=self._width)
        if self._parts.asymmetric:
            # The graph's own cross-entropy is among all classes.
            made["weights"] = np.zeros_like(made["weights"])
        return made

    def _take_in(
        self,
        teachable: Teachable,
        values: Values,
        batch: Feeds,
        taught: Taught | None,
        *,
        width: int,
    ) -> None:
        """Offer new examples to whatever keeps some."""
        parts = self._parts
        if parts.prototypes:
            parts.prototypes.take(teachable, values, batch, width=width)
        if parts.elastic:
            parts.elastic.offer(batch, self._rng)
        if parts.replaying:
            parts.replaying.offer(
                teachable,
                values,
                batch,
                taught,
                session=self._session,
                width=width,
                rng=self._rng,
            )
