"""A request as a question and what stands around it."""

from dataclasses import replace

import pytest

from onhand.device.sampling import Sampling
from onhand.device.serving.asks import Ask
from onhand.device.serving.caches.questions import CacheUse, question_of, read_cache_use
from onhand.device.serving.refusals import RefusedRequest
from onhand.device.template import Message
from onhand.device.tools.kinds import ToolCall

SALT = b"s" * 32
TURNS = (Message("system", "be brief"), Message("user", "hello"), Message("assistant", "hi"))
LAST = Message("user", "a lamp?")
ASK = Ask(tenant="a", prompt=(*TURNS, LAST))


def around(ask: Ask, model: str = "m", salt: bytes = SALT) -> bytes:
    found = question_of([ask], model=model, salt=salt)
    assert found is not None
    return found.around


def test_only_the_last_message_may_differ() -> None:
    """Its text is the question."""
    other = replace(ASK, prompt=(*TURNS, Message("user", "the lamp?")))
    found = question_of([other], model="m", salt=SALT)

    assert found is not None
    assert found.text == "the lamp?"
    assert found.around == around(ASK)


@pytest.mark.parametrize(
    "other",
    [
        replace(ASK, tenant="b"),
        replace(ASK, prompt=(Message("system", "be long"), *TURNS[1:], LAST)),
        replace(ASK, prompt=(*TURNS[:2], LAST)),
        replace(
            ASK,
            prompt=(
                *TURNS[:2],
                Message("assistant", "hi", (ToolCall("1", "f", "{}"),)),
                LAST,
            ),
        ),
        replace(ASK, max_tokens=5),
        replace(ASK, sampling=Sampling(temperature=1, seed=1)),
        replace(ASK, stop=("x",)),
        replace(ASK, grammar="{}"),
    ],
)
def test_attack_all_around_it_counts(other: Ask) -> None:
    """The tenant first, and each turn before."""
    assert around(other) != around(ASK)


def test_attack_nobody_else_can_make_the_hash() -> None:
    """Another model or another server has another one."""
    assert around(ASK, model="n") != around(ASK)
    assert around(ASK, salt=b"t" * 32) != around(ASK)


@pytest.mark.parametrize(
    "asks",
    [
        [ASK, ASK],
        [replace(ASK, prompt="a text")],
        [replace(ASK, prompt=TURNS)],
        [replace(ASK, prompt=(Message("user", "  "),))],
        [replace(ASK, prompt=(Message("user", "x" * 5000),))],
        [replace(ASK, sampling=Sampling(temperature=1))],
        [replace(ASK, n_scores=1)],
    ],
)
def test_some_requests_have_no_similar_ones(asks: list[Ask]) -> None:
    """What is drawn, what has several choices, and what does not end with a question."""
    assert question_of(asks, model="m", salt=SALT) is None


def test_a_request_says_what_caches_may_do() -> None:
    """In a header; a word that is not known is refused."""
    assert read_cache_use(None) == CacheUse()
    assert read_cache_use("no-semantic") == CacheUse(finds_similar=False)
    assert read_cache_use(" No-Store ") == CacheUse(False, False, False)
    assert read_cache_use("no-cache, no-semantic") == CacheUse(False, False, True)
    with pytest.raises(RefusedRequest, match="no-semantic, no-cache and no-store"):
        read_cache_use("never")
