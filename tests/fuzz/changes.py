"""How samples are changed: a value of a JSON table, or bytes anywhere."""

import json
import random
from collections.abc import Sequence
from typing import Any

from tests.damage import places, with_change

__all__ = ["changed"]

VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 0.5, -0.0, 1e300, 2**31, 2**63, 10**400, float("nan"), float("inf")),
    *(None, True, False, "", "x", "\ud800", "../../etc/passwd", "\0", "a" * 5000, "9" * 500),
    *([], {}, [[]], {"": ""}, [None], {"a": 1}, [0, 2**40]),
)
PIECES = (
    *(b"\0", b"\xff", b"\xff\xff\xff\xff", b"\n", b'"', b"{", b"[", b"}", b"]", b"\\u0000"),
    *(b"{{", b"{%", b"}}", b"%}", b"range(99999999)", b"'a' * 99999999", b"9" * 5000, b"-1"),
    *(b"[" * 2000, b'{"a":' * 2000, b"\xed\xa0\x80", b"1e999", b"NaN", b"../", b"=", b'"""'),
)


def changed(content: bytes, samples: Sequence[bytes], dice: random.Random) -> bytes:
    """Return a sample that somebody changed.

    Args:
        content: the sample.
        samples: others, parts of which may come in.
        dice: says how.
    """
    if dice.random() < 0.6 and (table := _table(content)) is not None:
        return json.dumps(_with_changes(table, dice)).encode()
    made = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        at = dice.randint(0, len(made))
        end = min(len(made), at + dice.choice((0, 1, 1, 4, 20, 200)))
        match dice.randint(0, 4):
            case 0:
                made[at:end] = dice.choice(PIECES)
            case 1:
                made[at:end] = b""
            case 2:
                made[at:end] = dice.randbytes(end - at)
            case 3:
                made[at:at] = made[at:end] * dice.choice((1, 2, 50))
            case _:
                other = dice.choice(samples)
                begin = dice.randint(0, len(other))
                made[at:end] = other[begin : begin + dice.choice((1, 8, 100))]
    return bytes(made)


def _table(content: bytes) -> object | None:
    try:
        found: object = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) and found else None


def _with_changes(table: object, dice: random.Random) -> object:
    for _ in range(dice.randint(1, 3)):
        own = places(table)
        if own:
            table = with_change(table, dice.choice(own), dice.choice(VALUES))
    return table
