"""What a bundle can learn is read as strictly as everything that comes from outside."""

import json
from dataclasses import replace

import pytest

from onhand.core.errors import BundleCorrupt
from onhand.core.lesson import Codes, Lesson, Trainable, parse_lesson, render_lesson

HEAD = Lesson(
    kind="head",
    feeds="classes",
    variant="int8",
    graph="learn.onnx",
    trunk="learn-trunk.onnx",
    start="learn.safetensors",
    trainables={"fc.weight": Trainable(shape=(0, 64), tensor="fc.weight", grows=True)},
    answers="learned.onnx",
    classes=("cup", "lamp"),
)
LORA = replace(
    HEAD,
    kind="lora",
    feeds="tokens",
    trunk=None,
    alpha=16.0,
    trainables={
        "layers.0.qkv.lora_A": Trainable(shape=(8, 64), tensor="layers.0.qkv", part="lora_A"),
        "layers.0.qkv.lora_B": Trainable(shape=(96, 8), tensor="layers.0.qkv", part="lora_B"),
    },
)


CODED = replace(
    HEAD,
    kind="last-block",
    trainables={
        "conv": Trainable(shape=(2, 3), tensor="conv.q", codes=Codes(bits=8, axis=1)),
        "all": Trainable(shape=(2, 3), tensor="all.q", codes=Codes(bits=8, axis=None)),
    },
)


@pytest.mark.parametrize("lesson", [HEAD, LORA, CODED])
def test_a_lesson_is_read_as_it_was_written(lesson: Lesson) -> None:
    """Nothing is lost on the way."""
    assert parse_lesson(render_lesson(lesson), where="here") == lesson


def test_the_rank_is_that_of_the_factors() -> None:
    """Zero where nothing is of low rank."""
    assert (LORA.rank, HEAD.rank) == (8, 0)


def test_a_lesson_says_what_is_learned() -> None:
    """Rank, tensors and numbers; no rank where nothing is of low rank."""
    assert LORA.sentence() == "lora of rank 8 of 1 tensors, 1,280 numbers"
    assert HEAD.sentence() == "head of 1 tensors, 0 numbers"


def _changed(lesson: Lesson, **changes: object) -> bytes:
    return json.dumps(json.loads(render_lesson(lesson)) | changes).encode()


def _trainable(**changes: object) -> dict[str, object]:
    return {"fc.weight": {"grows": False, "part": "whole", "shape": [2], "tensor": "fc"} | changes}


def _coded(**codes: object) -> dict[str, object]:
    made = {"codes": codes, "grows": False, "part": "whole", "shape": [2], "tensor": "fc"}
    return {"fc.weight": made}


def _factors(first: list[int], second: list[int] | None) -> dict[str, object]:
    made: dict[str, object] = {"a": {"part": "lora_A", "shape": first, "tensor": "w"}}
    return made | (
        {} if second is None else {"b": {"part": "lora_B", "shape": second, "tensor": "w"}}
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (_changed(HEAD, trainables=_coded(bits=4, axis=0)), "bits is 4"),
        (_changed(HEAD, trainables=_coded(bits=8, axis=1)), "axis is 1"),
        (_changed(HEAD, trainables=_coded(bits=8, more=1)), "unknown key"),
        (b"{", "JSON"),
        (b" " * (4 * 2**20 + 1), "bytes"),
        (_changed(HEAD, format=2), "format 2"),
        (_changed(HEAD, more=1), "more"),
        (_changed(HEAD, kind="tail"), "kind"),
        (_changed(HEAD, feeds="pictures"), "feeds"),
        (_changed(HEAD, graph=""), "no name"),
        (_changed(HEAD, graph="a\nb"), "no name"),
        (_changed(HEAD, trunk=7), "no name"),
        (_changed(HEAD, trainables=[]), "trainables"),
        (_changed(HEAD, trainables={}), "trainables"),
        (_changed(HEAD, trainables=_trainable(grows=1)), "grows"),
        (_changed(HEAD, trainables=_trainable(part="half")), "part"),
        (_changed(HEAD, trainables=_trainable(shape=3)), "shape"),
        (_changed(HEAD, trainables=_trainable(shape=[1] * 7)), "shape"),
        (_changed(HEAD, trainables=_trainable(shape=[0])), "shape"),
        (_changed(HEAD, classes="cup"), "a list"),
        (_changed(HEAD, classes=["cup", "cup"]), "twice"),
        (_changed(HEAD, classes=[7]), "no name"),
        (_changed(LORA, trainables=_factors([2, 4], None)), "not both"),
        (_changed(LORA, trainables=_factors([2, 4], [4, 3])), "do not fit"),
        (_changed(LORA, trainables=_factors([2, 4, 1], [4, 2])), "do not fit"),
        (_changed(LORA, trainables=_factors([5000, 4], [4, 5000])), "rank 5000"),
        (_changed(LORA, alpha=0), "alpha"),
    ],
)
def test_what_is_not_a_lesson_is_refused(content: bytes, why: str) -> None:
    """One sentence says the bundle and what is wrong."""
    with pytest.raises(BundleCorrupt, match=rf"here: learn\.json.*{why}"):
        parse_lesson(content, where="here")
