"""Signed heads: how long a log was at a moment, and its last hash, kept in a second place.

A chain alone does not show that its end was cut off, or that another chain stands in its place. A
head says how many records there were and the hash of the last, signed with Ed25519; whoever changes
the log would have to change the heads as well, on another disk or wherever they were copied to.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError
from onhand.device.audit.keys import AuditKeys

__all__ = ["Head", "append_head", "is_signed", "parse_head", "read_heads", "signed_line"]

_LABEL: Final = b"onhand audit head 1\0"
_MOST_LINE_BYTES: Final = 4096
_MOST_FILE_BYTES: Final = 2**26


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What was signed.

    Attributes:
        log: the log's name.
        count: number of its last record.
        hash: of that record, 64 digits of hex.
        time: when, as ISO 8601 in UTC.
        signature: 128 digits of hex.
    """

    log: str
    count: int
    hash: str
    time: str
    signature: str = ""


def signed_line(head: Head, keys: AuditKeys) -> bytes:
    """Return a head with its signature as one line of JSON, the newline with it."""
    signature = keys.signer.sign(_signed(head)).hex()
    return json.dumps({**_fields(head), "signature": signature}, sort_keys=True).encode() + b"\n"


def parse_head(line: bytes) -> Head:
    """Read a head; its signature is not checked.

    Args:
        line: of `signed_line`.

    Returns:
        It.

    Raises:
        InputError: if it is none.
    """
    try:
        fields = json.loads(line[:_MOST_LINE_BYTES])
        head = Head(**fields)
        texts = (head.log, head.hash, head.time, head.signature)
        if type(head.count) is not int or not all(isinstance(one, str) for one in texts):
            raise InputError("a head's fields are of other types")
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError("a line is no head") from error
    return head


def is_signed(head: Head, public: bytes) -> bool:
    """Say whether a head was signed by whom a public key belongs to.

    Args:
        head: with its signature.
        public: 32 bytes.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(bytes.fromhex(head.signature), _signed(head))
    except (InvalidSignature, ValueError):
        return False
    return True


def append_head(path: Path, line: bytes, *, most: int) -> None:
    """Add a head to a file, and see it on the disk; old ones go where there are many.

    Args:
        path: the file; it and its folder are made if they are missing.
        line: of `signed_line`.
        most: heads that are kept; the first one stays as well.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = read_heads(path)
    if len(lines) < 2 * most:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "ab") as file:
            if file.tell() and not path.read_bytes().endswith(b"\n"):
                file.write(b"\n")  # what was cut off does not spoil what follows
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return
    kept = [lines[0], *lines[-most + 1 :], line.strip()]
    beside = path.with_name(f".{path.name}.writing")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(b"\n".join(kept) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_heads(path: Path) -> Sequence[bytes]:
    """Return the lines of a file of heads; none where there is no file.

    Args:
        path: the file.

    Returns:
        They, unchecked.

    Raises:
        OSError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_FILE_BYTES)
    except FileNotFoundError:
        return []
    return [line for line in content.split(b"\n") if line.strip()]


def _fields(head: Head) -> Mapping[str, object]:
    return {"log": head.log, "count": head.count, "hash": head.hash, "time": head.time}


def _signed(head: Head) -> bytes:
    return _LABEL + json.dumps(_fields(head), sort_keys=True).encode()
