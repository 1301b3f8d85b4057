"""Which tokenizers llama.cpp gets, and what it gets of them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.host.export_models import INT4
from tests.host.test_pack import pack
from tests.host.tiny_bundle import PLACE
from tests.models import DECODER, memory_model, tokenizer_json

from onhand.core.bundle import Bundle, read_bundle
from onhand.host.export.gguf_tokenizer import gguf_tokenizer

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPLIT_BYTES = {**BYTES, "use_regex": False}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def sequence(*steps: Mapping[str, object]) -> dict[str, object]:
    """Pre-tokenizers one after the other."""
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(pattern: str, **options: object) -> dict[str, object]:
    """A split by a pattern."""
    plain = {"type": "Split", "behavior": "Isolated", "invert": False}
    return {**plain, "pattern": {"Regex": pattern}, **options}


def bundle_with(folder: Path, texts: Mapping[str, str] | None = None, **changes: Any) -> Bundle:
    """A bundle whose tokenizer.json has other parts; `model` is merged."""
    table = json.loads(tokenizer_json())
    table["model"] |= changes.pop("model", {})
    files = {"tokenizer.json": json.dumps(table | changes).encode()}
    files |= {name: text.encode() for name, text in (texts or {}).items()}
    model = replace(memory_model(replace(DECODER, width=32)), files=files)
    return pack(folder, {"int4": INT4}, model=model).bundle


@pytest.mark.parametrize(
    ("pre_tokenizer", "ignore_merges", "name"),
    [
        (BYTES, False, "gpt-2"),
        (sequence({"type": "Digits", "individual_digits": True}, BYTES), False, "smollm"),
        (sequence(split(LLAMA3), SPLIT_BYTES), True, "llama-bpe"),
        (sequence(split(LLAMA3.replace("{1,3}", "")), SPLIT_BYTES), False, "qwen2"),
    ],
)
def test_known_pre_tokenizers(
    tmp_path: Path, pre_tokenizer: dict[str, object], ignore_merges: bool, name: str
) -> None:
    """Under llama.cpp's names."""
    model = {"ignore_merges": ignore_merges}
    bundle = bundle_with(tmp_path / "b", pre_tokenizer=pre_tokenizer, model=model)

    made = gguf_tokenizer(bundle)

    assert made.has_text
    assert made.notes == ()
    assert made.entries["tokenizer.ggml.pre"] == name


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": {"byte_fallback": True}}, "no byte-level BPE"),
        ({"decoder": {"type": "Fuse"}}, "no byte-level BPE"),
        ({"pre_tokenizer": None}, "pre-tokenizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre-tokenizer"),
        ({"pre_tokenizer": {**BYTES, "add_prefix_space": True}}, "pre-tokenizer"),
        ({"pre_tokenizer": SPLIT_BYTES}, "pre-tokenizer"),
        ({"pre_tokenizer": sequence()}, "pre-tokenizer"),
        ({"pre_tokenizer": sequence(split("a+"), SPLIT_BYTES)}, "pre-tokenizer"),
        ({"pre_tokenizer": sequence(split(LLAMA3), BYTES)}, "pre-tokenizer"),
        (
            {"pre_tokenizer": sequence(split(LLAMA3, behavior="Removed"), SPLIT_BYTES)},
            "pre-tokenizer",
        ),
        (
            {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, BYTES)},
            "pre-tokenizer",
        ),
        ({"pre_tokenizer": sequence(split("a"), split("b"), SPLIT_BYTES)}, "pre-tokenizer"),
        ({"model": {"ignore_merges": True}}, "ignore_merges"),
        ({"model": {"end_of_word_suffix": "</w>"}}, "a suffix"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer"),
    ],
)
def test_an_unknown_tokenizer_is_left_out(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    """It would cut texts in another way; the note gives the reason."""
    made = gguf_tokenizer(bundle_with(tmp_path / "b", **changes))

    assert made.entries == {"tokenizer.ggml.model": "no_vocab"}
    assert not made.has_text
    assert "token ids alone" in made.notes[0]
    assert reason in made.notes[0]


def test_more_tokens_than_the_model_has(tmp_path: Path) -> None:
    """An id without a row would reach beyond the embedding."""
    model = memory_model(replace(DECODER, width=32, vocab_size=256))

    bundle = pack(tmp_path / "b", {"int4": INT4}, model=model).bundle

    assert "tokens, the model 256" in gguf_tokenizer(bundle).notes[0]


def test_attack_an_added_token_beyond_the_vocabulary(tmp_path: Path) -> None:
    """The library gives it the next free id, whatever the file says; so does the export."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    added = [{"id": 10**6, "content": "<new>", **flags}]
    bundle = bundle_with(tmp_path / "b", added_tokens=added)

    entries = gguf_tokenizer(bundle).entries

    tokens, kinds = entries["tokenizer.ggml.tokens"], entries["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(kinds, list)
    assert len(tokens) == 320
    assert kinds[[*tokens].index("<new>")] == 4


def test_a_normalizer_that_llama_cpp_leaves_out_is_told(tmp_path: Path) -> None:
    """Qwen's tokenizer composes characters; llama.cpp does not, which is rarely seen."""
    made = gguf_tokenizer(bundle_with(tmp_path / "b", normalizer={"type": "NFC"}))

    assert made.has_text
    assert made.notes == ("llama.cpp does not normalize texts to NFC",)


def test_every_id_has_a_token(tmp_path: Path) -> None:
    """Special ones are marked, and ids that no token has are filled."""
    bundle = bundle_with(tmp_path / "b")
    table = json.loads(tokenizer_json())

    entries = gguf_tokenizer(bundle).entries

    tokens, kinds = entries["tokenizer.ggml.tokens"], entries["tokenizer.ggml.token_type"]
    vocab = table["model"]["vocab"]
    assert isinstance(tokens, list)
    assert isinstance(kinds, list)
    assert len(tokens) == len(kinds) == 320
    assert all(tokens[i] == token for token, i in vocab.items())
    assert [tokens[i] for i, kind in enumerate(kinds) if kind == 3] == ["<s>", "</s>"]
    assert [tokens[i] for i, kind in enumerate(kinds) if kind == 5] == [
        f"[PAD{i}]" for i in range(len(vocab), 320)
    ]
    merges = entries["tokenizer.ggml.merges"]
    assert isinstance(merges, list)
    assert [str(merge).split(" ") for merge in merges] == table["model"]["merges"]


def test_merges_as_older_files_write_them(tmp_path: Path) -> None:
    """Two tokens in one text with a space between."""
    merges = [" ".join(pair) for pair in json.loads(tokenizer_json())["model"]["merges"]]

    made = gguf_tokenizer(bundle_with(tmp_path / "b", model={"merges": merges}))

    assert made.entries["tokenizer.ggml.merges"] == merges


def test_ends_beginnings_and_the_template() -> None:
    """The first end is that of tokenizer_config.json; another may end a turn."""
    entries = gguf_tokenizer(read_bundle(PLACE)).entries

    assert entries["tokenizer.ggml.bos_token_id"] == 0
    assert entries["tokenizer.ggml.add_bos_token"] is False
    assert entries["tokenizer.ggml.eos_token_id"] == 1
    assert "tokenizer.ggml.eot_token_id" not in entries
    assert "assistant: " in str(entries["tokenizer.chat_template"])


def test_two_ends_and_a_template_in_the_configuration(tmp_path: Path) -> None:
    """As instruct models have them; the named end comes first, whatever its number."""
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": True}
    texts = {
        "tokenizer_config.json": json.dumps({**config, "chat_template": "{{ messages }}"}),
        "generation_config.json": json.dumps({"eos_token_id": [0, 1]}),
    }

    entries = gguf_tokenizer(bundle_with(tmp_path / "b", texts)).entries

    assert entries["tokenizer.ggml.eos_token_id"] == 1
    assert entries["tokenizer.ggml.eot_token_id"] == 0
    assert entries["tokenizer.ggml.add_bos_token"] is True
    assert entries["tokenizer.chat_template"] == "{{ messages }}"
