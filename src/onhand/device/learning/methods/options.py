"""What a method of learning without forgetting may be told."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from onhand.core.errors import InputError

__all__ = ["MethodOptions", "told_options"]

_PRECISIONS = ("float16", "float32", "uint8")
_MOST_BYTES = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOptions:
    """Every option of every method; each method reads its own.

    Attributes:
        memory_bytes: ceiling of the replay memory.
        balanced: whether the memory holds as much of each class, or a uniform sample of all.
        precision: how fractions are kept in the memory: "float32", "float16" or "uint8".
        replayed: examples drawn for each batch; 0 draws as many as the batch has.
        replay_weight: what the drawn examples' labels count together, the new batch being 1.
        past_weight: what their past answers count together, the new batch being 1 (DER++'s alpha).
        refreshes: whether at a session's end its kept answers are asked again of what was learned.
        ewc_strength: factor of the quadratic penalty; language models, whose losses are means over
            tokens, need about 1e5.
        ewc_decay: what a Fisher information counts one session later, from 0 to 1.
        fisher_examples: examples that the Fisher information is the mean of.
        lwf_strength: what the previous version's answers count, the new batch being 1.
        temperature: that divides logits before the distillation's softmax; networks only.
        best: of a language model, how many of the likeliest tokens are kept as a past answer.
        olora_rank: ranks of a LoRA that one session takes.
        olora_strength: factor of the penalty for overlap with past sessions' directions.
        shrinkage: of the prototypes' common covariance, from 0 (as measured) to 1 (a multiple of
            the identity).
    """

    memory_bytes: int = 4 * 2**20
    balanced: bool = True
    precision: str = "float16"
    replayed: int = 0
    replay_weight: float = 1.0
    past_weight: float = 0.5
    refreshes: bool = True
    ewc_strength: float = 1000.0
    ewc_decay: float = 1.0
    fisher_examples: int = 64
    lwf_strength: float = 1.0
    temperature: float = 2.0
    best: int = 8
    olora_rank: int = 4
    olora_strength: float = 0.5
    shrinkage: float = 0.1

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            InputError: if one is out of its range.
        """
        for name, least, most in (
            ("memory_bytes", 0, _MOST_BYTES),
            ("replayed", 0, 2**16),
            ("replay_weight", 0, 1e6),
            ("past_weight", 0, 1e6),
            ("ewc_strength", 0, 1e12),
            ("ewc_decay", 0, 1),
            ("fisher_examples", 1, 2**16),
            ("lwf_strength", 0, 1e6),
            ("temperature", 0.01, 100),
            ("best", 1, 1024),
            ("olora_rank", 1, 4096),
            ("olora_strength", 0, 1e6),
            ("shrinkage", 0, 1),
        ):
            value = getattr(self, name)
            if not math.isfinite(value) or not least <= value <= most:
                raise InputError(f"{name} is {value}, must be from {least:g} to {most:g}")
        if self.precision not in _PRECISIONS:
            raise InputError(
                f"precision is {self.precision!r}, must be one of {', '.join(_PRECISIONS)}"
            )


def told_options(options: MethodOptions, told: Sequence[str]) -> MethodOptions:
    """Return options with others in their place.

    Args:
        options: to begin with.
        told: each as "name=value".

    Raises:
        InputError: if one is unknown, told twice, no value of its kind, or out of range.
    """
    changed: dict[str, bool | int | float | str] = {}
    known = {field.name: field.default for field in fields(MethodOptions)}
    for one in told:
        name, equals, text = (part.strip() for part in one.partition("="))
        if name not in known or not equals:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise InputError(f"unknown option {one!r} of a method; {hint}")
        if name in changed:
            raise InputError(f"option {name!r} of a method is told twice")
        changed[name] = _value(name, text, known[name])
    return replace(options, **changed)  # type: ignore[arg-type]  # each of its own kind


def _value(name: str, text: str, default: object) -> bool | int | float | str:
    """Read a value of the kind that the default is of.

    Raises:
        InputError: if it is none.
    """
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise InputError(f"{name} is {text!r}, must be true or false")
        return text == "true"
    if isinstance(default, str):
        return text
    kind = int if isinstance(default, int) else float
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"{name} is {text!r}, must be a number") from error
