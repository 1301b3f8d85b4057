"""Every parser that reads what comes from outside, as a function of bytes, with samples.

A parser takes the bytes or raises one of our errors; anything else is a finding: another exception,
more time or memory than a small file is worth, or content that was changed and opened all the same.
"""

import base64
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from onhand.core.errors import OnhandError

__all__ = ["GRAPH", "Target", "as_json", "folder", "is_taken", "written"]

Parser = Callable[[bytes], object]
GRAPH = base64.b64decode(
    "CAgSADqcAQoUCgF4CgF3EgF5GgFtIgZNYXRNdWwKDAoBeRIBeiIEUmVsdQoiCgF6EgFvIglMZWFreVJlbHUqDwoFYWxwaG"
    "EVAAAAP6ABARIBZyojCAIIAxABQgF3ShgAAIA/AACAPwAAgD8AAIA/AACAPwAAgD9aFAoBeBIPCg0IARIJCgMSAW4KAggC"
    "YhQKAW8SDwoNCAESCQoDEgFuCgIIA0IECgAQEQ=="
)
"""An ONNX file: a product with a constant, Relu and LeakyRelu."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser to be tried.

    Attributes:
        name: of what it reads.
        parse: takes bytes; raises what our errors are.
        samples: right ones, to be changed.
        needs: a package that it cannot do without; "" for none.
    """

    name: str
    parse: Parser
    samples: tuple[bytes, ...]
    needs: str = ""


@cache
def folder() -> Path:
    """A folder for parsers that read files, as long as the process runs."""
    return Path(tempfile.mkdtemp(prefix="onhand-fuzz-"))


def written(name: str, content: bytes) -> Path:
    """A file with some content, its owner's alone."""
    path = folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def as_json(*values: Mapping[str, Any] | Sequence[Any]) -> tuple[bytes, ...]:
    """Samples from JSON values."""
    return tuple(json.dumps(one).encode() for one in values)


def is_taken(target: Target, content: bytes) -> bool:
    """Try a parser; return whether it took the content, or refused it by one of our errors."""
    try:
        target.parse(content)
    except OnhandError as error:
        text = str(error)
        if len(text) > 4000:
            raise RuntimeError(f"a message of {len(text)} letters: {text[:200]}") from error
        return False
    return True
