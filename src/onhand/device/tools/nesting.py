"""Where in a JSON text its letters stand: how deep, and whether within a string."""

from typing import Final

__all__ = ["Nesting"]

_CLOSERS: Final = {"{": "}", "[": "]"}


class Nesting:
    """Follows a JSON text letter by letter; it checks brackets and nothing else.

    Attributes:
        closers: what closes the brackets that are open, the outermost first.
        in_string: whether the next letter is within a string.
        is_escaped: whether the next letter is escaped there.
    """

    def __init__(self) -> None:
        """Start before the first letter."""
        self.closers = ""
        self.in_string = False
        self.is_escaped = False

    def take(self, letter: str) -> bool:
        """Take the next letter; return False if it closes what is not open."""
        if self.is_escaped:
            self.is_escaped = False
        elif self.in_string:
            self.is_escaped, self.in_string = letter == "\\", letter != '"'
        elif letter == '"':
            self.in_string = True
        elif letter in _CLOSERS:
            self.closers += _CLOSERS[letter]
        elif letter in {"}", "]"}:
            if not self.closers.endswith(letter):
                return False
            self.closers = self.closers[:-1]
        return True

    @property
    def is_outside(self) -> bool:
        """Whether the next letter is within no bracket and no string."""
        return not self.closers and not self.in_string
