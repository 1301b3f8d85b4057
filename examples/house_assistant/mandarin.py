"""Chinese commands: noun phrases, clauses and the sentence around them."""

# ruff: noqa: RUF001 - full-width punctuation is how Chinese is written
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from examples.house_assistant import speech
from examples.house_assistant.actions import Clause, action
from examples.house_assistant.grammar import Draw
from examples.house_assistant.mandarin_phrases import (
    device_name,
    known_room,
    lists,
    room_name,
    target,
)
from examples.house_assistant.names import mandarin_person, mandarin_stem, ordinary, pseudo_word

__all__ = ["answerless", "ask", "clause", "sentence"]


_KINDS = {
    "turn_on": ("light", "light", "climate", "media", "appliance"),
    "turn_off": ("light", "light", "climate", "media", "appliance"),
    "open": ("cover",),
    "close": ("cover",),
    "lock": ("lock",),
    "unlock": ("lock",),
}
_WEEKDAYS = {"一": "monday", "二": "tuesday", "三": "wednesday", "四": "thursday", "五": "friday",
             "六": "saturday", "日": "sunday", "天": "sunday"}  # fmt: skip
_NUMERALS = frozenset("零一二两三四五六七八九十百半度档级台°%CF0123456789")
_DAYS = {"明天": "tomorrow", "每天": "daily", "工作日": "weekdays", "周末": "weekends"}


def _build(
    draw: Draw,
    template: str,
    kinds: Sequence[str],
    *,
    category: str,
    many: bool = True,
    words: Mapping[str, str] | None = None,
    **fields: str | None,
) -> Clause:
    """Fill a template and write down its actions."""
    slots = dict(words or {})
    pairs: list[tuple[str | None, str | None]] = [(None, None)]
    if "{thing}" in template:
        named_target = target(draw, kinds, many=many)
        slots["thing"], pairs = named_target.text, list(named_target.pairs)
    if "{room}" in template or "{known}" in template:
        spoken, room = known_room(draw) if "{known}" in template else room_name(draw)
        slots["room"] = slots["known"] = spoken
        pairs = [(device, room) for device, _ in pairs]
    text = draw.fill(template, slots)
    actions = [action(device=device, room=room, **fields) for device, room in pairs]
    starts = not template.startswith(("{thing}", "{room}", "{known}", "我", "该", "是时候", "需要"))
    return Clause(text, actions, starts and "太" not in template, category)


def _switch(draw: Draw) -> Clause:
    """Turn on or off, open or close, lock or unlock."""
    act = draw.rng.choice(("turn_on", "turn_on", "turn_off", "turn_off", *_KINDS))
    template = draw.pick(lists("switch"))
    words = {
        "o": draw.pick(lists(f"verb.{act}")),
        "after": draw.pick(lists(f"after.{act}")),
        "state": draw.pick(lists(f"state.{act}")),
    }
    return _build(draw, template, _KINDS[act], category="switch", words=words, do=act)


_VALUES: dict[str, tuple[tuple[str, ...], Callable[..., speech.Said]]] = {
    "brightness": (("light",), speech.percent),
    "volume": (("media",), speech.percent),
    "temperature": (("climate",), speech.temperature),
    "speed": (("climate",), speech.level),
    "channel": (("media",), speech.level),
}


def _set(draw: Draw) -> Clause:
    """Set a device, or a property of it, to a value."""
    kind = draw.rng.random()
    if kind < 0.4:
        name = draw.rng.choice(("brightness", "temperature", "temperature", "volume", "speed"))
        kinds, say = _VALUES[name]
        if name == "brightness" and draw.chance(0.3):
            kinds = ("cover",)
        value, canonical = say(draw, "zh")
        template, what = draw.pick(lists("set")), None
    elif kind < 0.7:
        what = draw.rng.choice((
            "brightness",
            "volume",
            "temperature",
            "temperature",
            "speed",
            "channel",
        ))
        kinds, say = _VALUES[what]
        value, canonical = say(draw, "zh")
        if what == "channel" or (what == "volume" and draw.chance(0.4)):
            n = draw.rng.randint(1, 99)
            value = str(n) if draw.chance(0.5) else speech.mandarin_number(n)
            canonical = str(n)
        template = draw.pick(lists(f"set_what.{what}"))
    elif kind < 0.85:
        kinds = ("light",)
        value, canonical = speech.fixed(draw, "zh", "means.color")
        what = "color" if draw.chance(0.4) else None
        template = draw.pick(lists("set_what.color" if what else "color"))
    else:
        kinds, what = ("climate",), None
        value, canonical = speech.fixed(draw, "zh", "means.mode")
        template = draw.pick(lists("mode"))
    words = {"value": value}
    return _build(
        draw, template, kinds, category="set", words=words, do="set", what=what, value=canonical
    )


