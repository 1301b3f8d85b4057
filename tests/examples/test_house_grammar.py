"""The commands of the house assistant: repeatable, unambiguous, honest about what is held out."""

# ruff: noqa: S311 - nothing here is secret

import json
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from examples.house_assistant.actions import action, problems
from examples.house_assistant.generate import conversation, examples, overlap, read_examples
from examples.house_assistant.grammar import (
    Draw,
    Split,
    forms,
    is_held,
    languages,
    misspellings,
    open_words,
    rules,
)
from examples.house_assistant.names import (
    english_device,
    english_room,
    held_names,
    mandarin_room,
    pseudo_word,
)
from examples.house_assistant.speech import clock, duration, english_number, mandarin_number

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "examples" / "house_assistant"
SPLITS: tuple[Split, ...] = ("train", "held")


def lists(node: object, name: str = "") -> Iterator[tuple[str, set[str], set[str]]]:
    """Every list of a grammar with its training and held entries."""
    if isinstance(node, dict):
        if "train" in node and isinstance(node["train"], list):
            yield name, set(node["train"]), set(node.get("held", ()))
        else:
            for key, value in node.items():
                yield from lists(value, f"{name}.{key}")


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_gives_the_same_examples(split: Split) -> None:
    """A training run and a held-out set can be drawn again."""
    first, again, other = (list(islice(examples(seed, split), 200)) for seed in (4, 4, 5))

    assert first == again
    assert first != other


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_follows_the_schema(split: Split) -> None:
    """No answer has an unknown key, act, code or order."""
    found = list(islice(examples(1, split), 3000))

    assert [(one, wrong) for one in found if (wrong := problems(one.answer))] == []
    assert {one.language for one in found} == {"en", "zh"}
    assert all(one.command == one.command.strip() and "{" not in one.command for one in found)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("turn on", "not JSON"),
        ('{"say":"hello","ask":{}}', "one key"),
        ('{"actions":[]}', "at least one"),
        ('{"actions":[{"device":"lamp","do":"open"}]}', "out of order"),
        ('{"actions":[{"do":"explode"}]}', "unknown act"),
        ('{"actions":[{"do":"set","value":3}]}', "strings"),
        ('{"actions":[{"do":"set","color":"red"}]}', "unknown field"),
        ('{"ask":{"what":"love"}}', "unknown question"),
        ('{"ask":{"what":"time","at":"12:00"}}', "unknown field"),
        ('{"refuse":"lazy"}', "unknown 'lazy'"),
        ('{"sing":"loud"}', "unknown key"),
    ],
)
def test_a_wrong_answer_is_named(answer: str, words: str) -> None:
    """What breaks the schema is said in words."""
    assert any(words in problem for problem in problems(answer))


def test_a_command_has_one_answer() -> None:
    """Two people who say the same mean the same, or exact match could not be judged."""
    meant: dict[str, str] = {}
    for one in islice(examples(2, "train"), 8000):
        command = one.command.lower().rstrip(".!?。！？")  # noqa: RUF001 - Chinese marks
        assert meant.setdefault(command, one.answer.lower()) == one.answer.lower()


def test_training_takes_nothing_that_is_held() -> None:
    """A training example never notes a held phrasing; a held-out one always does."""
    assert all(one.held == () for one in islice(examples(3, "train"), 3000))
    assert all("rule" in one.held for one in islice(examples(3, "held"), 1000))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_held_phrasings_are_not_training_phrasings(language: str) -> None:
    """No entry stands in both parts of its list."""
    table = tomllib.loads((HOUSE / "phrasings" / f"{language}.toml").read_text(encoding="utf-8"))
    found = list(lists(table))

    assert len(found) > 100
    assert [(name, both) for name, train, held in found if (both := train & held)] == []


