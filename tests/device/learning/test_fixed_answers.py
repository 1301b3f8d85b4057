"""A candidate is asked a few fixed things, by the engine that would answer with it."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from tests.device.learning.test_in_use import learning_bundle, lora, start_of

from onhand.core.adapter import Adapter
from onhand.core.bundle import Bundle
from onhand.core.errors import EngineUnavailable
from onhand.device import opening
from onhand.device.learning.examples import Dialogue, Example, PlainText
from onhand.device.learning.fixed_answers import fixed_answers
from onhand.device.template import Message


class Session:
    """Says what it was asked, and how much is added to the model."""

    takes_messages = True

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter

    def generate(self, prompt: tuple[Message, ...], *, max_tokens: int) -> Iterator[str]:
        """See `TextSession`."""
        assert max_tokens == 128
        yield f"{prompt[-1].content} {len(self.adapter.pairs)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to release."""


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A language model that can learn, in an engine that echoes."""

    def open_engine(*_: object, adapter: Adapter, **__: object) -> tuple[Adapter, str, object]:
        return adapter, "echo", {}

    monkeypatch.setattr(opening, "open_engine", open_engine)
    monkeypatch.setattr(opening, "open_text", lambda _, loaded: Session(loaded))
    return learning_bundle(tmp_path / "toy")


def talk(*texts: str) -> Dialogue:
    """A question, an answer, and so on; all answers are learned."""
    messages = tuple(Message("user" if i % 2 == 0 else "assistant", t) for i, t in enumerate(texts))
    return Dialogue(messages=messages, learned=tuple(range(1, len(texts), 2)))


def test_prompts_end_before_what_is_learned(bundle: Bundle) -> None:
    """The candidate answers with its own tensors; texts without a question are left out."""
    examples: list[Example] = [talk("a", "b", "c", "d"), PlainText(text="x"), talk("e", "f")]
    start = start_of(lora())
    taught = start | {"out.B": np.ones_like(start["out.B"])}

    assert fixed_answers(bundle, lora(), start, examples, threads=1) == ("a 0", "e 0")
    assert fixed_answers(bundle, lora(), taught, examples, threads=1) == ("a 1", "e 1")


def test_eight_are_enough(bundle: Bundle) -> None:
    """However many examples are held out."""
    examples = [talk(str(i), "yes") for i in range(20)]

    assert len(fixed_answers(bundle, lora(), start_of(lora()), examples, threads=1)) == 8


def test_without_an_engine_or_conversations_nothing_is_asked(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report says that there were none."""

    def refuse(*_: object, **__: object) -> None:
        raise EngineUnavailable("no engine here")

    start = start_of(lora())
    assert fixed_answers(bundle, lora(), start, [PlainText(text="x")], threads=1) == ()
    monkeypatch.setattr(opening, "open_engine", refuse)
    assert fixed_answers(bundle, lora(), start, [talk("a", "b")], threads=1) == ()
