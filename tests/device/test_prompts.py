"""Prompts that fit, and conversations that are made to."""

from dataclasses import replace
from functools import lru_cache

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from onhand.core.errors import ContextOverflow, InputError
from onhand.device.prompts import OVER_HTTP, PromptReader
from onhand.device.template import ChatTemplate, Message
from onhand.device.text import open_tokenizer

TEMPLATE = """{% for m in messages %}
{%- if m.role == 'assistant' and loop.first %}{{ raise_exception('no') }}{% endif -%}
{{ m.role[0] }}:{{ m.content }};{% endfor %}"""


@lru_cache
def reader() -> PromptReader:
    """One token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[])
    )
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    return PromptReader(
        tokenizer=open_tokenizer(model.to_str().encode()),
        template=ChatTemplate(TEMPLATE),
        name="toy",
    )


def talk(n_turns: int) -> list[Message]:
    """A system message, some turns and a last question."""
    messages = [Message("system", "brief")]
    for i in range(n_turns):
        messages += [Message("user", f"question {i}"), Message("assistant", f"answer {i}")]
    return [*messages, Message("user", "last")]


@given(
    n_turns=st.integers(0, 30),
    context=st.integers(60, 400),
    max_tokens=st.none() | st.integers(1, 500),
)
def test_as_few_turns_go_as_leave_room(n_turns: int, context: int, max_tokens: int | None) -> None:
    """The system message and the last question stay, whole turns go, and one less is too few."""
    messages = talk(n_turns)
    tokens, dropped = reader().read(
        messages, context=context, max_tokens=max_tokens, overflow="drop-oldest"
    )
    room = context - min(context // 4, max_tokens or context)

    def length(kept: list[Message]) -> int:
        return sum(len(f"u:{m.content};") for m in kept)

    assert reader().tokenizer.decode(tokens) == "".join(
        f"{m.role[0]}:{m.content};" for m in [messages[0], *messages[1 + dropped :]]
    )
    assert dropped % 2 == 0
    assert len(tokens) <= room
    assert dropped == 0 or length([messages[0], *messages[dropped - 1 :]]) > room


def test_a_conversation_without_system_message_loses_its_first_turns() -> None:
    """There is nothing to keep at its head."""
    tokens, dropped = reader().read(
        talk(9)[1:], context=60, max_tokens=None, overflow="drop-oldest"
    )

    assert reader().tokenizer.decode(tokens) == "u:question 8;a:answer 8;u:last;"
    assert dropped == 16


def test_a_last_turn_that_does_not_fit_is_an_error() -> None:
    """Dropping everything before it does not help, and no message is cut."""
    long = Message("user", "x" * 60)
    for messages in ([*talk(2)[:-1], long], [long], [Message("system", "s"), long]):
        with pytest.raises(ContextOverflow, match=r"toy: .* the context holds 50; shorten it"):
            reader().read(messages, context=50, max_tokens=None, overflow="drop-oldest")


def test_advice_is_for_those_who_ask() -> None:
    """Who asks over HTTP has no parameter of Python's, and no command."""
    asked = replace(reader(), advice=OVER_HTTP)
    with pytest.raises(ContextOverflow, match=r"`context` in serve.toml.*; or leave out older"):
        asked.read(talk(9), context=60, max_tokens=None, overflow="error")
    with pytest.raises(InputError, match="cannot chat; send a plain prompt to /v1/completions"):
        replace(asked, template=None).read(talk(1), context=60, max_tokens=None, overflow="error")


def test_a_last_turn_that_just_fits_is_kept() -> None:
    """Where no dropping makes room for an answer, the question alone is still asked."""
    messages = [*talk(2)[1:-1], Message("user", "x" * 40)]
    tokens, dropped = reader().read(messages, context=50, max_tokens=None, overflow="drop-oldest")

    assert (len(tokens), dropped) == (43, 4)


def test_without_asking_nothing_is_dropped() -> None:
    """A conversation that does not fit is an error that names the way out."""
    with pytest.raises(ContextOverflow, match="pass overflow='drop-oldest'"):
        reader().read(talk(9), context=60, max_tokens=None, overflow="error")