@pytest.mark.parametrize(
    ("language", "word", "fewest"), [("en", r"[\w']+", 2), ("zh", r"[一-鿿]", 3)]
)
def test_no_held_phrasing_stands_inside_a_training_phrasing(
    language: str, word: str, fewest: int
) -> None:
    """Training may come close to a held phrasing of some length, but never says it."""
    table = tomllib.loads((HOUSE / "phrasings" / f"{language}.toml").read_text(encoding="utf-8"))
    unit = rf"\{{\w+\}}|{word}|[^\s\w]"
    said = []
    for name, train, held in lists(table):
        if name.split(".")[1] in NAMED or not held:
            continue
        seen = [f" {' '.join(re.findall(unit, form))} " for entry in train for form in forms(entry)]
        for form in (form for entry in held for form in forms(entry)):
            if len(re.findall(word, re.sub(r"\{\w+\}|X", " ", form))) >= fewest:
                inside = f" {' '.join(re.findall(unit, form))} "
                said += [(name, form, found) for found in seen if inside in found]

    assert said == []


# Lists of names: those that are held may hold any word.
NAMED = {
    *("character", "device", "device_number", "device_word", "misspelling", "noun", "people"),
    *("rare", "room", "room_number", "room_word", "scene_name", "tune"),
}


@pytest.mark.parametrize(("language", "word"), [("en", r"[a-z']+"), ("zh", r"[一-鿿]")])
def test_held_phrasings_arrange_words_that_training_knows(language: str, word: str) -> None:
    """Without the meaning of a word no model could know whether it is part of a name."""
    table = tomllib.loads((HOUSE / "phrasings" / f"{language}.toml").read_text(encoding="utf-8"))
    known: set[str] = set()
    asked: set[str] = set()
    for name, train, held in lists(table):
        if name.split(".")[1] not in NAMED:
            for words, entries in ((known, train), (asked, held)):
                text = " ".join(re.sub(r"\{\w+\}|X", " ", entry) for entry in entries)
                words.update(re.findall(word, text.lower()))

    assert len(known) > 200
    assert asked - known == set()


def test_made_up_names_are_apart() -> None:
    """A name that training could draw is never drawn for the held-out sets."""
    drawn: dict[Split, set[str]] = {"train": set(), "held": set()}
    for split, names in drawn.items():
        draw = Draw(random.Random(6), split)
        names.update(pseudo_word(draw) for _ in range(2000))

    assert not drawn["train"] & drawn["held"]
    assert not any(map(is_held, drawn["train"]))
    assert all(map(is_held, drawn["held"]))


def test_made_up_names_are_open() -> None:
    """Names hardly ever come twice, so there is no list to learn by heart."""
    draw = Draw(random.Random(7), "train")
    for make, share in ((english_device, 0.8), (english_room, 0.7), (mandarin_room, 0.6)):
        assert len({make(draw) for _ in range(1000)}) > share * 1000


def test_no_training_name_is_a_held_one() -> None:
    """A made-up name that happens to be a held word is drawn again: in answers there is none."""
    held, used = held_names(), set[str]()
    for one in islice(examples(11, "train"), 8000):
        answer = json.loads(one.answer)
        for item in [*answer.get("actions", ()), answer.get("ask", {})]:
            used.update(item.get(key, "").lower() for key in ("device", "room"))

    assert {"scullery", "琴房", "walrus"} <= held
    assert not used & held


def test_an_ordinary_device_never_begins_with_a_room() -> None:
    """The "porch light" is the light on the porch, so no list may say that it is one name."""
    rooms = {*rules("en", "room.inside").train, *rules("en", "room.outside").train}
    rooms |= {*rules("en", "room.inside").held, *rules("en", "room.outside").held}
    devices = [*open_words("en", "devices")]
    for kind in ("light", "climate", "media", "cover", "lock", "appliance"):
        devices += [*rules("en", f"device.{kind}").train, *rules("en", f"device.{kind}").held]

    assert [name for name in devices if any(name.startswith(f"{room} ") for room in rooms)] == []


def test_two_states_are_two_actions() -> None:
    """What needs no verb is understood: each device has its own state."""
    found = [one for one in islice(examples(12, "train"), 20000) if " but " in one.command]
    bare = [one for one in found if one.category == "several"]

    assert len(bare) > 20
    assert all(len(json.loads(one.answer)["actions"]) >= 2 for one in bare)


