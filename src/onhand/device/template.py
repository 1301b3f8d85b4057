"""Chat templates: messages to the text that a model was trained to continue."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from onhand.core.errors import BundleCorrupt, InputError
from onhand.device.tools.kinds import Tool, ToolCall, parsed_arguments

__all__ = ["ROLES", "ChatTemplate", "Message"]

ROLES = ("system", "developer", "user", "assistant", "tool")
_MAX_SOURCE: Final = 2**18  # characters; real ones have under 20,000
_WORK: Final = 2**21  # units of the sandbox's purse, and more for longer conversations
_WORK_PER_MESSAGE: Final = 2**13
_WORK_PER_LETTER: Final = 64


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: one of `ROLES`.
        content: its text.
        calls: tools that this answer called.
        call_id: which call this is the result of; "" for none.
        name: the tool whose result this is; "" where nobody said.
    """

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"message: role is {self.role!r}, must be one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise InputError(f"message: content is {type(self.content).__name__}, must be a text")


class ChatTemplate:
    """One model's chat template, run in a sandbox; safe to share between threads.

    Attributes:
        source: in jinja2's language.
    """

    def __init__(
        self,
        source: str,
        *,
        special_tokens: Mapping[str, str] | None = None,
        where: str = "chat template",
    ) -> None:
        """Compile a template.

        Args:
            source: in jinja2's language, as Hugging Face models ship it.
            special_tokens: what it may name, such as "bos_token" and "eos_token".
            where: its file's name for messages.

        Raises:
            BundleCorrupt: if it is not valid, or asks for what the sandbox does not have.
        """
        from onhand.device.sandbox import Purse, Sandbox

        if len(source) > _MAX_SOURCE:
            raise BundleCorrupt(
                f"{where}: has {len(source)} characters, more than the {_MAX_SOURCE} allowed"
            )
        self.source = source
        self._special_tokens = dict(special_tokens or {})
        self._purse = Purse(_WORK)
        self._lock = threading.Lock()
        try:
            self._template = Sandbox(self._purse).from_string(source)
        except Exception as error:
            # Parsing, compiling and folding constants run the outsider's text: anything may come.
            raise BundleCorrupt(f"{where}: cannot be used: {_clause(error)}") from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        add_generation_prompt: bool = True,
    ) -> str:
        """Return the text that stands for a conversation.

        Args:
            messages: at least one.
            tools: what the model is told that it may call.
            add_generation_prompt: whether to end with the opening of the assistant's turn.

        Returns:
            The text, special tokens included: for `Tokenizer.encode_template`.

        Raises:
            InputError: if there is no message, the template refuses them, or it needs more work
                than is allowed.
        """
        if not messages:
            raise InputError("chat: there is no message; give at least one")
        turns = [_as_table(message) for message in messages]
        offered = [{"type": "function", "function": tool.described()} for tool in tools]
        letters = _letters_in([turns, offered])
        with self._lock:
            self._purse.left = (
                _WORK + _WORK_PER_MESSAGE * len(messages) + _WORK_PER_LETTER * letters
            )
            try:
                return self._template.render(
                    **self._special_tokens,
                    messages=turns,
                    tools=offered or None,
                    documents=None,
                    add_generation_prompt=add_generation_prompt,
                )
            except Exception as error:
                # A template can provoke any error; none of them is the caller's to sort out, who
                # may be elsewhere, and is not told where the bundle lies.
                raise InputError(
                    f"chat template: cannot render these {len(messages)} messages: {_clause(error)}"
                ) from error


def _as_table(message: Message) -> dict[str, object]:
    """Return a turn as templates expect it; they ask whether the keys of calls are there."""
    turn: dict[str, object] = {"role": message.role, "content": message.content}
    if message.calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": parsed_arguments(call.arguments)},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        turn["tool_call_id"] = message.call_id
        turn["name"] = message.name
    return turn


def _letters_in(value: object) -> int:
    letters, waiting = 0, [value]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, str):
            letters += len(thing)
        elif isinstance(thing, Mapping):
            letters += 8 * len(thing)
            waiting += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple):
            letters += 8 * len(thing)
            waiting += thing
    return letters


def _clause(error: Exception) -> str:
    """Return an error as one clause for people, cut where a template made it long."""
    if isinstance(error, RecursionError):
        return "it nests too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."
