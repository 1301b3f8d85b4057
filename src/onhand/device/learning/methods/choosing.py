"""Methods of learning without forgetting by name.

"replay", "der++"; several as "replay+lwf"; with options as "der++,past_weight=1,replayed=16".
"""

import difflib
import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.device.learning.methods.base import Method
from onhand.device.learning.methods.composed import Composed, Parts
from onhand.device.learning.methods.distilling import Distilling
from onhand.device.learning.methods.elastic import Elastic
from onhand.device.learning.methods.options import MethodOptions, told_options
from onhand.device.learning.methods.orthogonal import Orthogonal
from onhand.device.learning.methods.prototypes import Prototypes
from onhand.device.learning.methods.replaying import Replaying

__all__ = ["METHODS", "make_method"]

METHODS: Final[Mapping[str, str]] = {
    "naive": "nothing is added: what is new replaces what was known",
    "replay": "examples from a memory are learned again beside the new ones",
    "der++": "replay, and the answers that the examples once had are kept too",
    "er-ace": "replay, and new examples do not push down the classes that are not among them",
    "ewc": "what mattered for what was known moves less",
    "lwf": "new examples also pull towards what the previous version answers",
    "olora": "each session takes ranks of a LoRA of its own, orthogonal to the earlier ones",
    "prototypes": "a head of class means, with no training at all",
}
"""Name -> what it does."""
_REPLAYS: Final = ("replay", "der++", "er-ace")
_ALONE: Final = ("naive", "prototypes")


def make_method(
    name: str,
    lesson: Lesson,
    *,
    rng: np.random.Generator,
    options: MethodOptions | None = None,
) -> Method:
    """Return a method.

    Args:
        name: one of `METHODS`, or several of them joined by "+", at most one that replays, and
            "naive" and "prototypes" alone; options of `MethodOptions` may follow, each as
            ",name=value".
        lesson: what is learned.
        rng: its source of chance; the method's own from here on.
        options: that the name's own go over; None for the defaults.

    Returns:
        The method; its `name` is without options, so that what it kept serves others too.

    Raises:
        InputError: if a name or an option is unknown, names do not go together, or the method
            cannot serve the lesson.
    """
    name, *told = name.split(",")
    options = told_options(options or MethodOptions(), told)
    names = _names(name)
    if len(names) > 1 and (odd := [one for one in names if one in _ALONE]):
        raise InputError(f"method {name!r}: {odd[0]!r} goes with no other")
    if len(replays := [one for one in names if one in _REPLAYS]) > 1:
        raise InputError(f"method {name!r}: {replays[0]!r} and {replays[1]!r} both replay")
    if "er-ace" in names and lesson.feeds == "tokens":
        raise InputError("er-ace tells classes apart: a language model has none; take replay")
    return Composed(
        name,
        lesson,
        rng,
        Parts(
            replaying=Replaying(lesson, options, past="der++" in names) if replays else None,
            distilling=Distilling(lesson, options) if "lwf" in names else None,
            elastic=Elastic(lesson, options) if "ewc" in names else None,
            orthogonal=Orthogonal(lesson, options) if "olora" in names else None,
            prototypes=Prototypes(lesson, options) if "prototypes" in names else None,
            asymmetric="er-ace" in names,
        ),
    )


def _names(name: str) -> list[str]:
    """Return the names that are joined in one.

    Raises:
        InputError: if one is unknown or given twice.
    """
    # "der++" ends with the sign that joins.
    names = re.split(r"\+(?=[a-z])", name)
    for one in names:
        if one not in METHODS:
            near = difflib.get_close_matches(one, METHODS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(METHODS)}"
            raise InputError(f"unknown method {one!r}; {hint}")
    if len(set(names)) < len(names):
        raise InputError(f"method {name!r}: a name is given twice")
    return names
