"""What a method remembers from session to session, such as a replay memory.

HOME/state/MANIFEST-SHA256/learned/memory/METHOD/, see `durable`: kept when a version goes into use.
"""

import hashlib
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError
from onhand.device.learning.base import Teachable, Values
from onhand.device.learning.durable import Generations, Saved
from onhand.device.learning.methods.base import Method
from onhand.device.learning.methods.kept import Kept
from onhand.device.learning.methods.preferences import PreferenceMethod
from onhand.device.learning.training import Source

__all__ = ["keep_memory", "recall_memory", "remember_all"]

_AT_ONCE: Final = 8


def recall_memory(folder: Path, method: Method) -> tuple[bool, list[str]]:
    """Give a method what it remembered when a version last went into use.

    Args:
        folder: where what was learned is kept.
        method: gets its state, where there is one.

    Returns:
        is_there: whether there was one.
        notes: a sentence for each file that was damaged.

    Raises:
        InputError: if it is not the method's.
        ResourceError: if it cannot be read.
    """
    saved, notes = _place(folder, method).read()
    if saved is None:
        return False, notes
    facts = saved.fields.get("facts")
    if not isinstance(facts, dict):
        raise InputError("the memory of earlier sessions has no facts; remove its folder")
    _remembering(method).load(Kept(facts=facts, parts=saved.parts))
    return True, notes


def keep_memory(folder: Path, method: Method) -> None:
    """Keep what a method remembers for the next session.

    Args:
        folder: where what was learned is kept.
        method: whose state it is.

    Raises:
        ResourceError: if it cannot be written.
    """
    inner = _remembering(method)
    kept, place = inner.save(), _place(folder, method)
    before, _ = place.read()
    number = 0 if before is None else before.number + 1
    fields = {"facts": dict(kept.facts), "method": inner.name}
    place.write(Saved(number=number, fields=fields, arrays={}, parts=kept.parts))


def remember_all(
    method: Method, teachable: Teachable, values: Values, source: Source, *, width: int
) -> None:
    """Let a method remember all of some examples, without learning from them.

    Args:
        method: takes them in.
        teachable: the lesson.
        values: of every trainable.
        source: the examples.
        width: classes, or tokens of the vocabulary.

    Raises:
        InputError: if an example does not fit the lesson.
        EngineError: if the lesson's graph fails.
    """
    for low in range(0, len(source), _AT_ONCE):
        numbers = range(low, min(low + _AT_ONCE, len(source)))
        scale = 1 / sum(source.weight(number) for number in numbers)
        method.remember(teachable, values, source.feeds(numbers, scale=scale), width=width)


def _place(folder: Path, method: Method) -> Generations:
    name = hashlib.sha256(_remembering(method).name.encode()).hexdigest()[:16]
    return Generations(folder / "memory" / name, sync_s=0)


def _remembering(method: Method) -> Method:
    """Return what keeps the memory: references of preferences are of one session alone."""
    return method.inner if isinstance(method, PreferenceMethod) else method
