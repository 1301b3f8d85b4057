"""An audit log as one file, which whoever has its public key alone can check.

{"format": 1, "log": NAME, "public_key": HEX, "chain": NAME}      first line
{"file": NAME}                                                    before a file's records
{"head": LINE}   {"line": LINE, "whole": true}                    the lines as they are
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from onhand.core.errors import InputError
from onhand.device.audit.records import MOST_LINE_BYTES
from onhand.device.audit.verifying import Evidence

__all__ = ["exported", "read_export"]

_FORMAT: Final = 1


def exported(evidence: Evidence, *, public: bytes) -> Iterator[str]:
    """Yield the lines of an export, newlines left out.

    Args:
        evidence: the log.
        public: what checks its heads, 32 bytes.

    Yields:
        Lines of JSON.

    Raises:
        OSError: if a file cannot be read.
    """
    first = {"format": _FORMAT, "chain": evidence.name, "public_key": public.hex()}
    yield json.dumps(first, sort_keys=True)
    for head in evidence.heads:
        yield json.dumps({"head": head.decode("utf-8", "replace")})
    for name, lines in evidence.files:
        yield json.dumps({"file": name})
        for line, is_whole in lines:
            yield json.dumps({"line": line.decode("utf-8", "replace"), "whole": is_whole})


def read_export(path: Path) -> tuple[Evidence, bytes]:
    """Read an export.

    Args:
        path: the file.

    Returns:
        The log, and the public key that the file names, which is worth no more than the file.

    Raises:
        InputError: if it is none.
    """
    try:
        with path.open("rb") as file:
            tables = list(_tables(file))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no export of an audit log: {error}") from error
    first = tables[0] if tables else {}
    if first.get("format") != _FORMAT or not isinstance(first.get("public_key"), str):
        raise InputError(f"{path}: is no export of an audit log of format {_FORMAT}")
    heads: list[bytes] = []
    files: list[tuple[str, list[tuple[bytes, bool]]]] = []
    for one in tables[1:]:
        if "head" in one:
            heads.append(str(one["head"]).encode())
        elif "file" in one:
            files.append((str(one["file"]), []))
        elif "line" in one and files:
            files[-1][1].append((str(one["line"]).encode(), bool(one.get("whole"))))
    try:
        public = bytes.fromhex(str(first["public_key"]))
    except ValueError as error:
        raise InputError(f"{path}: its public key is none") from error
    return Evidence(name=str(first.get("chain")), files=files, heads=heads), public


def _tables(file: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in file:
        if len(line) > 8 * MOST_LINE_BYTES:
            raise ValueError("a line is too long")
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("a line is no object")
        yield found
