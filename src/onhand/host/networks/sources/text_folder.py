"""What a folder says about texts: its tokenizer, and how long a text may be."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onhand.core.errors import BundleCorrupt, SourceError
from onhand.core.feed import TextFeed
from onhand.device.text import open_tokenizer
from onhand.host.networks.sources.sentence import read_limits, read_object

__all__ = ["TEXT_INPUTS", "TextFolder", "feed_for_texts"]

TEXT_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
"""What the inputs of encoders are called."""


_TOKENIZER = "tokenizer.json"
_USUAL_TOKENS = 512
# transformers writes 1e30 where it knows of no limit.
_NO_LIMIT = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFolder:
    """How texts are fed to a network.

    Attributes:
        feed: how they become its inputs.
        tokenizer: the bundle's `tokenizer.json`: it cuts nothing by itself, and names the padding.
        notes: sentences that a user should know.
    """

    feed: TextFeed
    tokenizer: bytes
    notes: tuple[str, ...] = ()


def feed_for_texts(
    folder: Path,
    *,
    inputs: Collection[str],
    most_tokens: int | None = None,
    pad_id: int | None = None,
    vocab_size: int | None = None,
) -> TextFolder:
    """Read the tokenizer of a folder, for an encoder of its own or an ONNX file beside it.

    Args:
        folder: holds `tokenizer.json`; `tokenizer_config.json` and `sentence_bert_config.json`
            are read where they are.
        inputs: names of the network's inputs.
        most_tokens: that the network can take; None where nobody knows.
        pad_id: the id of padding; None for what the files say.
        vocab_size: of the network; None where nobody knows.

    Returns:
        How texts are fed.

    Raises:
        SourceError: if there is no tokenizer, a file is damaged, the tokenizer makes ids beyond
            the network's vocabulary, or the network has inputs that no text fills.
    """
    if odd := sorted(set(inputs) - set(TEXT_INPUTS)) or sorted({"input_ids"} - set(inputs)):
        raise SourceError(
            f"{folder}: input {odd[0]!r}: a text fills {', '.join(TEXT_INPUTS)}, of which "
            "input_ids must be there"
        )
    path = folder / _TOKENIZER
    if not path.is_file():
        raise SourceError(
            f"{folder} has no {_TOKENIZER}; save the tokenizer with the tokenizers library first"
        )
    beside = folder / "tokenizer_config.json"
    config = read_object(beside) if beside.is_file() else {}
    max_tokens, lowercase = read_limits(folder)
    limits = [n for n in (max_tokens, _limit(config), most_tokens) if n]
    notes = () if limits else (f"{folder.name} does not say how long a text may be: "
                               f"{_USUAL_TOKENS} tokens are taken",)  # fmt: skip
    table = read_object(path)
    content = _rewritten(table, config, pad_id=pad_id, lowercase=lowercase, where=path)
    try:
        n_ids = open_tokenizer(content, where=str(path)).vocab_size
    except BundleCorrupt as error:
        raise SourceError(f"{error}") from error
    if vocab_size is not None and n_ids > vocab_size:
        raise SourceError(f"{path}: makes ids up to {n_ids - 1}, the model knows {vocab_size}")
    feed = TextFeed(
        max_tokens=min(limits, default=_USUAL_TOKENS),
        mask="attention_mask" if "attention_mask" in inputs else "",
        types="token_type_ids" if "token_type_ids" in inputs else "",
    )
    return TextFolder(feed=feed, tokenizer=content, notes=notes)


def _limit(config: Mapping[str, object]) -> int | None:
    value = config.get("model_max_length")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value <= _NO_LIMIT else None


def _rewritten(
    table: dict[str, object],
    config: Mapping[str, object],
    *,
    pad_id: int | None,
    lowercase: bool,
    where: Path,
) -> bytes:
    """Return a tokenizer without limits of its own, whose padding is the model's.

    Raises:
        SourceError: if it is not a tokenizer.
    """
    added = table.get("added_tokens")
    tokens = {
        str(entry.get("content")): entry.get("id")
        for entry in (added if isinstance(added, list) else [])
        if isinstance(entry, Mapping)
    }
    named = config.get("pad_token")
    named = named.get("content") if isinstance(named, Mapping) else named
    before = table.get("padding")
    if pad_id is None and isinstance(before, Mapping) and type(before.get("pad_id")) is int:
        pad_id = before["pad_id"]
    if pad_id is None and type(tokens.get(str(named))) is int:
        pad_id = int(str(tokens[str(named)]))
    pad_id = pad_id or 0
    token = next((text for text, number in tokens.items() if number == pad_id), "[PAD]")
    changed: dict[str, object] = {
        **table,
        "truncation": None,
        "padding": {
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": pad_id,
            "pad_type_id": 0,
            "pad_token": token,
        },
    }
    if lowercase:
        first: list[object] = [{"type": "Lowercase"}]
        own = table.get("normalizer")
        changed["normalizer"] = {
            "type": "Sequence",
            "normalizers": first + ([] if own is None else [own]),
        }
    try:
        return json.dumps(changed, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{where}: holds half a surrogate pair, which is no text") from error
