"""What a benchmark says at its end: its figures on stdout, and the same in a file."""

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["tell"]


def tell(results: Mapping[str, object], *, as_json: bool, out: Path) -> None:
    """Print figures, a line each or as JSON, and keep them.

    Args:
        results: plain values by name.
        as_json: whether programs read them.
        out: the file.
    """
    text = json.dumps(results, indent=1)
    print(text if as_json else "\n".join(f"{name}: {value}" for name, value in results.items()))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text + "\n", encoding="utf-8")
