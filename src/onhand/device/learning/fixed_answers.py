"""What a language model answers to a few fixed prompts: whether it still speaks as it did."""

from collections.abc import Iterable
from typing import Final

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineUnavailable
from onhand.core.lesson import Lesson
from onhand.device.learning.base import Values
from onhand.device.learning.examples import Dialogue, Example
from onhand.device.learning.in_use import adapter_of
from onhand.device.template import Message

__all__ = ["fixed_answers"]

_MOST_PROMPTS: Final = 8
_MOST_TOKENS: Final = 128
_NOBODY: Final = "0" * 64


def fixed_answers(
    bundle: Bundle, lesson: Lesson, values: Values, examples: Iterable[Example], *, threads: int
) -> tuple[str, ...]:
    """Return the likeliest answers to the first prompts of some conversations.

    The very engine that would answer computes them, with what was learned added to it.

    Args:
        bundle: a verified bundle.
        lesson: of a language model; of another network nothing is asked.
        values: of every trainable.
        examples: held-out ones; those that are no conversations are left out.
        threads: of a step.

    Returns:
        Up to 8 answers of up to 128 tokens; none where the model takes no messages, or no engine
        can run it here: the gate's report says how many there were.

    Raises:
        OnhandError: if the engine fails, or a prompt does not fit.
    """
    if lesson.feeds != "tokens":
        return ()
    prompts = [one.messages[: one.learned[0]] for one in examples if isinstance(one, Dialogue)]
    if not prompts:
        return ()
    return _answers(bundle, lesson, values, prompts[:_MOST_PROMPTS], threads=threads)


def _answers(
    bundle: Bundle,
    lesson: Lesson,
    values: Values,
    prompts: list[tuple[Message, ...]],
    *,
    threads: int,
) -> tuple[str, ...]:
    # Here, for what opens bundles reads what was learned.
    from onhand.device.opening import open_engine, open_text

    adapter = adapter_of(lesson, values, decoder=bundle.manifest.decoder, sha256=_NOBODY)
    try:
        loaded, _, _ = open_engine(
            bundle, variant=lesson.variant, engine=None, threads=threads, adapter=adapter
        )
    except EngineUnavailable:
        return ()
    with open_text(bundle, loaded) as session:
        if not session.takes_messages:
            return ()
        return tuple(
            "".join(session.generate(prompt, max_tokens=_MOST_TOKENS)) for prompt in prompts
        )