def test_misspellings_are_apart() -> None:
    """A slip that training could make is never made in the held-out sets."""
    drawn: dict[Split, set[str]] = {"train": set(), "held": set()}
    for split, slips in drawn.items():
        draw = Draw(random.Random(8), split, sloppy=True)
        slips.update(draw.misspell(word) for _ in range(300) for word in ("kitchen", "curtains"))
    chinese = misspellings()[0]

    assert not drawn["train"] & drawn["held"] - {"kitchen", "curtains"}
    assert not any(set(wrong.train) & set(wrong.held) for wrong in chinese.values())


def test_names_are_copied_as_they_are_spoken() -> None:
    """But for the few misspelt commands, every device and room stands in its command."""
    right = total = 0
    for one in islice(examples(9, "train"), 3000):
        for item in json.loads(one.answer).get("actions", ()):
            for name in (item.get("device"), item.get("room")):
                if name not in {None, "all"}:
                    total += 1
                    right += name in one.command

    assert right / total > 0.95


@pytest.mark.parametrize(
    ("n", "english", "chinese"),
    [
        (0, "zero", "零"),
        (12, "twelve", "十二"),
        (20, "twenty", "二十"),
        (47, "forty seven", "四十七"),
    ],
)
def test_numbers_by_hand(n: int, english: str, chinese: str) -> None:
    """Numbers are spelt as people say them."""
    assert english_number(n) == english
    assert mandarin_number(n) == chinese
    assert mandarin_number(2, counting=True) == "两"


@pytest.mark.parametrize(
    ("spoken", "meant"),
    [
        ("ten to seven", "06:50"),
        ("half past six", "06:30"),
        ("half past six in the evening", "18:30"),
        ("seven o'clock", "07:00"),
        ("noon", "12:00"),
        ("twelve am", "00:00"),
        ("七点半", "07:30"),
        ("晚上八点", "20:00"),
        ("差十分七点", "06:50"),
        ("下午三点一刻", "15:15"),
    ],
)
def test_times_by_hand(spoken: str, meant: str) -> None:
    """A time that people say has its one form."""
    said: dict[str, str] = {}
    for language in languages:
        draw = Draw(random.Random(10), "train")
        said.update(clock(draw, language) for _ in range(40_000))

    assert said[spoken] == meant


def test_durations_by_hand() -> None:
    """How long has one form, whatever the words."""
    draw = Draw(random.Random(11), "train")
    said = dict(duration(draw, "en") for _ in range(6000))

    assert said["half an hour"] == "30m"
    assert said["an hour and a half"] == "1h30m"
    assert said["ninety seconds"] == "90s"


def test_the_keys_of_an_action_are_in_order() -> None:
    """However an action is built, its keys stand in one order."""
    assert list(action(room="attic", value="3", do="set", device=None)) == ["do", "room", "value"]


def test_a_conversation_is_written_as_the_model_reads_it() -> None:
    """Special tokens stand around what was said."""
    text = conversation([("hi", '{"say":"hello"}')], system="Be brief.")

    assert text == (
        '<|bos|><|system|>Be brief.<|end|><|user|>hi<|end|><|assistant|>{"say":"hello"}<|end|>'
    )


def test_committed_sets_are_apart_and_right() -> None:
    """The held-out sets follow the schema, share no command, and use held phrasings alone."""
    held = read_examples(HOUSE / "data" / "heldout.jsonl")
    small = read_examples(HOUSE / "data" / "validation.jsonl")
    by_hand = read_examples(HOUSE / "data" / "handwritten.jsonl")

    wide = read_examples(HOUSE / "data" / "heldout_wide.jsonl")

    assert (len(held), len(wide), len(small)) == (1000, 1000, 160)
    assert not {one.command for one in held} & {one.command for one in small}
    assert all("rule" in one.held and not problems(one.answer) for one in [*held, *wide, *small])
    assert all(not problems(one.answer) for one in by_hand)


def test_overlap_by_hand() -> None:
    """Runs of four words, or characters, are counted where training has them."""
    train = list(islice(examples(12, "train"), 50))
    shares = overlap(train, train)

    assert shares["4-grams all"] == shares["same command en"] == 1.0
    assert overlap([], train)["4-grams zh"] == 0.0


def test_grammar_and_scores_need_no_torch() -> None:
    """A device without torch can draw commands and score answers."""
    code = (
        "import sys, examples.house_assistant.evaluate, examples.house_assistant.tokenizer;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
