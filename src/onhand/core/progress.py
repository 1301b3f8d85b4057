"""How long work says what it does, how far it is, and what the user should know."""

from typing import Protocol

__all__ = ["Progress", "Quiet"]


class Progress(Protocol):
    """Told by long work, shown by whoever started it. Called from one thread."""

    def start(self, what: str, total: float) -> None:
        """Begin a stage; the one before is finished.

        Args:
            what: a few words for people: "quantizing".
            total: amount of work, in any unit, above 0.
        """
        ...

    def advance(self, amount: float) -> None:
        """Say that `amount` more of the stage's total is done."""
        ...

    def note(self, text: str) -> None:
        """Say one sentence that the user should know, such as a fallback that was taken."""
        ...


class Quiet:
    """Shows nothing; the default in Python. See `Progress`."""

    def start(self, what: str, total: float) -> None:
        """Do nothing."""

    def advance(self, amount: float) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""
