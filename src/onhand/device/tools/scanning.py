"""Answers with calls in them, letter by letter: what is text, and what is a call."""

import json
from collections import deque
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from typing import Final

from onhand.device.tools.formats import CallFormat
from onhand.device.tools.kinds import CallPart
from onhand.device.tools.nesting import Nesting

__all__ = ["CallScanner"]

_SPACE: Final = " \t\r\n"
_ARGUMENTS: Final = ("arguments", "parameters")
_MOST_HELD: Final = 2**14  # letters that may turn out to be no call

_Reader = Generator[None, str]
"""Reads a part of a call: it is sent letter after letter, and "" at the answer's end."""


class _NoCall(Exception):
    """What was held is text."""


class _NoClosing(Exception):
    """What was held is not the end of a call, and may be anything."""


class CallScanner:
    """Takes an answer's text as it comes, and gives text and parts of calls. One thread at a time.

    What begins like a call waits until it names a tool and its arguments begin; whatever turns out
    not to be one is given back as the text that it is. White space before a call is not shown.
    """

    def __init__(
        self, form: CallFormat, names: Collection[str], *, make_id: Callable[[], str]
    ) -> None:
        """Start before the first letter.

        Args:
            form: how calls are written.
            names: tools that may be called; the name of another makes no call.
            make_id: makes the ids of calls.
        """
        self._form = form
        self._names = frozenset(names)
        self._make_id = make_id
        self._waiting: deque[str] = deque()
        self._out: list[str | CallPart] = []
        self._tail = ""  # white space, and what may begin an opening
        self._held: list[str] = []  # what may be a call, since something was given out
        self._reader: _Reader | None = None
        self._pushed: list[str] = []
        self._may_begin = True  # nothing but white space since the start or a call
        self._is_open = False
        self._n_begun = 0
        self.n_whole = 0

    @property
    def is_inside(self) -> bool:
        """Whether a call was begun and has not ended."""
        return self._is_open

    def push(self, text: str) -> list[str | CallPart]:
        """Take more text.

        Args:
            text: what comes next.

        Returns:
            What is known now: texts and parts of calls, in order.
        """
        self._waiting.extend(text)
        self._run()
        return self._taken()

    def finish(self) -> list[str | CallPart]:
        """Return what was held, as no more comes."""
        while self._reader is not None:
            self._send("")
            self._run()
        # White space behind a call is the form's, elsewhere it is the answer's.
        if self._tail.strip(_SPACE) or not (self._may_begin and self._n_begun):
            self._out.append(self._tail)
        self._tail = ""
        return self._taken()

    def _taken(self) -> list[str | CallPart]:
        out, self._out = self._out, []
        joined: list[str | CallPart] = []
        for part in out:
            last = joined[-1] if joined else None
            if isinstance(part, str) and isinstance(last, str):
                joined[-1] = last + part
            elif isinstance(part, CallPart) and isinstance(last, CallPart) and _goes_on(last, part):
                arguments = last.arguments + part.arguments
                joined[-1] = CallPart(last.index, arguments=arguments, is_end=part.is_end)
            elif part != "":
                joined.append(part)
        return joined

    def _run(self) -> None:
        while self._waiting:
            letter = self._waiting.popleft()
            if self._reader is None:
                self._text(letter)
            else:
                self._send(letter)

    def _text(self, letter: str) -> None:
        bare = self._form.layout == "bare" and self._may_begin
        seen = self._tail + letter
        begun = seen.lstrip(_SPACE)
        if begun == self._form.opening or (bare and begun == "{"):
            self._begin(seen, begun)
        elif bare and self._n_begun and begun == ";":
            self._tail = ""  # stands between calls
        elif self._form.opening.startswith(begun):
            self._tail = seen
        else:
            n = len(seen) - len(begun) + 1
            self._out.append(seen[:n])
            self._tail = ""
            self._may_begin = False
            self._waiting.extendleft(reversed(seen[n:]))

    def _begin(self, seen: str, begun: str) -> None:
        self._tail = ""
        self._held = [seen]
        self._pushed = ["{"] if begun == "{" else []
        self._reader = self._calls()
        next(self._reader)

    def _send(self, letter: str) -> None:
        if self._reader is None:
            return
        self._held.append(letter)
        try:
            self._reader.send(letter)
            if len(self._held) > _MOST_HELD and not self._is_open:
                raise _NoCall
        except StopIteration:
            self._reader, self._held, self._may_begin = None, [], True
        except _NoClosing:
            self._reader, self._may_begin = None, True
            is_cut = not letter and self._form.closing.startswith("".join(self._held).strip(_SPACE))
            self._give_back("" if is_cut else "".join(self._held), n_text=0)
        except _NoCall:
            self._reader, self._may_begin, self._is_open = None, False, False
            held = "".join(self._held)
            # The first letter is text; what follows may hold another call.
            self._give_back(held, n_text=1 + len(held) - len(held.lstrip(_SPACE)))

    def _give_back(self, held: str, *, n_text: int) -> None:
        self._held, self._pushed = [], []
        self._out.append(held[:n_text])
        self._waiting.extendleft(reversed(held[n_text:]))

    def _next(self) -> Generator[None, str, str]:
        return self._pushed.pop() if self._pushed else (yield)

    def _solid(self) -> Generator[None, str, str]:
        # The next letter that is no white space.
        while (letter := (yield from self._next())) and letter in _SPACE:
            pass
        return letter

    def _calls(self) -> _Reader:
        # An object or a list of them, and the closing.
        letter = yield from self._solid()
        if letter == "[":
            letter = yield from self._solid()
            while letter != "]":
                yield from self._call(letter)
                letter = yield from self._solid()
                if letter == ",":
                    letter = yield from self._solid()
                elif letter != "]":
                    raise _NoClosing
            self._held = []
        else:
            yield from self._call(letter)
        for place, expected in enumerate(self._form.closing):
            letter = yield from (self._next() if place else self._solid())
            if letter != expected:
                raise _NoClosing
        if self._pushed:
            raise _NoClosing

    def _call(self, letter: str) -> _Reader:
        if letter != "{":
            raise _NoCall
        draft = _Draft()
        letter = yield from self._solid()
        while letter == '"':
            letter = yield from self._member(draft)
            if letter != ",":
                break
            letter = yield from self._solid()
        if draft.name and letter == "}" and not draft.is_whole:
            self._give_whole(draft, "")
        if not draft.is_whole:
            raise _NoCall
        self._end_call()
        if letter != "}":  # small models forget the last brace
            self._held = [letter]
            self._pushed.append(letter)

    def _member(self, draft: "_Draft") -> Generator[None, str, str]:
        # A key, whose quote was read, and its value; returns the letter behind it.
        key = yield from self._string()
        letter = yield from self._solid()
        if letter != ":":
            return letter
        letter = yield from self._solid()
        if key == "name" and not draft.name:
            draft.name = (yield from self._string()) if letter == '"' else ""
            if draft.name not in self._names:
                raise _NoCall
            if draft.early is not None:
                self._give_whole(draft, draft.early)
            return (yield from self._solid())
        if key not in _ARGUMENTS or draft.is_whole or draft.early is not None:
            _, letter = yield from self._value(letter)
        elif not draft.name:
            draft.early, letter = yield from self._value(letter)
        elif letter == "{":
            letter = yield from self._arguments(draft)
        else:
            raw, letter = yield from self._value(letter)
            self._give_whole(draft, raw)
        return letter

    def _arguments(self, draft: "_Draft") -> Generator[None, str, str]:
        # Arguments, whose brace was read, are given out as they come.
        self._open_call(draft.name)
        nesting, raw, letter = Nesting(), [""], "{"
        while True:
            raw.append(letter)
            self._give(letter)
            if not nesting.take(letter):
                raise _NoCall
            if nesting.is_outside:
                break
            letter = yield from self._next()
            if not letter:
                raise _NoCall
        if _as_object("".join(raw)) is None:
            raise _NoCall
        draft.is_whole = True
        return (yield from self._solid())

    def _give_whole(self, draft: "_Draft", raw: str) -> None:
        known = _as_object(raw)
        if known is None:
            raise _NoCall
        self._open_call(draft.name)
        self._give(known)
        draft.is_whole = True

    def _value(self, letter: str) -> Generator[None, str, tuple[str, str]]:
        # Any value; returns its text and the letter behind it.
        nesting, raw = Nesting(), ""
        while letter and not (nesting.is_outside and letter in ",}]" + _SPACE):
            if not nesting.take(letter):
                raise _NoCall
            raw += letter
            letter = yield from self._next()
        if letter and letter in _SPACE:
            letter = yield from self._solid()
        if not letter or not raw:
            raise _NoCall
        return raw, letter

    def _string(self) -> Generator[None, str, str]:
        # A string, whose quote was read.
        nesting, raw = Nesting(), '"'
        nesting.take('"')
        while nesting.in_string:
            letter = yield from self._next()
            if not letter:
                raise _NoCall
            nesting.take(letter)
            raw += letter
        try:
            return str(json.loads(raw))
        except ValueError as error:
            raise _NoCall from error

    def _open_call(self, name: str) -> None:
        self._held = []
        self._is_open = True
        self._out.append(CallPart(self._n_begun, self._make_id(), name))
        self._n_begun += 1

    def _give(self, arguments: str) -> None:
        self._held = []
        self._out.append(CallPart(self._n_begun - 1, arguments=arguments))

    def _end_call(self) -> None:
        self._held = []
        self._is_open = False
        self.n_whole += 1
        self._out.append(CallPart(self._n_begun - 1, is_end=True))


@dataclass(slots=True)
class _Draft:
    """What is known of a call that is being read."""

    name: str = ""
    early: str | None = None  # arguments that came before the name
    is_whole: bool = False  # whether the arguments were given out


def _goes_on(last: CallPart, part: CallPart) -> bool:
    """Say whether a part can be told with the one before it: names come by themselves."""
    return not last.name and not last.is_end and last.index == part.index


def _as_object(raw: str) -> str | None:
    """Return the text of arguments, "{}" for none, or None if they are no JSON object."""
    if raw in {"", "null"}:
        return "{}"
    try:
        value = json.loads(raw)
        if isinstance(value, str):
            return _as_object(value) if not value.startswith('"') else None
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(value, dict) else None
