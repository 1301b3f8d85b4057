"""A small byte-level tokenizer that cuts a name the same way in a command and in an answer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from examples.house_assistant.generate import SYSTEMS, examples
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

__all__ = ["CHAT_TEMPLATE", "SPECIALS", "build", "write"]

SPECIALS = ("<|pad|>", "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
"""The special tokens, whose ids are their places in this list."""

# Each space, digit and Chinese character stands alone. A word then has the same tokens after a
# space, as in a command, and after a quotation mark, as in an answer: copying it is copying ids.
_PIECES = r"\s|\p{N}|\p{Han}|(?:(?!\p{Han})[\p{L}\p{M}_])+|[^\s\p{N}\p{L}\p{M}_]+"

CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build(texts: Iterable[str], *, vocabulary: int) -> Tokenizer:
    """Learn the merges.

    Args:
        texts: commands and answers.
        vocabulary: how many tokens in all, special ones and the 256 bytes included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path, *, max_positions: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`.

    Args:
        tokenizer: what `build` returned.
        folder: the model's directory.
        max_positions: longest conversation in tokens.
    """
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|bos|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Learn the tokenizer from training commands and write it into a model directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vocabulary", type=int, default=2560)
    parser.add_argument("--count", type=int, default=200_000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = islice(examples(7, "train"), given.count)
    texts = (text for one in found for text in (one.command, one.answer))
    tokenizer = build([*texts, *SYSTEMS * 100], vocabulary=given.vocabulary)
    write(tokenizer, given.folder, max_positions=4096)
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