def _change(draw: Draw) -> Clause:
    """Ask for more or less of something."""
    act = draw.rng.choice(("raise", "lower"))
    what = draw.rng.choice((
        "plain",
        "by",
        "temperature",
        "temperature",
        "brightness",
        "volume",
        "speed",
    ))
    kinds = {"brightness": ("light",), "volume": ("media",), "speed": ("climate",)}.get(
        what, ("light", "climate", "media")
    )
    words = {"bit": draw.pick(lists("bit"))}
    canonical = None
    if what == "by":
        words["by"], canonical = speech.amount(draw, "zh")
    named = None if what in ("plain", "by") else what
    template = draw.pick(lists(f"{act}.{what}"))
    return _build(
        draw, template, kinds, category="change", words=words, do=act, what=named, by=canonical
    )


def _title(draw: Draw, source: str) -> str:
    """Name a scene, a piece of music or a thing: from a list, or made up."""
    if draw.chance(0.45):
        return mandarin_stem(draw)
    name = ordinary(draw, "zh", "nouns", "tunes", "scenes", share=0.6)
    return name or draw.pick(lists(source), "name")


def _machine(draw: Draw) -> Clause:
    """Start, stop, play, clean, or set a scene."""
    act = draw.rng.choice((
        "start",
        "start",
        "stop",
        "stop",
        "pause",
        "resume",
        "mute",
        "unmute",
        "next",
        "previous",
        "play",
        "play",
        "clean",
        "clean",
        "scene",
        "scene",
    ))
    template = draw.pick(lists(act))
    words: dict[str, str] = {}
    value = None
    if act == "scene":
        value = _title(draw, "scene_name")
        words["scene"] = value
    if act == "play":
        value = _title(draw, "tune")
        return _play(draw, template, value)
    kinds = ("appliance",) if act in ("start", "stop") else ("media",)
    built = _build(draw, template, kinds, category="machine", words=words, do=act, value=value)
    built.timed = act in ("start", "stop", "clean", "scene")
    return built


def _play(draw: Draw, template: str, value: str) -> Clause:
    """Play something on a device, in a room, or just play it."""
    slots = {"tune": value}
    device = room = None
    if "{device}" in template:
        slots["device"], device = device_name(draw, ("media",))
    if "{room}" in template:
        slots["room"], room = room_name(draw)
    if "{on}" in template:
        spoken, room = room_name(draw)
        slots["on"] = f"在{spoken}"
    one = action(do="play", device=device, room=room, value=value)
    starts = not template.startswith(("我", "{on}"))
    return Clause(draw.fill(template, slots), [one], starts, "machine", timed=False)


def _day(draw: Draw) -> tuple[str, str]:
    """Say a day, and its one form: "tomorrow", "daily", "monday", "every monday"."""
    spoken = draw.pick(lists("day"))
    if spoken in _DAYS:
        return spoken, _DAYS[spoken]
    day = _WEEKDAYS[spoken[-1]]
    return spoken, f"every {day}" if spoken.startswith("每") else day


def _at(draw: Draw) -> tuple[str, dict[str, str]]:
    """Say a time of day, perhaps with the day."""
    template = draw.pick(lists("at"))
    spoken, canonical = speech.clock(draw, "zh")
    fields = {"at": canonical}
    slots = {"clock": spoken}
    if "{day}" in template:
        slots["day"], fields["day"] = _day(draw)
    return draw.fill(template, slots), fields


def _after(draw: Draw) -> tuple[str, str]:
    spoken, canonical = speech.duration(draw, "zh")
    return draw.fill(draw.pick(lists("after")), {"dur": spoken}), canonical


