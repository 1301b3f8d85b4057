"""Exact match of the answers of any model, by kind of command.

    from examples.house_assistant.evaluate import HELD_OUT, score
    from examples.house_assistant.generate import read_examples

    scores = score(read_examples(HELD_OUT), lambda command: my_model(command))
    print(scores.table())

Nothing here imports torch until a `transformers` directory is opened.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from examples.house_assistant.actions import Example
from examples.house_assistant.generate import conversation, examples, read_examples

__all__ = [
    "CALIBRATION",
    "HANDWRITTEN",
    "HELD_OUT",
    "HELD_OUT_TEXT",
    "VALIDATION",
    "Miss",
    "Scores",
    "Transformer",
    "is_right",
    "prompt",
    "score",
]

DATA = Path(__file__).parent / "data"
HELD_OUT = DATA / "heldout.jsonl"
HANDWRITTEN = DATA / "handwritten.jsonl"
VALIDATION = DATA / "validation.jsonl"
HELD_OUT_TEXT = DATA / "heldout.txt"
CALIBRATION = DATA / "calibration.txt"


@dataclass(frozen=True, slots=True)
class Miss:
    """A command whose answer was wrong.

    Attributes:
        example: the command and its right answer.
        found: what the model wrote.
    """

    example: Example
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How often the answer was exactly right.

    Attributes:
        right: right answers by group: "all", "en", "zh", "en switch", "held name" ...
        total: commands in each of the groups.
        misses: the commands that were answered wrongly, in the order given.
    """

    right: dict[str, int]
    total: dict[str, int]
    misses: tuple[Miss, ...]

    def share(self, group: str = "all") -> float:
        """Return the share of right answers in a group, 0 to 1.

        Args:
            group: one of the keys of `total`.

        Raises:
            KeyError: if no command was in that group.
        """
        return self.right[group] / self.total[group]

    def table(self) -> str:
        """Lay the groups out as lines of text."""
        return "\n".join(
            f"{group:18} {self.share(group):7.2%}  {self.right[group]} of {self.total[group]}"
            for group in sorted(self.total)
        )


def prompt(command: str) -> str:
    """Write one command as the model reads it, up to where the answer begins.

    Args:
        command: what the person says.
    """
    return f"{conversation([(command, '')]).removesuffix('<|end|>')}"


def is_right(expected: str, found: str) -> bool:
    """Compare two answers after parsing, so that only their content counts.

    Args:
        expected: the right answer, JSON text.
        found: what a model wrote, which may not be JSON at all.
    """
    try:
        return bool(json.loads(found) == json.loads(expected))
    except (ValueError, RecursionError):
        return False


def score(held: Iterable[Example], answer: Callable[[str], str]) -> Scores:
    """Ask for every answer and count the right ones.

    Args:
        held: commands with their right answers.
        answer: command -> the model's text, greedy, without special tokens.
    """
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    misses: list[Miss] = []
    for example in held:
        found = answer(example.command)
        good = is_right(example.answer, found)
        if not good:
            misses.append(Miss(example, found))
        groups = ["all", example.language, f"{example.language} {example.category}"]
        groups += [f"held {kind}" for kind in example.held]
        for group in groups:
            right[group] += good
            total[group] += 1
    return Scores(right=dict(right), total=dict(total), misses=tuple(misses))


class Transformer:
    """Greedy answers of a Hugging Face directory, on the CPU in float32; not for sharing."""

    def __init__(self, folder: Path, *, before: str = "") -> None:
        """Load the model, and read the conversation that comes before every command.

        Args:
            folder: with config.json, model.safetensors and tokenizer.json.
            before: an earlier conversation, as `conversation` writes it; empty for none.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._stop = self._tokenizer.convert_tokens_to_ids("<|end|>")
        self._cache = None
        self.n_before = 0
        if before:
            ids = self._ids(before)
            self.n_before = len(ids)
            with torch.inference_mode():
                self._cache = self._model(torch.tensor([ids]), use_cache=True).past_key_values

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def answer(self, command: str) -> str:
        """Answer one command.

        Args:
            command: what the person says.
        """
        text = prompt(command)
        ids = self._ids(text.removeprefix("<|bos|>") if self.n_before else text)
        cache = copy.deepcopy(self._cache)
        written: list[int] = []
        with self._torch.inference_mode():
            while len(written) < 256:
                out = self._model(self._torch.tensor([ids]), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                ids = [int(out.logits[0, -1].argmax())]
                if ids[0] == self._stop:
                    break
                written += ids
        return str(self._tokenizer.decode(written))


def _long_conversation(tokens: int) -> str:
    """Write a conversation of training commands, of about this many tokens."""
    # A pair takes 45 tokens on average.
    pairs = ((one.command, one.answer) for one in islice(examples(77, "train"), tokens // 45))
    return conversation(pairs)


def _print_misses(misses: Sequence[Miss], count: int) -> None:
    for miss in misses[:count]:
        print(
            f"\n{miss.example.command}\n  expected {miss.example.answer}\n  found    {miss.found}"
        )


def main() -> None:
    """Print the exact match of a Hugging Face directory on a held-out set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="the model directory")
    parser.add_argument("--data", type=Path, default=HELD_OUT)
    parser.add_argument("--count", type=int, default=100_000, help="stop after so many commands")
    parser.add_argument("--before", type=int, default=0, help="tokens of conversation before")
    parser.add_argument("--misses", type=int, default=0, help="wrong answers to print")
    given = parser.parse_args()
    before = _long_conversation(given.before) if given.before else ""
    model = Transformer(given.folder, before=before)
    if before:
        print(f"every command comes after {model.n_before} tokens of conversation")
    scores = score(read_examples(given.data)[: given.count], model.answer)
    print(scores.table())
    _print_misses(scores.misses, given.misses)


if __name__ == "__main__":
    main()
