"""Commands and their answers, drawn from the grammar; the held-out files; their overlap."""

# ruff: noqa: RUF001 - full-width punctuation is how Chinese is written
from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from examples.house_assistant import english, mandarin
from examples.house_assistant.actions import Clause, Example, dump
from examples.house_assistant.grammar import Draw, Language, Split, rules

__all__ = ["SYSTEMS", "conversation", "examples", "overlap", "read_examples", "write_examples"]

_VOICES = {"en": english, "zh": mandarin}
_FULL_STOPS = {"en": ("", "", "", ".", ".", "!"), "zh": ("", "", "", "。", "！")}
_QUESTION_MARKS = {"en": ("?", "?", "?", ""), "zh": ("？", "？", "")}
_SAYINGS = [
    "hello",
    "thanks",
    "bye",
    "good_night",
    "who",
    "how_are_you",
    "help",
    "joke",
    "praise",
    "cancel",
    "insult",
]
_REFUSALS = ["out_of_scope", "out_of_scope", "out_of_scope", "unsafe", "private", "unclear"]

SYSTEMS = (
    "You control a house. Answer with one JSON object.",
    "You are the assistant of this home.",
    "你是这个家的助手，用一个 JSON 对象回答。",
)
"""System prompts that a few of the training conversations begin with."""


def examples(seed: int, split: Split) -> Iterator[Example]:
    """Draw commands and answers without end.

    Args:
        seed: the same seed gives the same examples.
        split: "train", or "held" for commands that use a phrasing training never sees.

    Yields:
        one example after the other; a few may come again.
    """
    rng = random.Random(f"{split} {seed}")
    while True:
        draw = Draw(rng, split)
        example = _example(draw)
        if split == "train" or "rule" in example.held:
            yield example


def _example(draw: Draw) -> Example:
    """Draw one command of any kind."""
    language: Language = "en" if draw.chance(0.55) else "zh"
    voice = _VOICES[language]
    # Training has more of what is hardest.
    draw.sloppy = draw.chance(0.28 if draw.split == "train" else 0.14)
    kind = draw.rng.random()
    answer: dict[str, object]
    if kind < 0.13:
        text, question = voice.ask(draw)
        text, category = voice.sentence(draw, text, imperative=False), "ask"
        answer = {"ask": question}
    elif kind < 0.19:
        name = draw.rng.choice(_REFUSALS)
        text, category = voice.answerless(draw, f"refuse.{name}"), "refuse"
        if name != "unclear" and draw.chance(0.5):
            text = voice.sentence(draw, text, imperative=False)
        answer = {"refuse": name}
    elif kind < 0.25:
        name = draw.rng.choice(_SAYINGS)
        text, category = voice.answerless(draw, f"say.{name}"), "say"
        answer = {"say": name}
    elif kind < (0.48 if draw.split == "train" else 0.4):
        # Training has more of what is hardest.
        text, category, answer = _several(draw, language)
    else:
        one: Clause = voice.clause(draw, plain=False)
        text = voice.sentence(draw, one.text, imperative=one.imperative)
        category, answer = one.category, {"actions": one.actions}
    text, answer = _finish(draw, language, text, answer)
    return Example(
        command=text,
        answer=dump(answer),
        language=language,
        category=category,
        held=draw.kinds_in(text),
    )


def _several(draw: Draw, language: Language) -> tuple[str, str, dict[str, object]]:
    """Join two or three commands into one."""
    voice = _VOICES[language]
    clauses = [voice.clause(draw, plain=True) for _ in range(3 if draw.chance(0.25) else 2)]
    text = clauses[0].text
    for one in clauses[1:]:
        text += draw.pick(rules(language, "join")) + one.text
    actions = [item for one in clauses for item in one.actions]
    return voice.sentence(draw, text, imperative=True), "several", {"actions": actions}


def _finish(
    draw: Draw, language: Language, text: str, answer: dict[str, object]
) -> tuple[str, dict[str, object]]:
    """Tidy the spaces, and write some commands with a capital letter and a full stop."""
    if language == "en":
        text = re.sub(r" +([,.?])", r"\1", " ".join(text.split()))
        if draw.chance(0.3):
            text, answer = _capital(draw, text, answer)
        text = text.strip(" ,")
    else:
        text = text.replace("在在", "在")
    if draw.chance(0.4):
        marks = _QUESTION_MARKS if "ask" in answer else _FULL_STOPS
        text += draw.rng.choice(marks[language])
    return text, answer


