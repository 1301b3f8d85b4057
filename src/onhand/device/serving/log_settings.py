"""`[log]` of a server's settings."""

from dataclasses import dataclass

from onhand.core.errors import InputError

__all__ = ["LogSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`[log]`: what the server writes to stderr; never what was asked or answered.

    Attributes:
        format: "text", or "json": one object a line.
        requests: whether each request gets a line.
    """

    format: str = "text"
    requests: bool = True

    def __post_init__(self) -> None:
        if self.format not in {"text", "json"}:
            raise InputError(f"format is {self.format!r}, must be text or json")
