"""Methods by name."""

import numpy as np
import pytest
from tests.device.learning.methods.models import HeadTeachable, LowRankTeachable
from tests.device.learning.models import TableTeachable

from onhand.core.errors import InputError
from onhand.device.learning.methods.choosing import METHODS, make_method
from onhand.device.learning.methods.options import MethodOptions, told_options

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_serves_the_lesson_it_is_for(name: str) -> None:
    """By its own name."""
    lesson = LowRankTeachable().lesson if name == "olora" else HeadTeachable().lesson

    assert make_method(name, lesson, rng=RNG).name == name


@pytest.mark.parametrize("name", ["replay+lwf", "der+++ewc", "ewc+der++", "lwf+er-ace+ewc"])
def test_methods_are_joined(name: str) -> None:
    """Also one whose name ends with the sign that joins."""
    assert make_method(name, HeadTeachable().lesson, rng=RNG).name == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("der", "did you mean 'der\\+\\+'"),
        ("nothing", "known: naive"),
        ("", "unknown method"),
        ("replay+der++", "both replay"),
        ("naive+ewc", "goes with no other"),
        ("ewc+prototypes", "goes with no other"),
        ("ewc+ewc", "given twice"),
        ("olora", "ranks for each session"),
    ],
)
def test_names_that_mean_nothing_are_refused(name: str, why: str) -> None:
    """With what to write instead."""
    with pytest.raises(InputError, match=why):
        make_method(name, HeadTeachable().lesson, rng=RNG)


def test_what_tells_classes_apart_is_not_for_texts() -> None:
    """A language model has none."""
    with pytest.raises(InputError, match="take replay"):
        make_method("er-ace", TableTeachable(5).lesson, rng=RNG)
    with pytest.raises(InputError, match="kind head"):
        make_method("prototypes", TableTeachable(5).lesson, rng=RNG)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_bytes", -1),
        ("temperature", 0.0),
        ("ewc_decay", 1.5),
        ("lwf_strength", float("nan")),
    ],
)
def test_options_out_of_range_are_refused(name: str, value: float) -> None:
    """By their names."""
    with pytest.raises(InputError, match=f"{name} is"):
        MethodOptions(**{name: value})  # type: ignore[arg-type]  # by its name


def test_an_unknown_precision_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(InputError, match="float16, float32, uint8"):
        MethodOptions(precision="int4")


def test_options_follow_the_name() -> None:
    """Of every kind; those that are not told stay as they were."""
    begun = MethodOptions(temperature=3.0)
    told = told_options(
        begun, ["replayed=16", "past_weight=1", "balanced=false", "precision=uint8"]
    )

    assert told == MethodOptions(
        temperature=3.0, replayed=16, past_weight=1.0, balanced=False, precision="uint8"
    )
    made = make_method("der+++lwf,replayed=16", HeadTeachable().lesson, rng=RNG)
    assert made.name == "der+++lwf"


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("replay,replayd=1", "did you mean 'replayed'"),
        ("replay,replayed", "unknown option 'replayed'"),
        ("replay,replayed=x", "must be a number"),
        ("replay,replayed=1,replayed=2", "told twice"),
        ("replay,balanced=1", "true or false"),
        ("replay,ewc_decay=2", "must be from 0 to 1"),
        ("replay,precision=int4", "precision is"),
    ],
)
def test_options_that_mean_nothing_are_refused(told: str, why: str) -> None:
    """With what was meant."""
    with pytest.raises(InputError, match=why):
        make_method(told, HeadTeachable().lesson, rng=RNG)
