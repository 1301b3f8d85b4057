"""A small byte-level tokenizer: known words are one token each, names are spelt out."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from examples.house_assistant.generate import SYSTEMS, examples
from examples.house_assistant.names import name_words
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

__all__ = ["CHAT_TEMPLATE", "SPECIALS", "build", "write"]

SPECIALS = ("<|pad|>", "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
"""The special tokens, whose ids are their places in this list."""

# The fixed parts of an answer, such as `","room":"`, are one piece each; so is a word with the
# space before it. A word that is spelt out has its space apart, for no piece of two letters has
# one: it is then spelt the same after a space, as in a command, and after a quotation mark, as in
# an answer, and copying it is copying ids.
_KEYS = "actions|ask|refuse|say|do|what|device|room|value|by|text|at|day|after|for"
_PIECES = (
    rf'(?:"?[\[\]{{}},]*"(?:{_KEYS})":[\[{{]*)+"?|"[\]}}]+|'
    r"'(?:s|m|d|t|ll|re|ve)(?!\p{L})|\p{N}|\p{Han}|"
    r" ?(?:(?!\p{Han})[\p{L}\p{M}_])+|[^\p{N}\p{L}\p{M}_]"
)

# The bytes that begin a Chinese character in UTF-8, and those that follow.
_FIRST_BYTES, _NEXT_BYTES = range(0xE4, 0xEA), range(0x80, 0xC0)

CHAT_TEMPLATE = (
    "{{ '<|bos|>' }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build(texts: Iterable[str], *, n_words: int, n_merges: int) -> Tokenizer:
    """Choose the words that are one token, and learn how all others are spelt.

    A word of the grammar is a token. Any other word, and a word that only names use, is spelt in
    pieces of one or two letters, a rare Chinese character in two pieces: there are few of
    them, so each is met so often that copying it is learnt well.

    Args:
        texts: commands and answers.
        n_words: how many words, Chinese characters and parts of answers are tokens.
        n_merges: how many pieces of words are learnt, besides the 256 bytes.
    """
    cut = _pre_tokenizer()
    names, counts = name_words(), Counter[str]()
    for text in texts:
        counts.update(piece for piece, _ in cut.pre_tokenize_str(text) if len(piece) > 1)
    # A space is written Ġ in the byte-level alphabet.
    words = [word for word, _ in counts.most_common() if word.lstrip("Ġ").lower() not in names]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [*_character_merges(), *_spelling(names, n_merges)]
    tokens = [*SPECIALS, *symbols, *("".join(pair) for pair in merges), *words[:n_words]]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    # A piece that is a token is taken as it is; the merges are for all others.
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    return tokenizer


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def _spelling(names: Iterable[str], count: int) -> list[tuple[str, str]]:
    """Learn the commonest short pieces of names."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + count,
        initial_alphabet=alphabet,
        max_token_length=3,
        show_progress=False,
    )
    learner.train_from_iterator(sorted(name for name in names if name.isascii()), trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]


def _character_merges() -> list[tuple[str, str]]:
    """Join the first two of the three bytes of every Chinese character."""
    # The byte-level alphabet in the order of the bytes, as GPT-2 defines it.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shown = dict(zip(printable, map(chr, printable), strict=True))
    others = (byte for byte in range(256) if byte not in shown)
    shown |= {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    return [(shown[first], shown[second]) for first in _FIRST_BYTES for second in _NEXT_BYTES]


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
    parser.add_argument("--words", type=int, default=1700)
    parser.add_argument("--merges", type=int, default=300)
    parser.add_argument("--count", type=int, default=100_000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = islice(examples(7, "train"), given.count)
    texts = (text for one in found for text in (one.command, one.answer))
    tokenizer = build([*texts, *SYSTEMS * 100], n_words=given.words, n_merges=given.merges)
    write(tokenizer, given.folder, max_positions=4096)
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
