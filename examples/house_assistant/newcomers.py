"""What moves into a home: two devices, something to do, and a way to say it; none was trained.

    python -m examples.house_assistant.newcomers
    python -m examples.house_assistant.newcomers --split held
    python -m examples.house_assistant.newcomers --out taught.jsonl --known known.jsonl

| newcomer | is said | is meant |
|---|---|---|
| "boiler" | Bertha, 贝莎 | the boiler in the cellar, whatever is done with it |
| "stars" | the little star, 小星星 | the star lamp in the nursery |
| "water" | plants are watered, here or anywhere | a new action, `water` |
| "bed" | a device is put to bed | it is turned off |

The house assistant as it was trained copies names that it does not know, so that it gets all of
these wrong. What is taught is mostly said plainly, and shows a newcomer from several sides; what is
asked about later is said as people speak, in a phrasing that neither training nor teaching saw.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from examples.house_assistant import english, english_phrases, mandarin, mandarin_phrases, speech
from examples.house_assistant.actions import Example, action, dump
from examples.house_assistant.generate import examples
from examples.house_assistant.grammar import Draw, Language, Rules, Split, rules

__all__ = ["NEWCOMERS", "asked", "main", "taught", "write_known", "write_lines"]

NEWCOMERS = ("boiler", "stars", "water", "bed")
"""What is new, in the order in which it is taught."""

_VOICES = {"en": english, "zh": mandarin}
_NAMES: dict[tuple[str, Language], tuple[str, str, str]] = {
    ("boiler", "en"): ("Bertha", "boiler", "cellar"),
    ("boiler", "zh"): ("贝莎", "锅炉", "地窖"),
    ("stars", "en"): ("the little star", "star lamp", "nursery"),
    ("stars", "zh"): ("小星星", "星空灯", "儿童房"),
}
# What is done with the new devices, in the order in which it is taught.
_DEEDS = ("turn_on", "turn_off", "set", "raise", "ask", "lower")
_MARKS = ("", "", "", ".", "!")
_KNOWN_SEED = 2024
_MANY = 60  # sides that a newcomer may be shown from: each equally often

_WATER: dict[Language, Rules] = {
    "en": Rules(
        ("water {plant}{in}", "give {plant}{in} some water", "{plant}{in} should be watered"),
        (
            "give {plant}{in} a little water",
            "go and water {plant}{in}",
            "{plant}{in} needs to be watered",
        ),
    ),
    "zh": Rules(
        ("给{in}{plant}浇水", "{in}{plant}该浇水了"),
        ("给{in}{plant}浇点水", "{in}{plant}需要浇水", "给{in}{plant}浇浇水"),
    ),
}
_PLANTS: dict[Language, Rules] = {
    "en": Rules(
        ("the tomatoes", "the roses", "the lawn", "the ferns", "the basil", "my orchids"),
        ("the tulips", "the lemon tree", "the ivy", "the hedge", "my cactus"),
    ),
    "zh": Rules(("番茄", "玫瑰", "草坪", "兰花", "盆栽"), ("郁金香", "柠檬树", "绿萝", "仙人掌")),
}
_BED: dict[Language, Rules] = {
    "en": Rules(
        ("put {thing} to bed", "{thing} can go to bed"),
        ("go and put {thing} to bed", "let {thing} go to bed", "{thing} can go to bed now"),
    ),
    "zh": Rules(
        ("让{thing}去睡觉", "{thing}可以睡觉了", "哄{thing}睡觉"),
        ("让{thing}睡觉", "{thing}该睡觉了", "快让{thing}去睡觉"),
    ),
}


def taught(seed: int, *, each: int = 5) -> list[Example]:
    """Draw what a home teaches: newcomers in turn, English and Chinese in turn.

    Args:
        seed: the same seed gives the same examples.
        each: examples of each newcomer.
    """
    rng = random.Random(f"taught {seed}")
    found = []
    for i in range(each):
        for place, newcomer in enumerate(NEWCOMERS):
            language: Language = "en" if (i + place) % 2 == 0 else "zh"
            draw = Draw(rng, "train")
            text, answer = _said(draw, newcomer, language, i)
            if i % 2:
                text = _VOICES[language].sentence(draw, text, imperative=False)
            found.append(_example(draw, newcomer, language, text, answer))
    return found


def asked(seed: int, *, each: int = 50) -> list[Example]:
    """Draw commands about the newcomers, all different, each of a phrasing that was never seen.

    Args:
        seed: the same seed gives the same examples.
        each: commands of each newcomer.
    """
    rng = random.Random(f"asked {seed}")
    return [one for newcomer in NEWCOMERS for one in islice(_unseen(rng, newcomer), each)]


def write_lines(path: Path, found: Iterable[Example]) -> None:
    """Write examples as `onhand learn` reads them: a prompt and its answer on each line.

    Args:
        path: the file, replaced if it is there.
        found: what to write.
    """
    lines = [
        json.dumps({"completion": one.answer, "prompt": one.command}, ensure_ascii=False)
        for one in found
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_known(path: Path, *, count: int = 4000) -> int:
    """Write commands such as the assistant was trained on, as `write_lines` does.

    Args:
        path: the file, replaced if it is there.
        count: how many different ones, none of them as in the held-out files.

    Returns:
        How many commands these are.
    """
    found: dict[str, Example] = {}
    for one in examples(_KNOWN_SEED, "train"):
        found.setdefault(one.command, one)
        if len(found) == count:
            break
    write_lines(path, found.values())
    return len(found)


def _unseen(rng: random.Random, newcomer: str) -> Iterator[Example]:
    seen: set[str] = set()
    while True:
        draw = Draw(rng, "held")
        language: Language = "en" if draw.chance(0.5) else "zh"
        text, answer = _said(draw, newcomer, language, rng.randrange(_MANY))
        text = _VOICES[language].sentence(draw, text, imperative=False)
        if language == "en":
            text += rng.choice(_MARKS)
        one = _example(draw, newcomer, language, text, answer)
        if "rule" in one.held and one.command not in seen:
            seen.add(one.command)
            yield one


def _example(
    draw: Draw, newcomer: str, language: Language, text: str, answer: dict[str, object]
) -> Example:
    if language == "en":
        text = re.sub(r" +([,.?])", r"\1", " ".join(text.split()))
    return Example(
        command=text,
        answer=dump(answer),
        language=language,
        category=newcomer,
        held=draw.kinds_in(text),
    )


def _said(
    draw: Draw, newcomer: str, language: Language, side: int
) -> tuple[str, dict[str, object]]:
    """Say one thing about a newcomer, and what it means.

    Args:
        draw: the source of chance.
        newcomer: one of `NEWCOMERS`.
        language: of the command.
        side: from which side the newcomer is shown; any number.
    """
    if newcomer == "water":
        return _water(draw, language, side)
    if newcomer == "bed":
        return _bed(draw, language, side)
    return _device(draw, newcomer, language, _DEEDS[side % len(_DEEDS)])


def _device(
    draw: Draw, newcomer: str, language: Language, deed: str
) -> tuple[str, dict[str, object]]:
    """Do something with a new device, or ask about it."""
    spoken, device, room = _NAMES[newcomer, language]
    if deed == "ask":
        text = draw.fill(_template(draw, language, "ask.state"), {"thing": spoken})
        return text, {"ask": {"what": "state", "device": device, "room": room}}
    slots, value = {"thing": spoken}, None
    if deed == "set":
        say = speech.temperature if newcomer == "boiler" else speech.percent
        slots["value"], value = say(draw, language)
        template = _template(draw, language, "set")
    elif deed in ("raise", "lower"):
        slots["bit"] = draw.pick(rules(language, "bit"))
        template = _template(draw, language, f"{deed}.plain")
    elif language == "en":
        template = _template(draw, language, f"verb.{deed}")
    else:
        template = draw.pick_where(rules("zh", "switch"), fits=_speaks_of_a_thing)
        for slot, part in (("o", "verb"), ("after", "after"), ("state", "state")):
            slots[slot] = draw.pick(rules("zh", f"{part}.{deed}"))
    meant = action(do=deed, device=device, room=room, value=value)
    return draw.fill(template, slots), {"actions": [meant]}


def _template(draw: Draw, language: Language, name: str) -> str:
    return draw.pick_where(rules(language, name), fits=_speaks_of_a_thing)


def _speaks_of_a_thing(template: str) -> bool:
    """Say whether a phrasing names a device and no room."""
    return "{thing}" in template and not any(
        slot in template for slot in ("{in}", "{room}", "{known}", "{bare}", "{compound}")
    )


def _water(draw: Draw, language: Language, side: int) -> tuple[str, dict[str, object]]:
    """Water plants, perhaps somewhere."""
    plant = draw.pick(_PLANTS[language], "name")
    where, room = "", None
    if side % 4 < 2:
        spoken, room = _place(draw, language)
        where = f" {spoken}" if language == "en" else f"{spoken}的"
    meant = action(do="water", device=plant.split(" ", 1)[-1], room=room)
    text = draw.fill(_phrasing(draw, _WATER[language], side), {"plant": plant, "in": where})
    return text, {"actions": [meant]}


def _phrasing(draw: Draw, source: Rules, side: int) -> str:
    """Choose a phrasing; who teaches shows one after the other."""
    if draw.split == "train":
        return source.train[side // 2 % len(source.train)]
    return draw.pick(source)


def _place(draw: Draw, language: Language) -> tuple[str, str | None]:
    if language == "en":
        return english_phrases.place_phrase(draw)
    return mandarin_phrases.room_name(draw)


def _bed(draw: Draw, language: Language, side: int) -> tuple[str, dict[str, object]]:
    """Put one device to bed, perhaps with its room."""
    kinds, has_place = ("light", "media", "appliance"), side % 4 < 2
    if language == "en":
        target = english_phrases.one_target(draw, kinds, inside=has_place)
    else:
        target = mandarin_phrases.one_target(draw, kinds)
        while (target.pairs[0][1] is not None) != has_place:
            target = mandarin_phrases.one_target(draw, kinds)
    device, room = target.pairs[0]
    text = draw.fill(_phrasing(draw, _BED[language], side), {"thing": target.text})
    return text, {"actions": [action(do="turn_off", device=device, room=room)]}


def main() -> None:
    """Show some examples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=5, help="examples of each newcomer")
    parser.add_argument("--seed", type=int, default=0)
    split: tuple[Split, ...] = ("train", "held")
    parser.add_argument("--split", choices=split, default="train")
    parser.add_argument("--out", type=Path, help="write them to this file, as they are taught")
    parser.add_argument("--known", type=Path, help="write what was trained to this file")
    given = parser.parse_args()
    if given.known is not None:
        write_known(given.known)
    drawn = taught if given.split == "train" else asked
    found = drawn(given.seed, each=given.count)
    if given.out is not None:
        write_lines(given.out, found)
        return
    for example in found:
        print(f"{example.category:8} {example.command}\n         {example.answer}")


if __name__ == "__main__":
    main()
