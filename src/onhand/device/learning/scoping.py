"""Learning which prompts are like those that are taught, and judging what answers only these.

A logistic regression tells the prompts that are taught from those that are remembered. Where it
draws the line is decided by prompts that it has not seen: a fifth of those that are taught is left
out in turn, and nearly all of them must lie inside. What lies inside by mistake is answered by what
was learned, as everything is without a scope.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.scope import SCOPE_WIDTH, Scope, features_of
from onhand.device.engine_opening import able_engines
from onhand.device.learning.examples import Continued, Dialogue, Example, Opinion, Preference
from onhand.device.learning.gate import Marks, Sight
from onhand.device.learning.material import Given
from onhand.device.learning.preference_feeds import liked
from onhand.device.learning.text_feeds import sequences_of
from onhand.device.probe import current_profile
from onhand.device.prompts import user_texts
from onhand.device.template import Message
from onhand.device.text_files import read_text_files
from onhand.device.tracks import SCOPE_ENGINE

__all__ = [
    "Inside",
    "check_scope",
    "inside",
    "inside_of",
    "learn_scope",
    "scope_of",
    "scoped_sight",
    "shares_inside",
]

_DECAY: Final = 1e-4
_STEPS: Final = 250
_PACE: Final = 2.0  # of rows of length 1 and a bias, the inverse of the steepest curvature
_FOLDS: Final = 5
_LEFT_OUT: Final = 0.05  # of the prompts that are taught, at most
_MOST_OTHERS: Final = 4000

_Doubles = NDArray[np.float64]
_Row = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Inside:
    """Which held-out examples lie in a scope.

    Attributes:
        old: of each example of what was known.
        new: of each example of what is taught.
        texts: of each of the fixed prompts.
    """

    old: NDArray[np.bool_]
    new: NDArray[np.bool_]
    texts: tuple[bool, ...]


def check_scope(bundle: Bundle, given: Given, *, variant: str) -> None:
    """Check that a scope can be learned and used.

    Args:
        bundle: a language model's.
        given: the examples.
        variant: of the bundle, that learns.

    Raises:
        InputError: if examples have no prompts, or none is remembered.
        EngineUnavailable: if the engine that can leave out what was learned cannot run it here.
    """
    for one in (*given.new, *given.past):
        _asked(one)
    if not given.past:
        raise InputError(
            "a scope tells what is taught from what is known, and nothing is known: give examples "
            "of what the model can do with --remember FILE"
        )
    able_engines(bundle, current_profile(), variant=variant, wanted=SCOPE_ENGINE)


def scope_of(given: Given, before: Scope | None = None) -> Scope:
    """Learn the scope of what is taught.

    Args:
        given: the examples; variants of them are left out.
        before: the scope of what was taught earlier.

    Returns:
        The scope of all.

    Raises:
        InputError: if examples have no prompts, or there are none of one kind.
    """
    taught = given.new[: len(given.new) - given.n_varied]
    others = [text for one in given.past for text in _asked(one)]
    found = learn_scope([_asked(one)[-1] for one in taught], others[:_MOST_OTHERS])
    return found if before is None else before.joined(found)


def inside(scope: Scope, examples: Sequence[Example]) -> tuple[Example, ...]:
    """Return the examples in a scope: of what lies beyond it nothing can be lost.

    Args:
        scope: of what is taught.
        examples: of what is known.

    Raises:
        InputError: if one has no prompt.
    """
    return tuple(one for one in examples if scope.holds(_asked(one)))


def learn_scope(taught: Sequence[str], others: Sequence[str]) -> Scope:
    """Learn to tell texts that are taught from others.

    Args:
        taught: one text or more.
        others: texts of which nothing is to change.

    Returns:
        The scope.

    Raises:
        InputError: if there are none of one kind.
    """
    if not taught or not others:
        raise InputError(
            "a scope tells what is taught from what is known: it needs examples of both"
        )
    rows = [features_of(text) for text in (*taught, *others)]
    n, n_folds = len(taught), min(_FOLDS, len(taught))
    belongs = np.arange(len(rows)) < n
    folds = np.concatenate((np.arange(n), np.arange(len(others)))) % max(n_folds, 2)
    # At 0 it is as likely as not; a line beyond that would shut out what is rather taught.
    unseen = np.zeros(n)
    for fold in range(n_folds if n_folds > 1 else 0):
        kept, left = np.flatnonzero(folds != fold), np.flatnonzero((folds == fold) & belongs)
        weights, bias = _fitted([rows[i] for i in kept], belongs[kept])
        unseen[left] = [_score(weights, bias, rows[i]) for i in left]
    line = min(0.0, float(np.quantile(unseen, _LEFT_OUT)))
    weights, bias = _fitted(rows, belongs)
    return Scope(
        weights=weights[np.newaxis].astype(np.float32),
        biases=np.array([bias - line], np.float32),
    )


def shares_inside(scope: Scope, given: Given) -> tuple[float, float]:
    """Return how many of the prompts that judge lie in a scope.

    Args:
        scope: of what is taught.
        given: the examples.

    Returns:
        old: the share of what was known; 0 without any.
        new: the share of what is taught; of held-out examples, 1 without any.
    """
    old = [scope.holds(_asked(one)) for one in given.past_heldout]
    new = [scope.holds(_asked(one)) for one in given.heldout]
    return (sum(old) / len(old) if old else 0.0), (sum(new) / len(new) if new else 1.0)


def inside_of(scope: Scope, given: Given, bundle: Bundle) -> Inside:
    """Say which held-out examples lie in a scope.

    Args:
        scope: of what is taught.
        given: the examples.
        bundle: a language model's, verified.

    Raises:
        InputError: if an example does not fit the model.
        BundleCorrupt: if a text file of the bundle is missing or not valid.
    """
    files, context = read_text_files(bundle), bundle.manifest.decoder.context

    def flags(examples: Sequence[Example]) -> NDArray[np.bool_]:
        found: list[bool] = []
        for one in liked(examples):
            n_answers = len(sequences_of(one, files, context=context))
            found += [scope.holds(_asked(one))] * n_answers
        return np.array(found, dtype=np.bool_)

    talks = [one for one in (*given.past_heldout, *given.heldout) if isinstance(one, Dialogue)]
    return Inside(
        old=flags(given.past_heldout),
        new=flags(given.heldout),
        texts=tuple(scope.holds(user_texts(one.messages[: one.learned[0]])) for one in talks),
    )


def scoped_sight(within: Sight, beyond: Sight, inside: Inside) -> Sight:
    """Return what a gate sees of a model that answers in a scope, and another one beyond it.

    Args:
        within: of the one.
        beyond: of the other.
        inside: which examples lie in the scope.
    """
    texts = [
        one if is_inside else other
        for one, other, is_inside in zip(within.texts, beyond.texts, inside.texts, strict=False)
    ]
    return Sight(
        old=_joined(within.old, beyond.old, inside.old),
        new=_joined(within.new, beyond.new, inside.new),
        texts=tuple(texts),
    )


def _joined(within: Marks, beyond: Marks, inside: NDArray[np.bool_]) -> Marks:
    return Marks(
        losses=np.where(inside, within.losses, beyond.losses),
        is_right=np.where(inside, within.is_right, beyond.is_right),
        confidences=within.confidences,  # texts have none
        answers=within.answers,
    )


def _asked(example: Example) -> tuple[str, ...]:
    """Return what its user says in an example, up to its last answer.

    Raises:
        InputError: if it has no prompt.
    """
    prompt: str | Sequence[Message] | None = None
    if isinstance(example, Continued) and not example.is_rendered:
        prompt = example.text
    elif isinstance(example, Dialogue):
        prompt = example.messages[: example.learned[-1]]
    elif isinstance(example, Preference | Opinion):
        prompt = example.prompt
    if found := () if prompt is None else user_texts(prompt):
        return found
    raise InputError(
        f"{example.where}: a scope tells prompts apart, and this is no answer to a user; leave "
        "--scope out"
    )


def _fitted(rows: Sequence[_Row], belongs: NDArray[np.bool_]) -> tuple[_Doubles, float]:
    """Return weights and bias of a logistic regression in which both kinds count alike.

    By accelerated gradients (Nesterov 1983): rows are of length 1, so that the step is known.
    """
    flat, sizes = np.concatenate(rows), np.array([row.size for row in rows])
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    scales = 1 / np.sqrt(sizes)
    counts = np.where(belongs, 0.5 / belongs.sum(), 0.5 / (~belongs).sum())
    weights = before = np.zeros(SCOPE_WIDTH)
    bias = bias_before = 0.0
    for step in range(_STEPS):
        pace = step / (step + 3)
        ahead, bias_ahead = weights + pace * (weights - before), bias + pace * (bias - bias_before)
        sums = np.add.reduceat(ahead[flat], starts) * scales + bias_ahead
        errors = counts * (1 / (1 + np.exp(-sums)) - belongs)
        slopes = np.bincount(flat, np.repeat(errors * scales, sizes), minlength=SCOPE_WIDTH)
        before, bias_before = weights, bias
        weights = ahead - _PACE * (slopes + _DECAY * ahead)
        bias = bias_ahead - _PACE * float(errors.sum())
    return weights, bias


def _score(weights: _Doubles, bias: float, row: _Row) -> float:
    return float(weights[row].sum() / np.sqrt(row.size)) + bias
