"""Preferences beside any method: what was liked gets likelier than what was not.

Source:
    DPO, arXiv:2305.18290; KTO, arXiv:2402.01306.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.like_lengths import answered_rows
from onhand.device.learning.methods.base import Method
from onhand.device.learning.methods.kept import Kept, Part
from onhand.device.learning.preference_feeds import TEXTS, OpinionSource, PreferenceSource
from onhand.device.learning.preferences import Judged, Preferring, by_opinions, by_pairs

__all__ = ["PreferenceMethod", "Preferred", "text_logprobs"]

_PART: Final = "references"
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferred:
    """How a batch was judged, before its step.

    Attributes:
        loss: mean of its pairs or opinions.
        margin: mean reward of the liked answers less that of the others; NaN where one kind is
            missing.
        right: share of the pairs whose liked answer has the larger reward; of opinions, those
            whose reward has the right sign against the model's drift.
    """

    loss: float
    margin: float
    right: float


class PreferenceMethod:
    """A method, whose batches are liked and disliked answers. See `Method`.

    Attributes:
        inner: keeps the rest from being forgotten.
        preferred: of the last batch; None before the first one.
    """

    def __init__(self, inner: Method, source: PreferenceSource, how: Preferring) -> None:
        """Wrap a method.

        Args:
            inner: keeps the rest from being forgotten.
            source: of all batches.
            how: the settings.

        Raises:
            InputError: if the method learns without gradients.
        """
        if not inner.trains:
            raise InputError(f"{inner.name} learns no preferences: it makes no gradients")
        self.inner, self._source, self._how = inner, source, how
        self._references: FloatArray | None = None
        self.preferred: Preferred | None = None

    @property
    def name(self) -> str:
        """See `Method`."""
        kind = "kto" if isinstance(self._source, OpinionSource) else "dpo"
        return f"{kind} with {self.inner.name}"

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Method`."""
        return self.inner.notes

    @property
    def trains(self) -> bool:
        """See `Method`."""
        return True

    def remember(self, teachable: Teachable, values: Values, batch: Feeds, *, width: int) -> None:
        """See `Method`."""
        self.inner.remember(teachable, values, batch, width=width)

    def begin(
        self, teachable: Teachable, values: Values, *, width: int, known: int | None = None
    ) -> dict[str, FloatArray]:
        """See `Method`; what the model says now of every text is kept as its reference.

        Raises:
            InputError: if the lesson is of a classifier, or the inner method cannot serve it.
        """
        if teachable.lesson.feeds != "tokens":
            raise InputError("preferences are learned by language models; this is a classifier")
        begun = self.inner.begin(teachable, values, width=width, known=known)
        found = np.zeros(len(self._source.texts), np.float32)
        for low in range(0, len(self._source), _AT_ONCE):
            numbers = range(low, min(low + _AT_ONCE, len(self._source)))
            batch = self._source.feeds(numbers, scale=1.0)
            found[batch[TEXTS]] = text_logprobs(teachable, begun, _plain(batch))
        self._references = found
        return begun

    def feeds(self, teachable: Teachable, values: Values, batch: Feeds) -> Feeds:
        """See `Method`; runs the graph once for the weights."""
        texts, plain = _texts(batch), _plain(batch)
        logprobs = text_logprobs(teachable, values, plain)
        judged = self._judged(plain, texts, logprobs)
        mine = plain["rows"] // plain["tokens"].shape[1]  # (R,)
        # The loss of the graph is minus the weighted sum.
        slopes = np.append(judged.slopes, np.zeros(len(texts) - len(judged.slopes), np.float32))
        weights = -slopes[mine, None] * np.abs(plain["weights"])
        return self.inner.feeds(teachable, values, {**plain, "weights": weights})

    def adjust(self, values: Values, gradients: Values) -> dict[str, FloatArray]:
        """See `Method`."""
        return self.inner.adjust(values, gradients)

    def hold(self, before: Values, after: Values) -> dict[str, FloatArray]:
        """See `Method`."""
        return self.inner.hold(before, after)

    def after(
        self,
        teachable: Teachable,
        values: Values,
        batch: Feeds,
        taught: Taught | None,
        *,
        first: bool = True,
    ) -> None:
        """See `Method`; answers that were liked are offered to its memory, others are not."""
        plain = _plain(batch)
        liked = {**plain, "weights": np.maximum(plain["weights"], 0)}
        if liked["weights"].any():
            self.inner.after(teachable, values, liked, taught, first=first)

    def end(self, teachable: Teachable, values: Values) -> dict[str, FloatArray]:
        """See `Method`."""
        return self.inner.end(teachable, values)

    def save(self) -> Kept:
        """See `Method`."""
        kept = self.inner.save()
        references = {} if self._references is None else {"logprobs": self._references}
        return replace(kept, parts={**kept.parts, _PART: Part(1, references)})

    def load(self, kept: Kept) -> None:
        """See `Method`.

        Raises:
            InputError: if it keeps no references of these texts.
        """
        part = kept.parts.get(_PART)
        found = None if part is None else part.arrays.get("logprobs")
        if found is None or found.shape != (len(self._source.texts),):
            raise InputError("the state keeps no reference for each of the texts; learn anew")
        if not np.isfinite(found).all():
            raise InputError("the state keeps a reference that is not finite; learn anew")
        self._references = found.astype(np.float32)
        others = {name: one for name, one in kept.parts.items() if name != _PART}
        self.inner.load(replace(kept, parts=others))

    def _judged(self, plain: Feeds, texts: np.ndarray, logprobs: FloatArray) -> Judged:
        """Judge the texts of a batch, and keep how it went.

        Raises:
            InputError: if no session was begun.
        """
        if self._references is None:
            raise InputError("a session of preferences was not begun")
        grown = logprobs - self._references[texts]
        references = self._references[texts]
        if isinstance(self._source, OpinionSource):
            # The joined texts come behind.
            n = int((texts < len(self._source)).sum())
            drift = float(grown[n:].mean()) if len(grown) > n else 0.0
            liked = np.array([self._source.liked[text] for text in texts[:n]])
            judged = by_opinions(logprobs[:n], references[:n], liked, self._how, drift=drift)
            away = judged.rewards - self._how.beta * max(drift, 0.0)
            right = (away > 0) == liked
        else:
            mine = plain["rows"] // plain["tokens"].shape[1]
            lengths = np.bincount(mine, minlength=len(texts)).astype(np.float32)
            judged = by_pairs(logprobs, references, lengths, self._how)
            liked = np.arange(len(texts)) % 2 == 0
            right = judged.rewards[0::2] > judged.rewards[1::2]
        both = liked.any() and not liked.all()
        margin = judged.rewards[liked].mean() - judged.rewards[~liked].mean() if both else np.nan
        self.preferred = Preferred(
            loss=float(judged.losses.mean()), margin=float(margin), right=float(right.mean())
        )
        return judged


def text_logprobs(teachable: Teachable, values: Values, feeds: Feeds) -> FloatArray:
    """Return the log-probability of each text's scored tokens together.

    Args:
        teachable: a lesson of tokens.
        values: of every trainable.
        feeds: what it takes, of one label a row; the weights change nothing.

    Returns:
        (B,) float32, nat.

    Raises:
        InputError: if the batch does not fit the lesson.
        EngineError: if the lesson's graph fails.
    """
    B, S = feeds["tokens"].shape
    logprobs = answered_rows(teachable, values, feeds)[:, 0].astype(np.float64)
    return np.bincount(feeds["rows"] // S, logprobs, minlength=B).astype(np.float32)


def _plain(batch: Feeds) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in batch.items() if name != TEXTS}


def _texts(batch: Mapping[str, np.ndarray] | Feeds) -> np.ndarray:
    """Return the numbers of a batch's texts.

    Raises:
        InputError: if it has none: it is of another source.
    """
    if TEXTS not in batch:
        raise InputError("this batch holds no liked or disliked answers")
    return np.asarray(batch[TEXTS])
