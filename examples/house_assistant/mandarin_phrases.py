"""Chinese noun phrases: devices and rooms as people name them, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence

from examples.house_assistant.actions import Target
from examples.house_assistant.grammar import Draw, Rules, misspellings, rules
from examples.house_assistant.names import mandarin_device, mandarin_room, ordinary

__all__ = ["device_name", "known_room", "lists", "one_target", "room_name", "target"]

_COVERS = ("门", "窗", "帘", "窗户")


def lists(name: str) -> Rules:
    """Look up a Chinese list.

    Args:
        name: the keys of its table, joined by dots.
    """
    return rules("zh", name)


def _written(draw: Draw, noun: str) -> str:
    """Write an ordinary noun, now and then with a wrong character."""
    if not draw.sloppy or not draw.chance(0.7):
        return noun
    for right, wrong in misspellings()[0].items():
        if right in noun:
            return noun.replace(right, draw.pick(wrong, "misspelling"))
    return noun


def noun(draw: Draw, source: str) -> tuple[str, str]:
    kind = "rooms" if source.startswith("room") else "devices"
    unusual = ordinary(draw, "zh", kind, share=0.25)
    if unusual is not None:
        return unusual, unusual
    noun = draw.pick(lists(source), "name")
    return _written(draw, noun), noun


def device_name(draw: Draw, kinds: Sequence[str]) -> tuple[str, str]:
    """Choose a device that is no door, window or curtain unless `kinds` says so."""
    if draw.chance(0.55):
        name = mandarin_device(draw)
        if kinds == ("cover",):
            name += draw.rng.choice(_COVERS)
        elif kinds == ("lock",):
            name += draw.rng.choice(("门", "锁"))
        elif name.endswith(_COVERS):
            name += "灯"
        return name, name
    return noun(draw, f"device.{draw.rng.choice(kinds)}")


def known_room(draw: Draw) -> tuple[str, str]:
    """Choose a room that every speaker knows: as it is written, and what is meant."""
    noun = draw.pick(Rules(lists("room.inside").train + lists("room.outside").train))
    return _written(draw, noun), noun


def room_name(draw: Draw) -> tuple[str, str]:
    """Choose any room: as it is written, and what is meant."""
    if draw.chance(0.55):
        name = mandarin_room(draw)
        return name, name
    return noun(draw, "room.outside" if draw.chance(0.2) else "room.inside")


def one_target(draw: Draw, kinds: Sequence[str]) -> Target:
    """Name one device, mostly with its room."""
    spoken, device = device_name(draw, kinds)
    if draw.chance(0.38):
        return Target(spoken, ((device, None),))
    if draw.chance(0.4):
        room_spoken, room = known_room(draw)
        return Target(room_spoken + spoken, ((device, room),))
    room_spoken, room = room_name(draw)
    joint = draw.rng.choice(("的", "的", "的", "里的", "那边的"))
    return Target(room_spoken + joint + spoken, ((device, room),))


def target(draw: Draw, kinds: Sequence[str], *, many: bool) -> Target:
    """Name what a command is about: one device, several, or all of them."""
    kind = draw.rng.random()
    if not many or kind < 0.74:
        return one_target(draw, kinds)
    joint = draw.pick(lists("and"))
    if kind < 0.82:
        first, second = device_name(draw, kinds), device_name(draw, kinds)
        room_spoken, room = room_name(draw) if draw.chance(0.5) else ("", None)
        text = f"{room_spoken}{'的' if room else ''}{first[0]}{joint}{second[0]}"
        return Target(text, ((first[1], room), (second[1], room)))
    if kind < 0.88:
        (spoken, device), one, other = device_name(draw, kinds), room_name(draw), room_name(draw)
        text = f"{one[0]}{joint}{other[0]}的{spoken}"
        return Target(text, ((device, one[1]), (device, other[1])))
    if kind < 0.91:
        targets = []
        for _ in range(2):
            (room_spoken, room), (spoken, device) = room_name(draw), device_name(draw, kinds)
            targets.append(Target(f"{room_spoken}的{spoken}", ((device, room),)))
        return Target(
            targets[0].text + joint + targets[1].text, targets[0].pairs + targets[1].pairs
        )
    return _all(draw, kinds)


def _all(draw: Draw, kinds: Sequence[str]) -> Target:
    """Name all devices, or all of one kind, in a room or in the house."""
    if draw.chance(0.35):
        text, device = draw.pick(lists("everything")), "all"
    else:
        device = draw.pick(lists(f"device.{draw.rng.choice(kinds)}"), "name")
        text = draw.fill(draw.pick(lists("all_of")), {"device": device})
    if draw.chance(0.4):
        return Target(text, ((device, None if device == "all" else "all"),))
    if draw.chance(0.3) and device != "all":
        return Target(f"{draw.pick(lists('room.whole'))}的{device}", ((device, "all"),))
    spoken, room = room_name(draw)
    return Target(f"{spoken}{draw.rng.choice(('的', '里'))}{text}", ((device, room),))
