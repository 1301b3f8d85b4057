"""What a user teaches with, whatever file it came from."""

from dataclasses import dataclass
from pathlib import Path

from onhand.device.template import Message

__all__ = ["Continued", "Dialogue", "Example", "Labelled", "Opinion", "PlainText", "Preference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainText:
    """A text to be continued: all of it is learned.

    Attributes:
        text: the text.
        where: file and line, for messages.
    """

    text: str
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """A text as a model was given it, and how it is to go on.

    Attributes:
        text: what was given.
        answer: what follows it.
        is_rendered: whether a chat template wrote the text, so that its markers are tokens.
        where: file and line, for messages.
    """

    text: str
    answer: str
    is_rendered: bool = False
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """A conversation: the assistant's answers are learned, what others say is not.

    Attributes:
        messages: the last one learned is an answer of the assistant's.
        learned: which of them are learned, by number.
        where: file and line, for messages.
    """

    messages: tuple[Message, ...]
    learned: tuple[int, ...]
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Something and its class.

    Attributes:
        given: a text, or the file of a picture, a sound or arrays.
        label: name of its class; where the network's classes have none, its number.
        where: file and line, for messages.
    """

    given: str | Path
    label: str
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Two answers to the same, of which one was liked better.

    Attributes:
        prompt: what was said before.
        chosen: the answer that was liked.
        rejected: the one that was not.
        where: file and line, for messages.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """An answer, and whether it was liked.

    Attributes:
        prompt: what was said before.
        answer: the answer.
        is_liked: whether it was.
        where: file and line, for messages.
    """

    prompt: tuple[Message, ...]
    answer: str
    is_liked: bool
    where: str = ""


Example = PlainText | Continued | Dialogue | Labelled | Preference | Opinion
