"""Looks for what must not show in the files of a folder, in every form that it may have there."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np

__all__ = ["Known", "forms_of", "found_in"]

Known = str | bytes | np.ndarray
"""A text, bytes such as a key, or numbers such as weights."""


def forms_of(known: Known) -> Mapping[str, bytes]:
    """Return what something may look like in a file, by the name of the form."""
    if isinstance(known, np.ndarray):
        kinds = ("<f2", "<f4", "<f8") if known.dtype.kind == "f" else ("<i2", "<i4", "<i8")
        plain = {kind: known.astype(kind).tobytes() for kind in kinds}
        return {**plain, **_written(plain[kinds[1]])}
    if isinstance(known, bytes):
        return {"bytes": known, **_written(known)}
    forms = {
        "UTF-8": known.encode(),
        "UTF-16": known.encode("utf-16-le"),
        "JSON": json.dumps(known)[1:-1].encode(),
        "JSON with letters": json.dumps(known, ensure_ascii=False)[1:-1].encode(),
        "JSON within JSON": json.dumps(json.dumps(known)[1:-1])[1:-1].encode(),
        "URL": quote(known).encode(),
    }
    return {**forms, **_written(known.encode())}


def _written(content: bytes) -> Mapping[str, bytes]:
    """Return bytes written as text; in base64 at each of the places where they may begin."""
    forms = {"hex": content.hex().encode(), "HEX": content.hex().upper().encode()}
    for n in range(3):
        whole = base64.b64encode(bytes(n) + content)
        # The first and the last letters have bits of what stands beside.
        forms[f"base64 {n}"] = whole[4 if n else 0 : len(whole) - 4]
    return forms


def found_in(known: Mapping[str, Known], *folders: Path) -> Mapping[str, list[str]]:
    """Return name -> places and forms in which it shows, of all that does.

    Args:
        known: name -> what is looked for.
        folders: all files below them.
    """
    forms = {name: forms_of(one) for name, one in known.items()}
    found: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            content = path.read_bytes()
            for name, written in forms.items():
                found.setdefault(name, []).extend(
                    f"{path.relative_to(folder)}: {form}"
                    for form, looked_for in written.items()
                    if looked_for in content
                )
    return {name: places for name, places in found.items() if places}
