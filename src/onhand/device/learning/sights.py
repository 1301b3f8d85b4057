"""All that a gate sees of a model: what it does on held-out examples, and its fixed answers."""

from collections.abc import Iterable

from onhand.core.bundle import Bundle
from onhand.device.learning.base import Teachable, Values
from onhand.device.learning.examples import Example
from onhand.device.learning.fixed_answers import fixed_answers
from onhand.device.learning.gate import Sight
from onhand.device.learning.judging import judge
from onhand.device.learning.lesson_files import read_scales
from onhand.device.learning.rounding import rounded_values
from onhand.device.learning.training import Source
from onhand.device.threads import usable_threads

__all__ = ["see"]


def see(
    bundle: Bundle,
    teachable: Teachable,
    values: Values,
    *,
    old: Source,
    new: Source,
    prompts: Iterable[Example],
    batch: int,
) -> Sight:
    """Look at a model as a gate does: weights that will answer as integers are rounded first.

    Args:
        bundle: a verified bundle.
        teachable: its lesson.
        values: of every trainable.
        old: held-out examples of what it could do before.
        new: held-out examples of what it is taught.
        prompts: examples whose prompts are answered.
        batch: examples at a time.

    Raises:
        InputError: if an example does not fit the lesson.
        EngineError: if the graph fails.
    """
    scales = read_scales(bundle, teachable.lesson)
    values = rounded_values(teachable.lesson, values, scales)
    return Sight(
        old=judge(teachable, values, old, batch=batch),
        new=judge(teachable, values, new, batch=batch),
        texts=fixed_answers(
            bundle,
            teachable.lesson,
            values,
            prompts,
            threads=max(1, usable_threads() // 2),
        ),
    )