def _capital(draw: Draw, text: str, answer: dict[str, object]) -> tuple[str, dict[str, object]]:
    """Begin with a capital letter; a name that begins the command gets it in the answer too."""
    text = re.sub(r"\bi\b(?=['’ ])", "I", text)
    first = next((noun for noun in draw.nouns if text.startswith(noun)), None)
    if first is None:
        return text[:1].upper() + text[1:], answer
    whole = json.dumps(answer, ensure_ascii=False)
    # A noun that is misspelt, or said twice, would leave the answer open to doubt.
    if whole.count(f'"{first}"') != 1 or text.count(first) != 1:
        return text, answer
    capital = first[:1].upper() + first[1:]
    return capital + text[len(first) :], json.loads(whole.replace(f'"{first}"', f'"{capital}"'))


def conversation(pairs: Iterable[tuple[str, str]], *, system: str | None = None) -> str:
    """Write commands and answers as the model reads them.

    Args:
        pairs: commands and answers, oldest first.
        system: what the conversation begins with, if anything.
    """
    parts = ["<|bos|>"]
    if system is not None:
        parts.append(f"<|system|>{system}<|end|>")
    for command, answer in pairs:
        parts.append(f"<|user|>{command}<|end|><|assistant|>{answer}<|end|>")
    return "".join(parts)


def write_examples(path: Path, found: Iterable[Example]) -> None:
    """Write one JSON object on each line.

    Args:
        path: the file, replaced if it is there.
        found: what to write.
    """
    lines = [json.dumps(asdict(one), ensure_ascii=False, sort_keys=True) for one in found]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_examples(path: Path) -> list[Example]:
    """Read a file that `write_examples` wrote.

    Args:
        path: the file.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Example(**(row | {"held": tuple(row["held"])})) for row in rows]


def _grams(example: Example) -> list[tuple[str, ...]]:
    """Cut a command into runs of four words, or of four characters if it is Chinese."""
    text = example.command.lower()
    units = re.findall(r"[\w']+", text) if example.language == "en" else re.findall(r"\w", text)
    return [tuple(units[i : i + 4]) for i in range(len(units) - 3)]


def overlap(train: Iterable[Example], held: Sequence[Example]) -> dict[str, float]:
    """Say which share of the held-out runs of four also stands in the training commands.

    Args:
        train: training commands.
        held: held-out commands.

    Returns:
        shares, 0 to 1, by language; and of whole commands that training has word for word.
    """
    seen: dict[str, set[tuple[str, ...]]] = {"en": set(), "zh": set()}
    commands: set[str] = set()
    for example in train:
        seen[example.language].update(_grams(example))
        commands.add(example.command.lower())
    hits: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for example in held:
        grams = _grams(example)
        found = sum(gram in seen[example.language] for gram in grams)
        for name in (example.language, "all"):
            hits[f"4-grams {name}"] += found
            total[f"4-grams {name}"] += len(grams)
            hits[f"commands fully covered {name}"] += found == len(grams) and bool(grams)
            total[f"commands fully covered {name}"] += bool(grams)
            hits[f"same command {name}"] += example.command.lower() in commands
            total[f"same command {name}"] += 1
    return {name: hits[name] / total[name] for name in sorted(total)}


def _take(seed: int, split: Split, count: int) -> list[Example]:
    """Draw examples whose commands differ."""
    found: dict[str, Example] = {}
    for example in examples(seed, split):
        found.setdefault(example.command, example)
        if len(found) == count:
            break
    return list(found.values())


def _write_data(folder: Path) -> None:
    """Write the held-out set of today's grammar; the other files in `data/` are frozen."""
    folder.mkdir(exist_ok=True)
    write_examples(folder / "heldout_wide.jsonl", _take(1, "held", 1000))


def main() -> None:
    """Write the data files, show some examples, or measure the overlap."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("data", help="write data/heldout_wide.jsonl")
    show = commands.add_parser("show", help="print some examples")
    show.add_argument("--count", type=int, default=20)
    show.add_argument("--seed", type=int, default=0)
    show.add_argument("--split", choices=("train", "held"), default="train")
    compare = commands.add_parser("overlap", help="compare held-out with training commands")
    compare.add_argument("--count", type=int, default=400_000)
    compare.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = Path(__file__).parent / "data"
    if given.command == "data":
        _write_data(data)
    elif given.command == "show":
        source = examples(given.seed, given.split)
        for _, example in zip(range(given.count), source, strict=False):
            print(f"{example.category:8} {example.command}\n         {example.answer}")
    else:
        source = examples(given.seed, "train")
        train = (example for _, example in zip(range(given.count), source, strict=False))
        for name, share in overlap(train, read_examples(data / "heldout.jsonl")).items():
            print(f"{name:32} {share:7.2%}")


if __name__ == "__main__":
    main()
