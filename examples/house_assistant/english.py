"""English commands: noun phrases, clauses and the sentence around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from examples.house_assistant import speech
from examples.house_assistant.actions import Clause, Target, action
from examples.house_assistant.english_phrases import fill_slots, lists, one_target, place_phrase
from examples.house_assistant.grammar import Draw
from examples.house_assistant.names import ordinary, person, pseudo_word, title

__all__ = ["answerless", "ask", "clause", "sentence"]


_ACTS = ("turn_on", "turn_off", "open", "close", "lock", "unlock")
_KINDS = {
    "turn_on": ("light", "light", "climate", "media", "appliance"),
    "turn_off": ("light", "light", "climate", "media", "appliance"),
    "open": ("cover",),
    "close": ("cover",),
    "lock": ("lock",),
    "unlock": ("lock",),
}
_STARTS_TEXT = """
turn switch put power flip activate enable fire get shut deactivate disable kill cut open
pull roll push close draw lock bolt secure unlock unbolt take set change adjust make bring
move keep dim brighten run heat warm cool raise increase crank bump lower decrease reduce
start launch stop halt pause hold resume continue unpause mute silence unmute give skip
play go clean vacuum hoover sweep wake create ring cancel delete remove clear forget remind
tell speed slow paint light let have see begin abort interrupt count do swing
"""
_STARTS = frozenset(_STARTS_TEXT.split())


def _build(
    draw: Draw,
    template: str,
    kinds: Sequence[str],
    *,
    category: str,
    many: bool = True,
    words: dict[str, str] | None = None,
    **fields: str | None,
) -> Clause:
    """Fill a template and write down its actions."""
    slots, pairs = fill_slots(draw, template, kinds, many=many)
    text = draw.fill(template, slots | (words or {}))
    actions = [action(device=device, room=room, **fields) for device, room in pairs]
    start = text.split(" ")[0] if not template.startswith("{") else ""
    return Clause(text, actions, start in _STARTS, category)


def _switch(draw: Draw) -> Clause:
    """Turn on or off, open or close, lock or unlock."""
    act = draw.rng.choice(("turn_on", "turn_on", "turn_off", "turn_off", *_ACTS))
    template = draw.pick(lists("switch"))
    verb = draw.pick_where(
        lists(f"verb.{act}"), fits=lambda v: "{in}" not in template or "{thing}" in v
    )
    # The doing word carries the place of its own device.
    whole = template.replace("{do}", verb).replace("{doing}", draw.pick(lists(f"doing.{act}")))
    words = {"done": draw.pick(lists(f"done.{act}")), "state": draw.pick(lists(f"state.{act}"))}
    built = _build(draw, whole, _KINDS[act], category="switch", words=words, do=act)
    built.imperative = template in ("{do}", "{do} {in}")
    return built


def _states(draw: Draw) -> Clause:
    """Say in what state two or three devices should be, without a verb."""
    texts, actions = [], []
    for _ in range(3 if draw.chance(0.2) else 2):
        act = draw.rng.choice(("turn_on", "turn_on", "turn_off", "turn_off", *_ACTS))
        words = {"state": draw.pick(lists(f"state.{act}"))}
        template = draw.rng.choice(("{bare} {state}", "{bare} {state}", "{bare} {in} {state}"))
        one = _build(draw, template, _KINDS[act], category="switch", words=words, do=act)
        texts.append(one.text)
        actions += one.actions
    text = texts[0]
    for one_more in texts[1:]:
        text += draw.rng.choice((" and ", " and ", ", ", ", and ", " but ", ", but ")) + one_more
    return Clause(text, actions, imperative=False, category="several", timed=False)


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
        value, canonical = say(draw, "en")
        template = draw.pick(lists("set_cover" if kinds == ("cover",) else "set"))
        return _build(
            draw, template, kinds, category="set", words={"value": value}, do="set", value=canonical
        )
    if kind < 0.7:
        name = draw.rng.choice((
            "brightness",
            "volume",
            "temperature",
            "temperature",
            "speed",
            "channel",
        ))
        kinds, say = _VALUES[name]
        value, canonical = say(draw, "en")
        if name in ("channel", "speed") or (name == "volume" and draw.chance(0.4)):
            n = draw.rng.randint(1, 99)
            value = str(n) if draw.chance(0.5) else speech.english_number(n)
            canonical = str(n)
        what: str | None = name
        template = draw.pick(lists(f"set_what.{name}"))
    elif kind < 0.85:
        kinds = ("light",)
        value, canonical = speech.fixed(draw, "en", "means.color")
        what = "color" if draw.chance(0.4) else None
        template = draw.pick(lists("set_what.color" if what else "color"))
    else:
        kinds, what = ("climate",), None
        value, canonical = speech.fixed(draw, "en", "means.mode")
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
        what, ("light", "climate", "media", "cover")
    )
    template = draw.pick(lists(f"{act}.{what}"))
    words = {"bit": draw.pick(lists("bit"))}
    canonical = None
    if what == "by":
        words["by"], canonical = speech.amount(draw, "en")
    named = None if what in ("plain", "by") else what
    return _build(
        draw, template, kinds, category="change", words=words, do=act, what=named, by=canonical
    )


def _title(draw: Draw, source: str) -> str:
    """Name a scene, a piece of music or a thing: from a list, or made up of one word or two."""
    kind = draw.rng.random()
    if kind < 0.5:
        name = ordinary(draw, "en", "nouns", "tunes", "scenes", share=0.6)
        return name or draw.pick(lists(source), "name")
    if kind < 0.6 and draw.split == "train":
        return title(draw)
    return pseudo_word(draw) if kind < 0.75 else f"{pseudo_word(draw)} {pseudo_word(draw)}"


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
    kinds = ("appliance",) if act in ("start", "stop") else ("media",)
    if act == "scene":
        value = _title(draw, "scene_name")
        words["scene"] = value
    if act == "play":
        value = _title(draw, "tune")
        words["tune"] = value
        if "{on}" in template:
            return _play_on(draw, template, words, value)
    built = _build(draw, template, kinds, category="machine", words=words, do=act, value=value)
    built.timed = act in ("start", "stop", "clean", "scene")
    return built


def _play_on(draw: Draw, template: str, words: dict[str, str], value: str) -> Clause:
    """Play something on a device, in a room, or just play it."""
    target = Target("", ((None, None),))
    kind = draw.rng.random()
    if kind < 0.35:
        one = one_target(draw, ("media",), inside=draw.chance(0.4))
        target = Target(f"on {one.text}", one.pairs)
    elif kind < 0.75:
        where, room = place_phrase(draw)
        target = Target(where, ((None, room),))
    text = draw.fill(template, words | {"on": target.text})
    actions = [action(do="play", device=d, room=r, value=value) for d, r in target.pairs]
    return Clause(text, actions, text.split(" ")[0] in _STARTS, "machine", timed=False)


def _day(draw: Draw) -> tuple[str, str]:
    """Say a day, and its one form: "tomorrow", "daily", "monday", "every monday"."""
    spoken = draw.pick(lists("day"))
    days = {"every day": "daily", "on weekdays": "weekdays", "at weekends": "weekends"}
    return spoken, days.get(spoken, spoken.removeprefix("on ").removeprefix("next "))


def _at(draw: Draw, source: str) -> tuple[str, dict[str, str]]:
    """Say a time of day, perhaps with the day."""
    template = draw.pick(lists(source))
    spoken, canonical = speech.clock(draw, "en")
    fields = {"at": canonical}
    slots = {"clock": spoken}
    if "{day}" in template:
        slots["day"], fields["day"] = _day(draw)
    return draw.fill(template, slots), fields


def _clock(draw: Draw) -> Clause:
    """Set or cancel an alarm, a timer or a reminder."""
    act = draw.rng.choice(("alarm", "alarm", "timer", "timer", "cancel", "remind"))
    template = draw.pick(lists(act))
    slots: dict[str, str] = {}
    fields: dict[str, str] = {"do": act}
    if act == "timer":
        slots["dur"], fields["for"] = speech.duration(draw, "en")
    elif act == "cancel":
        slots["clock"] = fields["device"] = draw.pick(lists("clock"))
    else:
        if draw.chance(0.15):
            slots["at"], fields["after"] = _after(draw)
        else:
            slots["at"], when = _at(draw, "at_alarm" if act == "alarm" else "at")
            fields |= when
        if act == "remind":
            slots["task"] = fields["text"] = _task(draw)
    text = draw.fill(template, slots)
    return Clause(text, [action(**fields)], text.split(" ")[0] in _STARTS, "clock", timed=False)


def _task(draw: Draw) -> str:
    """Say what to be reminded of."""
    noun = _title(draw, "noun")
    template = draw.pick(lists("task"))
    # What is copied word for word must not be misspelt on the way.
    return template.replace("{noun}", noun).replace("{person}", person(draw))


def _after(draw: Draw) -> tuple[str, str]:
    spoken, canonical = speech.duration(draw, "en")
    return draw.fill(draw.pick(lists("after")), {"dur": spoken}), canonical


def _when(draw: Draw) -> tuple[str, dict[str, str]]:
    """Say when something happens: at a time, after a while, or for a while."""
    kind = draw.rng.random()
    if kind < 0.5:
        return _at(draw, "at")
    if kind < 0.75:
        spoken, canonical = _after(draw)
        return spoken, {"after": canonical}
    spoken, canonical = speech.duration(draw, "en")
    return draw.fill(draw.pick(lists("for")), {"dur": spoken}), {"for": canonical}


_CLAUSES = (
    (_switch,) * 9 + (_set,) * 6 + (_change,) * 5 + (_machine,) * 4 + (_clock,) * 4 + (_states,)
)


def clause(draw: Draw, *, plain: bool) -> Clause:
    """Say one thing to do, perhaps with its time.

    Args:
        draw: the source of chance.
        plain: whether only commands that can follow "could you" are wanted.
    """
    while True:
        built = draw.rng.choice(_CLAUSES)(draw)
        if plain and not built.imperative:
            continue
        if built.timed and draw.chance(0.16):
            spoken, fields = _when(draw)
            built.actions = [action(**(one | fields)) for one in built.actions]
            if not plain and draw.chance(0.3):
                # "At seven" first: then "could you" would part it from its verb.
                built.text = f"{spoken}{draw.rng.choice((' ', ', '))}{built.text}"
                built.imperative = False
            else:
                built.text = f"{built.text} {spoken}"
        return built


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
    slots, pairs = fill_slots(draw, template, kinds, many=False)
    device, room = pairs[0]
    answer = {"what": what}
    if device is not None:
        answer["device"] = device
    if room is not None:
        answer["room"] = room
    text = draw.fill(template, slots)
    return text, answer


def answerless(draw: Draw, name: str) -> str:
    """Say something that is refused, or small talk.

    Args:
        draw: the source of chance.
        name: the list, such as "refuse.unsafe" or "say.hello".
    """
    template = draw.pick(lists(name))
    slots = {
        "person": person(draw),
        "noun": _title(draw, "noun"),
        "name": pseudo_word(draw).title() if draw.chance(0.8) else pseudo_word(draw),
        "digits": str(draw.rng.randint(2, 999)),
    }
    if "{in}" in template:
        slots["in"], _ = place_phrase(draw)
    return draw.fill(template, slots)


def sentence(draw: Draw, text: str, *, imperative: bool) -> str:
    """Put the politeness, the address and the fillers around a command.

    Args:
        draw: the source of chance.
        text: the command.
        imperative: whether "could you" may stand before it.
    """
    frame = draw.pick(lists("frame" if imperative else "frame_plain"))
    before, after = frame.split("X")
    call = pseudo_word(draw).title() if draw.chance(0.6) else draw.pick(lists("people"), "name")
    if draw.sloppy:
        before, after = before.replace("'", ""), after.replace("'", "")
    return f"{before}{text}{after}".replace("{call}", call)
