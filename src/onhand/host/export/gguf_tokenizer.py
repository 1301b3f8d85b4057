"""A byte-level BPE tokenizer as GGUF's keys, where llama.cpp knows its pre-tokenizer.

llama.cpp does not read rules from the file: it has a list of named pre-tokenizers. What is not
among them would cut texts in another way without a word, so such a file gets no tokenizer at all:
llama.cpp then takes and gives token ids.

Source:
    llama.cpp: src/llama-vocab.cpp (pre-tokenizers), convert_hf_to_gguf.py (kinds of tokens).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onhand.core.bundle import Bundle
from onhand.device.text_files import TextFiles, read_text_files
from onhand.host.export.tokenizer_kind import is_byte_level, part, text_table

__all__ = ["GgufTokenizer", "gguf_tokenizer"]

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {
    _CONTRACTIONS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _CONTRACTIONS + r"\p{N}" + _REST: "qwen2",
}
# The one pre-tokenizer under which llama.cpp takes a whole word before it looks at merges.
_IGNORES_MERGES = "llama-bpe"

Entry = str | int | bool | list[str] | list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTokenizer:
    """The tokenizer's part of a file.

    Attributes:
        entries: key -> value.
        notes: what the user should know; says so where there is no tokenizer.
    """

    entries: Mapping[str, Entry]
    notes: tuple[str, ...]

    @property
    def has_text(self) -> bool:
        """Whether the file can read and write text."""
        return self.entries["tokenizer.ggml.model"] != "no_vocab"


def gguf_tokenizer(bundle: Bundle) -> GgufTokenizer:
    """Map a bundle's tokenizer.

    Args:
        bundle: a verified bundle.

    Returns:
        The keys; those of a file without a tokenizer where it cannot be mapped.

    Raises:
        BundleCorrupt: if a text file of the bundle is not valid.
    """
    texts = read_text_files(bundle)
    table = text_table(bundle, "tokenizer.json")
    vocab_size = bundle.manifest.decoder.vocab_size
    reason = _why_not(table, texts, vocab_size)
    if reason is not None:
        note = f"the tokenizer is not in the file, which knows token ids alone: {reason}"
        return GgufTokenizer(entries={"tokenizer.ggml.model": "no_vocab"}, notes=(note,))
    normalizer = part(table, "normalizer").get("type")
    notes: tuple[str, ...] = (
        () if normalizer is None else (f"llama.cpp does not normalize texts to {normalizer}",)
    )
    return GgufTokenizer(entries=_entries(bundle, table, texts, vocab_size), notes=notes)


def _why_not(table: dict[str, object], texts: TextFiles, vocab_size: int) -> str | None:
    model = part(table, "model")
    if not is_byte_level(table):
        return "it is no byte-level BPE"
    pre = _pre_tokenizer(part(table, "pre_tokenizer"))
    if pre is None:
        return "llama.cpp does not know its pre-tokenizer"
    if (model.get("ignore_merges") is True) != (pre == _IGNORES_MERGES):
        return f"its ignore_merges is not that of llama.cpp's {pre}"
    if any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix")):
        return "its tokens have a prefix or a suffix"
    if part(table, "normalizer").get("type") not in {None, "NFC"}:
        return "llama.cpp does not know its normalizer"
    if texts.tokenizer.vocab_size > vocab_size:
        return f"it has {texts.tokenizer.vocab_size} tokens, the model {vocab_size}"
    return None


def _pre_tokenizer(table: dict[str, object]) -> str | None:
    """Return llama.cpp's name of a pre-tokenizer."""
    steps = table.get("pretokenizers") if table.get("type") == "Sequence" else [table]
    if not isinstance(steps, list) or not steps:
        return None
    if not all(isinstance(step, dict) for step in steps):
        return None
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") is True:
        return None
    has_regex = last.get("use_regex", True)
    if not before:
        return "gpt-2" if has_regex else None
    first = before[0]
    if len(before) > 1:
        return None
    if first.get("type") == "Digits" and first.get("individual_digits") is True and has_regex:
        return "smollm"
    plain = first.get("behavior") == "Isolated" and not first.get("invert") and not has_regex
    pattern = first.get("pattern")
    if first.get("type") == "Split" and plain and isinstance(pattern, dict):
        return _SPLITS.get(str(pattern.get("Regex")))
    return None


def _entries(
    bundle: Bundle, table: dict[str, object], texts: TextFiles, vocab_size: int
) -> dict[str, Entry]:
    is_special = {
        str(added["content"]): added.get("special") is True
        for added in _list(table, "added_tokens")
        if isinstance(added, dict)
    }
    tokens: list[str] = []
    kinds: list[int] = []
    for i in range(vocab_size):
        # The library's own numbers: it corrects those of added tokens that the file has wrong.
        token = texts.tokenizer.token(i)
        tokens.append(f"[PAD{i}]" if token is None else token)
        if token is None:
            kinds.append(_UNUSED)
        elif token in is_special:
            kinds.append(_CONTROL if is_special[token] else _USER_DEFINED)
        else:
            kinds.append(_NORMAL)
    entries: dict[str, Entry] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _pre_tokenizer(part(table, "pre_tokenizer")) or "",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in _list(part(table, "model"), "merges")
            if isinstance(merge, str | list)
        ],
        "tokenizer.ggml.add_space_prefix": False,
    }
    return entries | _special(bundle, texts)


def _special(bundle: Bundle, texts: TextFiles) -> dict[str, Entry]:
    """Return which tokens open and end a text, and the chat template."""
    entries: dict[str, Entry] = {}
    config = text_table(bundle, "tokenizer_config.json")
    bos = texts.tokenizer.bos_id
    if bos is not None:
        opened = texts.tokenizer.encode_plain("a")
        entries["tokenizer.ggml.bos_token_id"] = bos
        entries["tokenizer.ggml.add_bos_token"] = bool(opened.size and opened[0] == bos)
    eos = config.get("eos_token")
    named = eos.get("content") if isinstance(eos, dict) else eos
    first = texts.tokenizer.find(named) if isinstance(named, str) else None
    ends = sorted(texts.stop_ids, key=lambda i: (i != first, i))
    for key, i in zip(("eos_token_id", "eot_token_id"), ends, strict=False):
        entries[f"tokenizer.ggml.{key}"] = i
    template = config.get("chat_template")
    if "chat_template.jinja" in bundle.manifest.files:
        template = bundle.path("chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(template, str):
        entries["tokenizer.chat_template"] = template
    return entries


def _list(table: dict[str, object], key: str) -> Sequence[object]:
    value = table.get(key)
    return value if isinstance(value, list) else []
