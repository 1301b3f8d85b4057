"""Grammars of calls: what an answer that calls tools may look like, to the last letter."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from onhand.core.errors import InputError
from onhand.device.time_limit import TimeLimit
from onhand.device.tools.closing import closed
from onhand.device.tools.formats import CallFormat
from onhand.device.tools.kinds import Tool, ToolUse

__all__ = ["CallWriting", "Trigger", "check_arguments"]

_MOST_CALLS: Final = 16  # in one answer
_CHECKING: Final = TimeLimit("schema", most_s=5.0)
_MOST_SPACE: Final = 256  # bytes that a bare answer may have before it is known to be no call
_OPTIONS: Final = {"whitespace_pattern": r"(\n[ ]{0,16}|[ ])?", "coerce_one_of": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What an answer in free text must show for its rest to follow a grammar.

    Attributes:
        pattern: found in the bytes of the answer, up to the end of the call's beginning.
        grammars: of the rest, by what the pattern's group "name" found; "" where it has none.
        most_bytes: from the start, in which it must be found; None for anywhere.
    """

    pattern: re.Pattern[bytes]
    grammars: Mapping[str, str]
    most_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWriting:
    """Grammars of one model's calls, in llguidance's form of Lark.

    Attributes:
        form: how the model writes calls.
        tokens: text of an opening or closing -> its token, where it is one of its own.
    """

    form: CallFormat
    tokens: Mapping[str, int]

    def required(self, use: ToolUse) -> str:
        """Return the grammar of answers that are calls and nothing else."""
        return _lark(["start: calls", *self._calls(use)])

    def either(self, use: ToolUse, answer: str) -> str:
        """Return the grammar of answers that are calls, or follow another grammar.

        Args:
            use: what may be called.
            answer: as `onhand.device.guide.json_grammar` returns it.
        """
        lark = _lark(["start: calls | answer", *self._calls(use), "answer: @answer"])
        grammars = [dict(one) for one in json.loads(answer)["grammars"]]
        grammars[0]["name"] = "answer"
        return json.dumps({"grammars": [{"name": "calls", "lark_grammar": lark}, *grammars]})

    def trigger(self, use: ToolUse) -> Trigger:
        """Return what begins a call in free text, and how it must go on."""
        opening = re.escape(self.form.opening.encode())
        if self.form.layout != "bare":
            lark = _lark(["start: rest", *self._rest(use)])
            return Trigger(pattern=re.compile(opening), grammars={"": lark})
        # Any answer in JSON begins like this: only a tool's name makes it a call.
        names = b"|".join(re.escape(name.encode()) for name in use.names)
        pattern = rb'\A\s*(?:%s)?\s*\{\s*"name"\s*:\s*"(?P<name>%s)"' % (opening, names)
        grammars = {
            tool.name: _lark([
                f'start: "," _s {self._key()} _s ":" _s arguments_{place} _s "}}"',
                _arguments(place, tool),
                _SPACE,
            ])
            for place, tool in enumerate(use.callable_tools)
        }
        return Trigger(pattern=re.compile(pattern), grammars=grammars, most_bytes=_MOST_SPACE)

    def _calls(self, use: ToolUse) -> list[str]:
        if self.form.layout == "bare":
            return ["calls: call", *self._call(use)]
        return [f"calls: {self._mark(self.form.opening)} rest", *self._rest(use)]

    def _rest(self, use: ToolUse) -> list[str]:
        """Return the rules of what follows the first opening."""
        opening, closing = self._mark(self.form.opening), self._mark(self.form.closing)
        if self.form.layout == "list":
            more = f' (_s "," _s call){{0,{_MOST_CALLS - 1}}}' if use.is_parallel else ""
            return [f'rest: _s "[" _s call{more} _s "]" {closing}', *self._call(use)]
        more = f" (_s {opening} one){{0,{_MOST_CALLS - 1}}}" if use.is_parallel else ""
        return [f"rest: one{more}", f"one: _s call _s {closing}", *self._call(use)]

    def _call(self, use: ToolUse) -> list[str]:
        tools = use.callable_tools
        rules = ["call: " + " | ".join(f"call_{place}" for place in range(len(tools)))]
        for place, tool in enumerate(tools):
            name = _text(json.dumps(tool.name))
            rules += [
                f'call_{place}: "{{" _s {_text(_quoted("name"))} _s ":" _s {name} _s "," '
                f'_s {self._key()} _s ":" _s arguments_{place} _s "}}"',
                _arguments(place, tool),
            ]
        return [*rules, _SPACE]

    def _key(self) -> str:
        return _text(_quoted(self.form.arguments))

    def _mark(self, text: str) -> str:
        if text in self.tokens:
            return f"<[{self.tokens[text]}]>"
        return _text(text) if text else ""


_SPACE: Final = "_s: /[ \\n]?/"


def _lark(rules: Sequence[str]) -> str:
    return "\n".join(["%llguidance {}", *rules, ""])


def _text(text: str) -> str:
    return json.dumps(text)


def _quoted(text: str) -> str:
    return f'"{text}"'


def check_arguments(schema: Mapping[str, object], *, is_strict: bool) -> None:
    """Check that arguments can be made to follow a schema, whatever model writes them.

    Args:
        schema: of an object.
        is_strict: whether parts that cannot be followed are an error.

    Raises:
        InputError: if they cannot, or it takes too long to say.
        EngineBusy: if others for which it does are still looked at.
    """
    import llguidance

    tool = Tool(name="tool", description="", parameters=schema, is_strict=is_strict)
    lark = _lark(["start: arguments_0", _arguments(0, tool)])
    if error := _CHECKING.run(lambda: llguidance.LLMatcher.validate_grammar(lark)):
        reason = error.splitlines()[0].rpartition("JSON schema: ")[2]
        raise InputError(f"cannot be followed: {reason[:200]}")


def _arguments(place: int, tool: Tool) -> str:
    schema = closed(tool.parameters)
    if "$ref" not in schema:
        schema.setdefault("type", "object")
    options = _OPTIONS | {"lenient": not tool.is_strict}
    return f"arguments_{place}: %json " + json.dumps(schema | {"x-guidance": options})
