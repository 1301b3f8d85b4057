"""What kind of tokenizer a bundle has, as other runtimes tell them apart."""

import json

from onhand.core.bundle import Bundle

__all__ = ["is_byte_level", "part", "text_table"]


def text_table(bundle: Bundle, name: str) -> dict[str, object]:
    """Return a JSON file that `read_text_files` has found valid; {} where there is none."""
    if name not in bundle.manifest.files:
        return {}
    table = json.loads(bundle.path(name).read_bytes())
    return table if isinstance(table, dict) else {}


def part(table: dict[str, object], key: str) -> dict[str, object]:
    """Return an object inside another; {} where there is none."""
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def is_byte_level(tokenizer: dict[str, object]) -> bool:
    """Say whether a parsed `tokenizer.json` is BPE over bytes, as GPT-2's is."""
    model = part(tokenizer, "model")
    is_bpe = model.get("type") == "BPE" and model.get("byte_fallback") is not True
    return is_bpe and part(tokenizer, "decoder").get("type") == "ByteLevel"
