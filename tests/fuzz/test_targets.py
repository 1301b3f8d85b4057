"""Whatever comes in, a parser takes it or raises one of our errors."""

import importlib.util
import random
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import files, requests, sources
from tests.fuzz.changes import changed
from tests.fuzz.targets import Target, is_taken

TARGETS = (*files.TARGETS, *requests.TARGETS, *sources.TARGETS)
EXAMPLES = 25


def needed(target: Target) -> None:
    """Skip a parser of what is not installed."""
    if target.needs and importlib.util.find_spec(target.needs) is None:
        pytest.skip(f"{target.needs} is not installed")


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_samples_are_taken(target: Target) -> None:
    """Else what is made of them would be refused at the door."""
    needed(target)
    assert all(is_taken(target, sample) for sample in target.samples)


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=EXAMPLES, database=None)
def test_attack_a_sample_that_was_changed(target: Target, seed: int) -> None:
    """Anything but one of our errors fails; `python -m tests.fuzz` tries many more."""
    needed(target)
    dice = random.Random(seed)  # noqa: S311 - reproducible
    content = changed(dice.choice(target.samples), target.samples, dice)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of pictures and numbers
        is_taken(target, content)


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_attack_bytes_of_nothing(target: Target) -> None:
    """Empty, of zeros, and of no encoding."""
    needed(target)
    for content in (b"", b"\0" * 64, b"\xff\xfe" * 9, b"{}", b"[]", b"null", b"\n"):
        is_taken(target, content)
