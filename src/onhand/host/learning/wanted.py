"""What a build should be able to learn later: `--learnable KIND[,OPTION=VALUE...]`, read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError
from onhand.core.lesson import KINDS

__all__ = ["Learnable", "parse_learnable"]

_MOST_RANK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnable:
    """What a bundle should be able to learn.

    Attributes:
        kind: one of `onhand.core.lesson.KINDS`.
        rank: of LoRA's products.
        alpha: their scale times the rank; None for twice the rank.
        targets: the matrices that get LoRA, by the ends of their names; empty for those that
            are usual: `qkv` of a language model, every product of another network.
        classes: names of the classes of a new head; empty where the network has classes, or where
            they are to be learned one by one.
        remember: a file of examples of what a language model can do already, JSON lines, which the
            bundle carries: a device holds on to them while it learns; None for none.
        cut: the value of a network's graph from which on everything is learned; "" to find it.
    """

    kind: str
    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    remember: Path | None = None
    cut: str = ""

    def scale(self) -> float:
        """Return alpha, given or not."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    def to_json(self) -> dict[str, object]:
        """Return plain values for a bundle's provenance."""
        return {
            "alpha": self.scale() if self.kind == "lora" else 0.0,
            "classes": list(self.classes),
            "cut": self.cut,
            "kind": self.kind,
            "rank": self.rank if self.kind == "lora" else 0,
            "remembers": self.remember is not None,
            "targets": list(self.targets),
        }


def parse_learnable(text: str) -> Learnable:
    """Read what should be learnable.

    Args:
        text: a kind, and its options behind commas; names in a list are joined by "+": "head",
            "lora,rank=8,alpha=16,targets=qkv+out,remember=known.jsonl", "head,classes=cup+lamp",
            "last-block,cut=NAME".

    Returns:
        The wish.

    Raises:
        InputError: if a kind or an option is unknown, given twice, or out of range.
    """
    kind, *options = (part.strip() for part in text.split(","))
    if kind not in KINDS:
        raise InputError(f"--learnable {kind!r}: is none of {', '.join(KINDS)}")
    given: dict[str, object] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if key not in _READERS or not equals:
            known = ", ".join(f"{name}=..." for name in _OF_KIND[kind])
            raise InputError(f"--learnable {kind}: unknown {option!r}; it takes {known}")
        if key not in _OF_KIND[kind]:
            raise InputError(f"--learnable {kind}: {key} is not for it")
        if key in given:
            raise InputError(f"--learnable {kind}: {key} is given twice")
        given[key] = _READERS[key](key, value)
    return Learnable(kind=kind, **given)  # type: ignore[arg-type] # each reader gives its field


def _rank(key: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= _MOST_RANK:
        raise InputError(f"--learnable: {key} is {value!r}, must be from 1 to {_MOST_RANK}")
    return int(value)


def _alpha(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise InputError(f"--learnable: {key} is {value!r}, must be a number above 0")
    return number


def _names(key: str, value: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in value.split("+"))
    if not all(names) or len(set(names)) != len(names):
        raise InputError(
            f"--learnable: {key} is {value!r}, must be names with + between, each once"
        )
    return names


def _file(key: str, value: str) -> Path:
    if not Path(value).is_file():
        raise InputError(f"--learnable: {key} is {value!r}, which is no file")
    return Path(value)


def _name(key: str, value: str) -> str:
    if not value:
        raise InputError(f"--learnable: {key} is empty, must be a name")
    return value


_READERS: Final[Mapping[str, Callable[[str, str], object]]] = {
    "rank": _rank,
    "alpha": _alpha,
    "targets": _names,
    "classes": _names,
    "cut": _name,
    "remember": _file,
}
_OF_KIND: Final[Mapping[str, tuple[str, ...]]] = {
    "lora": ("rank", "alpha", "targets", "classes", "remember"),
    "head": ("classes",),
    "last-block": ("cut", "classes"),
    "bias": ("classes",),
}
