"""Fields of a request of any type and size are understood, or refused by name."""

import json

import pytest

from onhand.core.errors import InputError
from onhand.device.sampling import Sampling
from onhand.device.serving.api.bodies import parse_body
from onhand.device.serving.api.bounds import (
    MOST_BIASES,
    MOST_CHOICES,
    MOST_PROMPTS,
    MOST_SCORES,
    MOST_STOPS,
    MOST_TOKENS,
)
from onhand.device.serving.api.completions import read_chat, read_completion
from onhand.device.serving.refusals import Refusal, RefusedRequest


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"messages": [{"role": "user", "content": [{"type": []}]}]}, "content"),
        ({"messages": [{"role": "user", "content": [{"type": {}, "text": "a"}]}]}, "content"),
        ({"temperature": 10**298}, "temperature"),
        ({"temperature": -(10**298)}, "temperature"),
        ({"x" * 100_000: 1}, "is no field"),
    ],
)
def test_attack_values_of_other_types(fields: dict[str, object], told: str) -> None:
    """Found by fuzzing: never another exception than ours."""
    body = {"messages": [{"role": "user", "content": "a"}], **fields}
    with pytest.raises(RefusedRequest, match=told) as refused:
        read_chat(parse_body(json.dumps(body).encode()), tenant="t", usual=Sampling())

    assert len(json.dumps(refused.value.refusal.body())) < 2500


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"n": MOST_CHOICES + 1}, "n: is 17"),
        ({"n": 9, "prompt": ["a", "b"]}, "makes 18 choices"),
        ({"prompt": ["a"] * (MOST_PROMPTS + 1)}, "at most 16"),
        ({"max_tokens": MOST_TOKENS + 1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": MOST_SCORES + 1}, "logprobs"),
        ({"stop": ["a"] * (MOST_STOPS + 1)}, "at most 4"),
        ({"logit_bias": dict.fromkeys(map(str, range(MOST_BIASES + 1)), 1)}, "at most 1024"),
    ],
)
def test_attack_a_request_for_far_too_much(fields: dict[str, object], told: str) -> None:
    """Each ceiling is there, and is told."""
    body = {"prompt": "a", **fields}
    with pytest.raises(RefusedRequest, match=told):
        read_completion(parse_body(json.dumps(body).encode()), tenant="t", usual=Sampling())


def test_attack_numbers_that_no_float_holds() -> None:
    """They are refused before anybody computes with them."""
    with pytest.raises(InputError, match="401 digits"):
        parse_body(b'{"temperature": ' + b"1" * 401 + b"}")


def test_attack_an_answer_repeats_little_of_a_request() -> None:
    """However long its words are."""
    refusal = Refusal(status=400, message="m" * 9000, param="p" * 9000)

    assert len(json.dumps(refusal.body())) < 2500
