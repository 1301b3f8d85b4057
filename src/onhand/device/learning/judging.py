"""How a model does on examples that it does not learn."""

from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.device.learning.base import Answering, Teachable, Values
from onhand.device.learning.gate import Marks
from onhand.device.learning.like_lengths import answered_rows
from onhand.device.learning.training import Source

__all__ = ["judge"]

_SURE: Final = np.log(0.5)


def judge(teachable: Teachable, values: Values, source: Source, *, batch: int) -> Marks:
    """Mark a model on each of some examples.

    Args:
        teachable: the lesson.
        values: of every trainable.
        source: the examples; none is learned.
        batch: examples at a time.

    Returns:
        One mark for each example. Of a text, the loss is the mean over its learned tokens, and it
        is right where each of them has more than half of the probability: then, and sometimes
        else, the likeliest tokens are these.

    Raises:
        InputError: if an example does not fit the lesson.
        EngineError: if the graph fails.
    """
    losses: list[float] = []
    right: list[bool] = []
    shares: list[float] = []
    answers: list[int] = []
    for low in range(0, len(source), batch):
        numbers = range(low, min(low + batch, len(source)))
        feeds = source.feeds(numbers, scale=1.0)
        if teachable.lesson.feeds == "tokens":
            logs = answered_rows(teachable, values, feeds)[:, 0]
            found = _texts(logs, [round(source.weight(number)) for number in numbers])
            losses += [loss for loss, _ in found]
            right += [is_right for _, is_right in found]
            continue
        answer = teachable.answer if isinstance(teachable, Answering) else teachable.teach
        outputs = answer(values, feeds).outputs
        likeliest, share = _likeliest(outputs["logits"])
        losses += outputs["losses"].tolist()
        right += (likeliest == feeds["labels"]).tolist()
        shares += share.tolist()
        answers += likeliest.tolist()
    return Marks(
        losses=np.array(losses, dtype=np.float32),
        is_right=np.array(right, dtype=np.bool_),
        confidences=np.array(shares, dtype=np.float32),
        answers=tuple(answers),
    )


def _likeliest(logits: FloatArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the likeliest class of each row and its probability."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = raised / raised.sum(axis=1, keepdims=True)
    likeliest = shares.argmax(axis=1)
    return likeliest, shares[np.arange(len(shares)), likeliest]


def _texts(logs: FloatArray, lengths: list[int]) -> list[tuple[float, bool]]:
    """Return the mean loss of each text, and whether each of its tokens is the likeliest."""
    pieces = np.split(logs, np.cumsum(lengths)[:-1])
    return [(-float(one.mean(dtype=np.float64)), bool((one > _SURE).all())) for one in pieces]
