r"""Records of an audit log: one line each, chained by hashes, and each with a keyed code.

    MAC JSON\n       MAC = HMAC-SHA-256(key, "onhand audit record 1\0" + JSON), 64 digits of hex
                    JSON = {"facts", "kind", "previous", "seq", "time"}, keys sorted, ASCII

`previous` is the SHA-256 of the line before, its newline left out; that of the first record is of
the log's own name. So a line that changed has no valid code, and one that is gone, moved or from
elsewhere does not follow what stands before it.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from onhand.core.errors import InputError

__all__ = ["MOST_LINE_BYTES", "Record", "has_valid_code", "hash_of", "line_of", "origin", "parse"]

MOST_LINE_BYTES: Final = 2**24
"""Of one record: what is longer was not written by this program."""

_LABEL: Final = b"onhand audit record 1\0"
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_MAC_LETTERS: Final = 64
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_MOST_SEQ: Final = 2**62
_FIELDS: Final = {"facts", "kind", "previous", "seq", "time"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that happened.

    Attributes:
        seq: its number, from 1 on.
        time: when, as ISO 8601 in UTC.
        previous: `hash_of` the record before.
        kind: "request"; or what the log says of itself: "begin", "end", "prune", "mend", "lost".
        facts: name -> what JSON can hold.
    """

    seq: int
    time: str
    previous: str
    kind: str
    facts: Mapping[str, Any]


def origin(log: str) -> str:
    """Return what the first record of a log follows.

    Args:
        log: the log's name.

    Returns:
        64 digits of hex.
    """
    return hashlib.sha256(f"onhand audit log {log}".encode()).hexdigest()


def line_of(record: Record, key: bytes) -> bytes:
    """Return a record's line, without a newline.

    Args:
        record: what happened.
        key: 32 bytes.
    """
    fields = {
        "facts": record.facts,
        "kind": record.kind,
        "previous": record.previous,
        "seq": record.seq,
        "time": record.time,
    }
    text = _ENCODER.encode(fields).encode()
    return f"{_code(text, key)} ".encode() + text


def hash_of(line: bytes) -> str:
    """Return the hash of a line without its newline, 64 digits of hex."""
    return hashlib.sha256(line).hexdigest()


def has_valid_code(line: bytes, key: bytes) -> bool:
    """Say whether a line was written with a key, and not changed since."""
    mac, text = line[:_MAC_LETTERS], line[_MAC_LETTERS + 1 :]
    return hmac.compare_digest(mac, _code(text, key).encode())


def parse(line: bytes) -> Record:
    """Read a line; its code is not checked.

    Args:
        line: without its newline.

    Returns:
        The record.

    Raises:
        InputError: if it is none.
    """
    if len(line) > MOST_LINE_BYTES:
        raise InputError(f"a record has {len(line)} bytes, at most {MOST_LINE_BYTES} are written")
    try:
        mac, text = line[:_MAC_LETTERS].decode("ascii"), line[_MAC_LETTERS + 1 :].decode("ascii")
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("a line is no record") from error
    if not _HEX.fullmatch(mac) or line[_MAC_LETTERS : _MAC_LETTERS + 1] != b" ":
        raise InputError("a record has no code")
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise InputError(f"a record must have the fields {', '.join(sorted(_FIELDS))}")
    seq, facts = fields["seq"], fields["facts"]
    if type(seq) is not int or not 0 < seq < _MOST_SEQ:
        raise InputError("a record's number is none")
    texts = (fields["time"], fields["kind"], fields["previous"])
    if not all(isinstance(one, str) for one in texts) or not _HEX.fullmatch(texts[2]):
        raise InputError("a record's fields are of other types")
    if not isinstance(facts, dict):
        raise InputError("a record's facts are no object")
    return Record(seq=seq, time=texts[0], kind=texts[1], previous=texts[2], facts=facts)


def _code(text: bytes, key: bytes) -> str:
    return hmac.digest(key, _LABEL + text, "sha256").hex()
