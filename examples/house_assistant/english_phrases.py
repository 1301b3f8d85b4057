"""English noun phrases: devices and rooms as people name them, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence

from examples.house_assistant.actions import Target
from examples.house_assistant.grammar import Draw, Rules, rules
from examples.house_assistant.names import english_device, english_room, ordinary

__all__ = ["fill_slots", "lists", "one_target", "place_phrase"]

_OUTSIDE_ON = frozenset(("balcony", "terrace", "porch", "patio", "deck", "driveway", "roof",
                         "landing", "stairs", "veranda", "front step"))  # fmt: skip


def lists(name: str) -> Rules:
    """Look up an English list.

    Args:
        name: the keys of its table, joined by dots.
    """
    return rules("en", name)


def noun(draw: Draw, source: str) -> tuple[str, str]:
    """Choose an ordinary noun: as it is written, perhaps misspelt, and what is meant."""
    kind = "rooms" if source.startswith("room") else "devices"
    unusual = ordinary(draw, "en", kind, share=0.25)
    noun = unusual or draw.pick(lists(source), "name")
    spoken = noun
    if draw.sloppy and draw.chance(0.6) and noun in lists(source).train:
        words = noun.split(" ")
        place = draw.rng.randrange(len(words))
        words[place] = draw.misspell(words[place])
        spoken = " ".join(words)
    draw.nouns.append(spoken)
    return spoken, noun


def device_name(draw: Draw, kinds: Sequence[str]) -> tuple[str, str]:
    """Choose a device: as it is written, and what is meant."""
    if draw.chance(0.55):
        name = english_device(draw)
        draw.nouns.append(name)
        return name, name
    return noun(draw, f"device.{draw.rng.choice(kinds)}")


def article(draw: Draw, name: str) -> str:
    """Put "the", "my" or nothing before a name, perhaps with a hesitation."""
    bare = 0.6 if name[:1].isupper() or "'s " in name or name[-1].isdigit() else 0.2
    kind = draw.rng.random()
    if kind < bare:
        return name
    word = "my" if kind > 0.95 else "our" if kind > 0.93 else "that" if kind > 0.92 else "the"
    if draw.chance(0.08 if draw.split == "train" else 0.025):
        word = f"{word} {draw.pick(lists('hesitation'))}"
    return f"{word} {name}"


def known_room(draw: Draw) -> tuple[str, str]:
    """Choose a room that every speaker knows: as it is written, and what is meant."""
    source = Rules(lists("room.inside").train + lists("room.outside").train)
    noun = draw.pick(source)
    spoken = noun
    if draw.sloppy and draw.chance(0.6):
        words = noun.split(" ")
        place = draw.rng.randrange(len(words))
        words[place] = draw.misspell(words[place])
        spoken = " ".join(words)
    draw.nouns.append(spoken)
    return spoken, noun


def room_name(draw: Draw) -> tuple[str, str]:
    """Choose any room: as it is written, and what is meant."""
    if draw.chance(0.55):
        name = english_room(draw)
        draw.nouns.append(name)
        return name, name
    return noun(draw, "room.outside" if draw.chance(0.2) else "room.inside")


def place_phrase(draw: Draw) -> tuple[str, str]:
    """Say where: "in the kitchen", and the room."""
    if draw.chance(0.05):
        adverb = draw.pick(lists("room.adverb"))
        return adverb, adverb
    spoken, room = room_name(draw)
    on = room in _OUTSIDE_ON or (room.startswith(("floor ", "level ")) and draw.chance(0.5))
    return f"{'on' if on else 'in'} {article(draw, spoken)}", room


def _here(draw: Draw, template: str) -> tuple[str, str | None]:
    """Say where, or nowhere if the template lets the place end the sentence."""
    if template.rstrip().endswith("{in}"):
        if draw.chance(0.12):
            return draw.rng.choice(("", "", "in here", "here")), None
        if draw.chance(0.04):
            return draw.pick(lists("room.whole")), "all"
    return place_phrase(draw)


def one_target(draw: Draw, kinds: Sequence[str], *, inside: bool) -> Target:
    """Name one device, with its room if `inside`."""
    spoken, device = device_name(draw, kinds)
    if not inside:
        return Target(article(draw, spoken), ((device, None),))
    if draw.chance(0.35):
        room_spoken, room = known_room(draw)
        return Target(article(draw, f"{room_spoken} {spoken}"), ((device, room),))
    where, place = place_phrase(draw)
    return Target(f"{article(draw, spoken)} {where}", ((device, place),))


def _target(draw: Draw, kinds: Sequence[str], *, roomy: bool, many: bool) -> Target:
    """Name what a command is about.

    Args:
        draw: the source of chance.
        kinds: the ordinary devices that fit.
        roomy: whether the room may be part of the phrase.
        many: whether several devices, or all of them, may be meant.
    """
    kind = draw.rng.random()
    if not many or kind < 0.72:
        return one_target(draw, kinds, inside=roomy and draw.chance(0.62))
    joint = draw.pick(lists("and"))
    if kind < 0.82:
        first, second = device_name(draw, kinds), device_name(draw, kinds)
        text = f"{article(draw, first[0])} {joint} {article(draw, second[0])}"
        where, room = place_phrase(draw) if roomy and draw.chance(0.5) else ("", None)
        return Target(f"{text} {where}".strip(), ((first[1], room), (second[1], room)))
    if not roomy:
        return one_target(draw, kinds, inside=False)
    if kind < 0.88:
        spoken, device = device_name(draw, kinds)
        (where, room), (also, other) = place_phrase(draw), place_phrase(draw)
        if other in lists("room.inside").train and where.startswith("in ") and draw.chance(0.7):
            also = also.removeprefix("in ")
        # An unknown name without its "in" could as well be a second device.
        text = f"{article(draw, spoken)} {where} {joint} {also}"
        return Target(text, ((device, room), (device, other)))
    if kind < 0.94:
        if draw.chance(0.5):
            targets = [one_target(draw, kinds, inside=True), one_target(draw, kinds, inside=True)]
        else:
            # A room said first belongs to its own device alone.
            targets = [_compound(draw, kinds), one_target(draw, kinds, inside=draw.chance(0.5))]
        text = f" {joint} ".join(target.text for target in targets)
        return Target(text, tuple(pair for target in targets for pair in target.pairs))
    return _all(draw, kinds)


def _compound(draw: Draw, kinds: Sequence[str]) -> Target:
    """Name a device by its room first: "the kitchen light"."""
    room_spoken, room = known_room(draw)
    spoken, device = device_name(draw, kinds)
    return Target(article(draw, f"{room_spoken} {spoken}"), ((device, room),))


def _all(draw: Draw, kinds: Sequence[str]) -> Target:
    """Name all devices, or all of one kind, in a room or in the house."""
    kind = draw.rng.random()
    if kind < 0.35:
        text, device = draw.pick(lists("everything")), "all"
    else:
        source = lists(f"device.{draw.rng.choice(kinds)}")
        device = (
            draw.pick_where(source, fits=lambda noun: noun.endswith("s"), kind="name")
            if any(noun.endswith("s") for noun in source.train)
            else "lights"
        )
        text = draw.fill(draw.pick(lists("all_of")), {"plural": device})
    where: str
    room: str | None
    if draw.chance(0.45):
        where, room = place_phrase(draw)
    else:
        where, room = draw.pick(lists("room.whole")), "all"
    if room == "all" and not text.startswith("the ") and draw.chance(0.4):
        where = ""
    if device == "all" and room == "all":
        room = None
    return Target(f"{text} {where}".strip(), ((device, room),))


def fill_slots(
    draw: Draw, template: str, kinds: Sequence[str], *, many: bool
) -> tuple[dict[str, str], list[tuple[str | None, str | None]]]:
    """Fill in whatever devices and rooms a template speaks of."""
    slots: dict[str, str] = {}
    pairs: list[tuple[str | None, str | None]] = [(None, None)]
    apart = "{in}" in template
    if "{thing}" in template:
        target = _target(draw, kinds, roomy=not apart, many=many)
        slots["thing"], pairs = target.text, list(target.pairs)
    if "{bare}" in template:
        spoken, device = device_name(draw, kinds)
        pairs = [(device, None)]
        if not apart and draw.chance(0.45):
            room_spoken, room = known_room(draw)
            spoken, pairs = f"{room_spoken} {spoken}", [(device, room)]
        slots["bare"] = spoken
    where: str | None = None
    if apart:
        slots["in"], where = _here(draw, template)
    elif "{room}" in template:
        spoken, where = room_name(draw)
        slots["room"] = article(draw, spoken)
    elif "{known}" in template:
        spoken, where = known_room(draw)
        slots["known"] = article(draw, spoken)
    elif "{compound}" in template:
        slots["compound"], where = known_room(draw)
    if where is not None:
        pairs = [(device, where) for device, _ in pairs]
    return slots, pairs
