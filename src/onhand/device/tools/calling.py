"""All that one model needs to be asked with tools: its prompts, its grammars, its calls."""

import secrets
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from onhand.device.guide import AwaitingGuide, Guide, GuideMaker
from onhand.device.template import ChatTemplate, Message
from onhand.device.text import TextStream, Tokenizer
from onhand.device.text_files import TextFiles
from onhand.device.tools.kinds import ToolUse
from onhand.device.tools.scanning import CallScanner
from onhand.device.tools.telling import Telling, telling_of
from onhand.device.tools.writing import CallWriting

__all__ = ["Calling", "calling_of"]


class Calling:
    """How one model is told of tools, and calls them; may be shared between threads.

    Nothing is looked at before the first conversation with tools.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate | None, guides: GuideMaker
    ) -> None:
        """Remember what is needed.

        Args:
            tokenizer: the model's.
            template: its chat template; None if it has none.
            guides: of its tokens.
        """
        self._tokenizer = tokenizer
        self._template = template
        self._guides = guides

    @cached_property
    def telling(self) -> Telling:
        """How it is told of tools, and in which form it calls them."""
        return telling_of(self._template)

    @cached_property
    def markers(self) -> dict[str, int]:
        """The openings and closings of calls that are tokens of their own."""
        form = self.telling.form
        found = {text: self._tokenizer.find(text) for text in (form.opening, form.closing) if text}
        return {text: token for text, token in found.items() if token is not None}

    def render(self, messages: Sequence[Message], use: ToolUse | None) -> str:
        """Return the text of a conversation; see `Telling.render`.

        Args:
            messages: at least one.
            use: what is offered; None for nothing.

        Returns:
            The text.

        Raises:
            InputError: as in `Telling.render`.
        """
        if use is None and self._template is not None and not any(map(_concerns_tools, messages)):
            return self._template.render(messages)
        return self.telling.render(messages, use)

    def guide(self, use: ToolUse | None, grammar: str | None) -> Guide | AwaitingGuide | None:
        """Return what keeps an answer to its grammars; None where it may be any text.

        Args:
            use: what may be called, and whether it must; None for nothing.
            grammar: of answers that call nothing; None for any text.

        Raises:
            InputError: if a schema cannot be followed.
            EngineError: if the tokenizer cannot follow grammars.
        """
        if use is None:
            return None if grammar is None else self._guides.guide(grammar)
        writing = CallWriting(form=self.telling.form, tokens=self._guides.tokens_of(self.markers))
        if use.is_required:
            return self._guides.guide(writing.required(use))
        if grammar is not None:
            return self._guides.guide(writing.either(use, grammar))
        return self._guides.awaiting(writing.trigger(use), bytes_of=self._bytes_of)

    def stream(self, use: ToolUse | None) -> TextStream:
        """Start to turn tokens into text, the markers of calls included."""
        return self._tokenizer.stream(shown=() if use is None else self.markers.values())

    def scanner(self, use: ToolUse | None) -> CallScanner | None:
        """Start to read an answer that may call tools; None for one that may not."""
        if use is None:
            return None
        return CallScanner(self.telling.form, use.names, make_id=_new_id)

    def _bytes_of(self, token: int) -> bytes:
        for text, marker in self.markers.items():
            if token == marker:
                return text.encode()
        return self._tokenizer.token_bytes(token)


def calling_of(files: TextFiles, tokenizer: Path, vocab_size: int) -> Calling:
    """Return how a bundle's model is asked with tools.

    Args:
        files: what its text files say.
        tokenizer: its `tokenizer.json`.
        vocab_size: V, logits in a row of the model.
    """
    guides = GuideMaker(tokenizer, vocab_size=vocab_size, stop_ids=files.stop_ids)
    return Calling(files.tokenizer, files.template, guides)


def _concerns_tools(message: Message) -> bool:
    return bool(message.calls) or message.role == "tool"


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"
