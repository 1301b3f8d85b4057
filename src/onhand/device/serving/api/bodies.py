"""A request's JSON, field by field: every one is understood or refused by name."""

import json
from collections.abc import Collection, Mapping

from onhand.core.errors import InputError
from onhand.core.outside import parse_json, shown
from onhand.device.serving.refusals import Refusal, RefusedRequest

__all__ = ["Body", "as_json", "parse_body", "wrong"]

# Made once: streams need it for every piece.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def wrong(
    param: str, message: str, *, status: int = 400, code: str | None = None
) -> RefusedRequest:
    """Return the refusal of one field."""
    return RefusedRequest(
        Refusal(status=status, message=f"{param}: {message}", code=code, param=param)
    )


class Body:
    """The fields of one JSON object; each is asked for once, and what is left over is refused."""

    def __init__(self, fields: Mapping[str, object], *, where: str = "") -> None:
        self._given = fields
        self._left = dict(fields)
        self._where = where

    @property
    def given(self) -> Mapping[str, object]:
        """All fields as they were given, asked for or not."""
        return self._given

    def text(self, key: str) -> str | None:
        """Return a text; None where there is none."""
        given = self.value(key)
        if given is not None and not isinstance(given, str):
            raise self.wrong(key, f"is {shown(given)}, must be a text")
        return given

    def peek(self, key: str) -> str | None:
        """Return a text, to be asked for again."""
        given = self.text(key)
        self._left[key] = given
        return given

    def peek_value(self, key: str) -> object:
        """Return a field of any type, to be asked for again."""
        return self._left.get(key)

    def flag(self, key: str, otherwise: bool) -> bool:
        """Return true or false."""
        given = self.value(key)
        if given is None:
            return otherwise
        if not isinstance(given, bool):
            raise self.wrong(key, f"is {shown(given)}, must be true or false")
        return given

    def whole(self, key: str, *, least: int, most: int) -> int | None:
        """Return a whole number within bounds; None where there is none."""
        given = self.value(key)
        if given is None:
            return None
        if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
            raise self.wrong(
                key, f"is {shown(given)}, must be a whole number from {least} to {most}"
            )
        return given

    def number(self, key: str, otherwise: float, *, least: float, most: float) -> float:
        """Return a number within bounds."""
        given = self.value(key)
        if given is None:
            return otherwise
        if (
            isinstance(given, bool)
            or not isinstance(given, int | float)
            or not least <= given <= most  # NaN and what is infinite are not
        ):
            raise self.wrong(key, f"is {shown(given)}, must be a number from {least:g} to {most:g}")
        return float(given)

    def texts(self, key: str, *, most: int) -> tuple[str, ...]:
        """Return one text or a list of them; empty where there is none."""
        given = self.value(key)
        if given is None:
            return ()
        listed = [given] if isinstance(given, str) else given
        if not isinstance(listed, list) or len(listed) > most:
            raise self.wrong(key, f"must be a text or a list of at most {most}")
        if not all(isinstance(text, str) and text for text in listed):
            raise self.wrong(key, "must be of texts that are not empty")
        return tuple(str(text) for text in listed)

    def objects(self, key: str) -> list["Body"]:
        """Return a list of objects, at least one."""
        given = self.value(key)
        if not isinstance(given, list) or not given:
            raise self.wrong(key, "must be a list with at least one object")
        bodies = []
        for number, one in enumerate(given):
            if not isinstance(one, dict):
                raise self.wrong(key, f"entry {number} is {shown(one)}, must be an object")
            bodies.append(Body(one, where=f"{self._name(key)}[{number}]"))
        return bodies

    def table(self, key: str) -> "Body":
        """Return an object; an empty one where there is none."""
        given = self.value(key)
        if given is not None and not isinstance(given, dict):
            raise self.wrong(key, f"is {shown(given)}, must be an object")
        return Body(given or {}, where=self._name(key))

    def value(self, key: str) -> object:
        """Return a field of any type; None where there is none."""
        return self._left.pop(key, None)

    def ignore(self, keys: Collection[str]) -> None:
        """Accept fields that change nothing about the answer."""
        for key in keys:
            self._left.pop(key, None)

    def only(self, key: str, *allowed: object) -> None:
        """Accept a field where it asks for what is done anyway.

        Raises:
            RefusedRequest: if it asks for anything else.
        """
        given = self.value(key)
        if given is not None and given not in allowed:
            raise self.wrong(
                key, f"{shown(given)} is not supported by this model", code="unsupported"
            )

    def end(self) -> None:
        """Refuse what was not asked for.

        Raises:
            RefusedRequest: if a field is left.
        """
        if self._left:
            key = min(self._left)
            raise self.wrong(key, "is no field of this request", code="unknown_field")

    def wrong(self, key: str, message: str, *, code: str | None = None) -> RefusedRequest:
        """Return the refusal of one of its fields."""
        return wrong(self._name(key), message, code=code)

    def _name(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key


def parse_body(content: bytes) -> Body:
    """Read a request's body.

    Args:
        content: of bounded length.

    Returns:
        Its fields.

    Raises:
        RefusedRequest: if it is not JSON, or no object.
    """
    try:
        value = parse_json(content)
    except InputError as error:
        raise RefusedRequest(Refusal(status=400, message=f"the body is {error}")) from error
    if not isinstance(value, dict):
        raise RefusedRequest(Refusal(status=400, message="the body must be a JSON object"))
    return Body(value)


def as_json(value: object) -> bytes:
    """Return an answer's JSON."""
    return _ENCODER.encode(value).encode()