def _clock(draw: Draw) -> Clause:
    """Set or cancel an alarm, a timer or a reminder."""
    act = draw.rng.choice(("alarm", "alarm", "timer", "timer", "cancel", "remind"))
    template = draw.pick(lists(act))
    slots: dict[str, str] = {}
    fields: dict[str, str] = {"do": act}
    if act == "timer":
        slots["dur"], fields["for"] = speech.duration(draw, "zh")
    elif act == "cancel":
        slots["clock"] = fields["device"] = draw.pick(lists("clock"))
    else:
        if draw.chance(0.15) and template.startswith("{at}"):
            slots["at"], fields["after"] = _after(draw)
        else:
            slots["at"], when = _at(draw)
            fields |= when
        if act == "remind":
            noun = _title(draw, "noun")
            task = draw.pick(lists("task"))
            person = mandarin_person(draw)
            slots["task"] = task.replace("{noun}", noun).replace("{person}", person)
            fields["text"] = slots["task"]
    starts = not template.startswith(("我", "{at}"))
    return Clause(draw.fill(template, slots), [action(**fields)], starts, "clock", timed=False)


_CLAUSES = (_switch,) * 9 + (_set,) * 6 + (_change,) * 5 + (_machine,) * 4 + (_clock,) * 4


def clause(draw: Draw, *, plain: bool) -> Clause:
    """Say one thing to do, perhaps with its time.

    Args:
        draw: the source of chance.
        plain: whether only commands that can follow "请" are wanted.
    """
    while True:
        built = draw.rng.choice(_CLAUSES)(draw)
        if plain and not built.imperative:
            continue
        if built.timed and draw.chance(0.16):
            _add_time(draw, built)
        return built


def _add_time(draw: Draw, built: Clause) -> None:
    """Say when: at a time or after a while in front, for a while behind."""
    kind = draw.rng.random()
    fields: dict[str, str]
    if kind < 0.55:
        spoken, fields = _at(draw)
    elif kind < 0.8:
        spoken, canonical = _after(draw)
        fields = {"after": canonical}
    else:
        spoken, canonical = speech.duration(draw, "zh")
        fields = {"for": canonical}
    built.actions = [action(**(one | fields)) for one in built.actions]
    # Two numbers that touch could be read in two ways.
    if "for" in fields:
        touching = built.text[-1] in _NUMERALS
        template = draw.pick_where(
            lists("for"), fits=lambda text: not touching or text.startswith("，")
        )
        built.text += draw.fill(template, {"dur": spoken})
    else:
        touching = built.text[0] in _NUMERALS
        joint = "，" if touching else draw.rng.choice(("", "", "，"))
        built.text = f"{spoken}{joint}{built.text}"


def ask(draw: Draw) -> tuple[str, dict[str, str]]:
    """Ask about the state of the house."""
    what = draw.rng.choice((
        "temperature",
        "temperature",
        "temperature",
        "humidity",
        "air_quality",
        "state",
        "state",
        "state",
        "state",
        "battery",
        "brightness",
        "volume",
        "power",
        "time",
        "date",
        "timer",
        "alarm",
        "weather",
    ))
    template = draw.pick(lists(f"ask.{what}"))
    kinds = {"brightness": ("light",), "volume": ("media",), "battery": ("appliance", "lock")}.get(
        what, ("light", "climate", "media", "cover", "appliance")
    )
    built = _build(draw, template, kinds, category="ask", many=False)
    answer = {"what": what, **built.actions[0]}
    return built.text, answer


def answerless(draw: Draw, name: str) -> str:
    """Say something that is refused, or small talk.

    Args:
        draw: the source of chance.
        name: the list, such as "refuse.unsafe" or "say.hello".
    """
    template = draw.pick(lists(name))
    place = draw.pick(lists("rare"), "name") if draw.chance(0.5) else pseudo_word(draw).title()
    slots = {
        "person": mandarin_person(draw),
        "noun": _title(draw, "noun"),
        "name": place,
        "digits": str(draw.rng.randint(2, 999)),
    }
    return draw.fill(template, slots)


def sentence(draw: Draw, text: str, *, imperative: bool) -> str:
    """Put the politeness, the address and the fillers around a command.

    Args:
        draw: the source of chance.
        text: the command.
        imperative: whether "请" may stand before it.
    """
    frame = draw.pick(lists("frame" if imperative else "frame_plain"))
    before, after = frame.split("X")
    call = mandarin_person(draw)
    return f"{before}{text}{after}".replace("{call}", call)
