"""Prompts to tokens: plain texts and conversations, and what happens when they do not fit."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from onhand.core.arrays import TokenArray
from onhand.core.errors import ContextOverflow, InputError
from onhand.device.template import ChatTemplate, Message
from onhand.device.text import Tokenizer

__all__ = ["OVER_HTTP", "Advice", "Overflow", "PromptReader", "user_texts"]

Overflow = Literal["error", "drop-oldest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What those can do whose prompt is refused; the defaults are for Python and its commands.

    Attributes:
        overflow: where a prompt does not fit.
        turns: likewise, in addition, where older turns could go.
        plain: where messages need a chat template that there is none of.
    """

    overflow: str = "shorten it or open the model with a larger context"
    turns: str = ", or pass overflow='drop-oldest'"
    plain: str = "give a plain prompt, as 'onhand run NAME --prompt TEXT' does"


OVER_HTTP: Final = Advice(
    overflow="shorten it, or give the model more `context` in serve.toml where it can take more",
    turns="; or leave out older turns",
    plain="send a plain prompt to /v1/completions",
)
"""For those who ask a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReader:
    """Turns what a person gives into tokens that fit; safe to share between threads.

    Attributes:
        tokenizer: the model's.
        template: its chat template; None if it has none.
        name: the model's name for messages.
        advice: what messages tell those to do whose prompt is refused.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    name: str
    advice: Advice = Advice()

    def read(
        self,
        prompt: str | Sequence[Message],
        *,
        context: int,
        max_tokens: int | None,
        overflow: Overflow,
        render: Callable[[Sequence[Message]], str] | None = None,
    ) -> tuple[TokenArray, int]:
        """Return the tokens of a prompt, none of them cut off.

        Args:
            prompt: a plain text, or the messages of a conversation.
            context: most tokens of prompt and answer together.
            max_tokens: most tokens of the answer, if known.
            overflow: "error", or "drop-oldest" to leave out whole turns of a conversation.
            render: how messages become text; None for what the template does by itself.

        Returns:
            tokens: (T,) int64, 1 <= T <= `context`.
            dropped: how many messages were left out.

        Raises:
            ContextOverflow: if the prompt does not fit.
            InputError: if it is empty, there is no chat template for messages, or turns of a
                plain prompt are to be left out.
        """
        if overflow not in {"error", "drop-oldest"}:
            raise InputError(f"overflow is {overflow!r}, must be 'error' or 'drop-oldest'")
        is_plain = isinstance(prompt, str)
        dropped = 0
        if not isinstance(prompt, str):
            tokens, dropped = self._conversation(prompt, context, max_tokens, overflow, render)
        elif overflow == "drop-oldest":
            raise InputError("overflow='drop-oldest' needs messages: a plain prompt has no turns")
        else:
            tokens = self.tokenizer.encode_plain(prompt)
        if not len(tokens):
            raise InputError("prompt: has no token; give some text")
        if len(tokens) > context:
            advice = self.advice.overflow
            if not is_plain and overflow == "error":
                advice += self.advice.turns
            raise ContextOverflow(
                f"{self.name}: the prompt has {len(tokens)} tokens, the context holds {context}; "
                f"{advice}"
            )
        return tokens, dropped

    def _conversation(
        self,
        messages: Sequence[Message],
        context: int,
        max_tokens: int | None,
        overflow: Overflow,
        render: Callable[[Sequence[Message]], str] | None,
    ) -> tuple[TokenArray, int]:
        if self.template is None:
            raise InputError(
                f"{self.name}: has no chat template (chat_template.jinja, or chat_template in "
                f"tokenizer_config.json), so it cannot chat; {self.advice.plain}"
            )
        render, encode = render or self.template.render, self.tokenizer.encode_template
        tokens = encode(render(messages))
        # Room for an answer, or dropping turns would only just make the question fit.
        quarter = context // 4
        room = context - (quarter if max_tokens is None else min(max_tokens, quarter))
        if overflow == "error" or len(tokens) <= room:
            return tokens, 0
        head = next((i for i, m in enumerate(messages) if not _instructs(m)), len(messages))
        # Only whole turns go: many templates refuse an answer without its question.
        starts = [i for i in range(head + 1, len(messages)) if messages[i].role == "user"]
        if not starts:
            return tokens, 0

        def tokens_from(start: int) -> TokenArray:
            return encode(render([*messages[:head], *messages[start:]]))

        place = bisect_left(starts, True, key=lambda start: len(tokens_from(start)) <= room)
        start = starts[min(place, len(starts) - 1)]
        return tokens_from(start), start - head


def user_texts(prompt: str | Sequence[Message]) -> tuple[str, ...]:
    """Return what decides whether a prompt is like what was taught: what its user says in it.

    Args:
        prompt: a text, or the messages of a conversation.
    """
    if isinstance(prompt, str):
        return (prompt,)
    return tuple(one.content for one in prompt if one.role == "user")


def _instructs(message: Message) -> bool:
    return message.role in {"system", "developer"}
