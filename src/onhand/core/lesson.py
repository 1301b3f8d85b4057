"""What of a bundle can be learned on a device: `learn.json`, which may come from outside.

A lesson is a graph that computes a loss and its gradients for some tensors, the trainables, which
are inputs of the graph. Everything else in it is frozen and lies in the bundle's weights files.
Optimizer, clipping, penalties and replay are the device's own, in numpy.

A graph of a language model ("tokens") takes, beside its trainables and its rotary tables:
    tokens (B, S) int64: texts, padded at their right;
    rows (R,) int64: positions of the flattened (B S) that are scored;
    labels (R, K) int64, weights (R, K) float32: tokens that may follow there and what each counts.
and gives:
    loss () float32: - sum of weights * logprobs;
    logprobs (R, K) float32: of the labels;
    grad.NAME: of the loss, for each trainable.
With one label a row this is cross-entropy, with several the distillation from another model's
best tokens, and with signed weights any loss of whole texts' log-probabilities.

A graph of a classifier ("classes") takes, beside its trainables, the network's own inputs, or
where it has a trunk, `latent`:
    labels (B,) int64, weights (B,) float32: the right classes, and what each example counts;
    past_logits (B, C) float32, past_weights (B,) float32: what it once answered (DER);
    past_classes (B, C) float32, soft_weights (B,) float32: probabilities it once gave (LwF).
and gives:
    loss () float32: sum of weights * cross-entropy + past_weights * mean over the classes of
        (logits - past_logits)^2 + soft_weights * cross-entropy with past_classes;
    losses (B,) float32: the first cross-entropy of each example, unweighted;
    logits (B, C) float32;
    grad.NAME: as above.
The trunk's graph takes the network's inputs and gives `latent` (B, ...) float32.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.outside import count, object_of, parse_json, positive, shown, word

__all__ = [
    "LESSON",
    "MOST_REMEMBERED_BYTES",
    "REMEMBERED",
    "Codes",
    "Lesson",
    "Trainable",
    "parse_lesson",
    "render_lesson",
]

LESSON: Final = "learn.json"
"""The file of a bundle that says what can be learned; a bundle without it learns nothing."""
REMEMBERED: Final = "remember.jsonl"
"""The file of a bundle with examples of what it can do: methods hold on to them by default."""
MOST_REMEMBERED_BYTES: Final = 4 * 2**20
FORMAT: Final = 1
KINDS: Final = ("lora", "head", "last-block", "bias")
FEEDS: Final = ("tokens", "classes")
MAX_LESSON_BYTES: Final = 4 * 2**20
_MOST_TRAINABLES, _MOST_DIMS, _MOST_SIZE = 2**14, 6, 2**31
_MOST_RANK = 4096
_MOST_CLASSES = 2**16
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_PARTS = ("whole", "lora_A", "lora_B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """How a weight is stored as integers around zero.

    Attributes:
        bits: of an integer.
        axis: whose every place has a scale of its own; None for one scale for all.
    """

    bits: int
    axis: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainable:
    """A tensor that is learned, float32.

    Attributes:
        shape: of its starting value.
        tensor: what it changes: a matrix by its name in `Decoder.matrices`, or a weight by its
            name in the variant's graph.
        part: "whole" stands in the tensor's place; "lora_A" (R, K) and "lora_B" (N, R) add
            alpha / R * B A to it.
        grows: whether its first dimension is the number of classes, so that more may be added.
        codes: how the network that answers stores it; None for as it is, in float32.
    """

    shape: tuple[int, ...]
    tensor: str
    part: str = "whole"
    grows: bool = False
    codes: Codes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What can be learned, and by which files of the bundle.

    Attributes:
        kind: one of `KINDS`.
        feeds: "tokens" for a language model, "classes" for a classifier: see the module.
        variant: whose weights the graph reads.
        graph: the ONNX file that gives loss and gradients.
        trunk: the ONNX file of what lies before everything that is learned; None where nothing
            does.
        start: the safetensors file with the trainables' starting values.
        trainables: name -> what it is.
        alpha: of LoRA: its product is scaled by alpha / rank; 0 where nothing is of low rank.
        answers: of a network: the ONNX file that takes its inputs and the trainables, and gives
            its outputs, scores first; None where trainables are put into the variant's graph.
        classes: names of the classes of a new head, which the network itself has not.
    """

    kind: str
    feeds: str
    variant: str
    graph: str
    trunk: str | None
    start: str
    trainables: Mapping[str, Trainable]
    alpha: float = 0.0
    answers: str | None = None
    classes: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Of LoRA; 0 where nothing is of low rank."""
        ranks = (t.shape[0] for t in self.trainables.values() if t.part == "lora_A")
        return next(ranks, 0)

    @property
    def n_values(self) -> int:
        """How many numbers are learned, before anything grows."""
        return sum(math.prod(made.shape) for made in self.trainables.values())

    def sentence(self) -> str:
        """Return what can be learned, for people."""
        tensors = len({made.tensor for made in self.trainables.values()})
        of_rank = f" of rank {self.rank}" if self.rank else ""
        return f"{self.kind}{of_rank} of {tensors} tensors, {self.n_values:,} numbers"


def render_lesson(lesson: Lesson) -> bytes:
    """Return the one byte string of a lesson: sorted keys, final newline."""
    table = {
        "alpha": lesson.alpha,
        "answers": lesson.answers,
        "classes": list(lesson.classes),
        "feeds": lesson.feeds,
        "format": FORMAT,
        "graph": lesson.graph,
        "kind": lesson.kind,
        "start": lesson.start,
        "trainables": {
            name: {
                **_coded(made.codes),
                "grows": made.grows,
                "part": made.part,
                "shape": list(made.shape),
                "tensor": made.tensor,
            }
            for name, made in lesson.trainables.items()
        },
        "trunk": lesson.trunk,
        "variant": lesson.variant,
    }
    return json.dumps(table, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"


def _coded(codes: Codes | None) -> dict[str, object]:
    # Left out where there are none: what reads no codes reads such a lesson all the same.
    return {} if codes is None else {"codes": {"axis": codes.axis, "bits": codes.bits}}


def parse_lesson(content: bytes, *, where: str) -> Lesson:
    """Read and validate a lesson.

    Args:
        content: the file's bytes.
        where: the bundle's name for messages.

    Returns:
        The lesson; whether its files are there is for whoever opens them.

    Raises:
        BundleCorrupt: if anything in it is missing, unknown or not valid.
    """
    if len(content) > MAX_LESSON_BYTES:
        raise BundleCorrupt(f"{where}: {LESSON}: over {MAX_LESSON_BYTES} bytes")
    try:
        return _lesson(parse_json(content))
    except InputError as error:
        raise BundleCorrupt(f"{where}: {LESSON}: {error}") from error


def _lesson(value: object) -> Lesson:
    known = {
        "alpha",
        "answers",
        "classes",
        "feeds",
        "format",
        "graph",
        "kind",
        "start",
        "trainables",
        "trunk",
        "variant",
    }
    table = object_of(value, "lesson", known)
    if table.get("format") != FORMAT:
        raise InputError(f"format {shown(table.get('format'))}, this reader knows {FORMAT}")
    listed = table.get("trainables")
    if not isinstance(listed, dict) or not 1 <= len(listed) <= _MOST_TRAINABLES:
        raise InputError(f"trainables must be an object of 1 to {_MOST_TRAINABLES} tensors")
    trainables = {_text(name): _trainable(entry, name) for name, entry in listed.items()}
    trunk, answers = table.get("trunk"), table.get("answers")
    return Lesson(
        kind=word(table, "kind", "lesson", KINDS),
        feeds=word(table, "feeds", "lesson", FEEDS),
        variant=_text(table.get("variant")),
        graph=_text(table.get("graph")),
        trunk=None if trunk is None else _text(trunk),
        start=_text(table.get("start")),
        trainables=trainables,
        alpha=_alpha(table.get("alpha"), trainables),
        answers=None if answers is None else _text(answers),
        classes=_classes(table.get("classes", [])),
    )


def _classes(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MOST_CLASSES:
        raise InputError(f"classes must be a list of up to {_MOST_CLASSES} names")
    names = tuple(_text(name) for name in value)
    if len(set(names)) != len(names):
        raise InputError("classes names one twice")
    return names


def _alpha(value: object, trainables: Mapping[str, Trainable]) -> float:
    """Return alpha, once factors of low rank come in pairs of one rank.

    Raises:
        InputError: if they do not, or there are some and alpha is not positive.
    """
    first = {t.tensor: t.shape for t in trainables.values() if t.part == "lora_A"}
    second = {t.tensor: t.shape for t in trainables.values() if t.part == "lora_B"}
    if odd := sorted(first.keys() ^ second.keys()):
        raise InputError(f"{odd[0]!r} has one of lora_A and lora_B, not both")
    if not first:
        return 0.0
    rank = next(iter(first.values()))[0]
    for tensor, shape in first.items():
        if len(shape) != 2 or len(second[tensor]) != 2 or {shape[0], second[tensor][1]} != {rank}:
            raise InputError(f"the factors of {tensor!r} do not fit, or are not of rank {rank}")
    if rank > _MOST_RANK:
        raise InputError(f"rank {rank}, at most {_MOST_RANK} are read")
    return positive(value, "alpha")


def _trainable(value: object, name: str) -> Trainable:
    keys = {"codes", "grows", "part", "shape", "tensor"}
    table = object_of(value, f"trainable {shown(name)}", keys)
    sizes = table.get("shape")
    if not isinstance(sizes, list) or len(sizes) > _MOST_DIMS:
        raise InputError(f"the shape of {shown(name)} must be a list of up to {_MOST_DIMS} sizes")
    named = {str(i): size for i, size in enumerate(sizes)}
    grows = table.get("grows", False)
    if not isinstance(grows, bool):
        raise InputError(f"trainable {shown(name)}: grows must be true or false")
    codes = _codes(table.get("codes"), name, len(sizes))
    return Trainable(
        # A head that waits for its first class has no rows yet.
        shape=tuple(
            count(
                named,
                i,
                f"shape of {shown(name)}",
                most=_MOST_SIZE,
                least=0 if grows and i == "0" else 1,
            )
            for i in named
        ),
        tensor=_text(table.get("tensor")),
        part=word(table, "part", f"trainable {shown(name)}", _PARTS),
        grows=grows,
        codes=codes,
    )


def _codes(value: object, name: str, rank: int) -> Codes | None:
    """Return how a trainable is stored; None for as it is.

    Raises:
        InputError: if it is no such thing.
    """
    if value is None:
        return None
    where = f"codes of {shown(name)}"
    table = object_of(value, where, {"axis", "bits"})
    bits = count(table, "bits", where, least=8, most=8)
    axis = table.get("axis")
    return Codes(
        bits=bits,
        axis=None if axis is None else count(table, "axis", where, least=0, most=max(rank - 1, 0)),
    )


def _text(value: object) -> str:
    """Return a name.

    Raises:
        InputError: if it is none.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InputError(f"{shown(value)} is no name of 1 to 200 plain letters")
    return value
