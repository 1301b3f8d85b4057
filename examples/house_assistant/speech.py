"""Numbers, values and times: how they are spoken, and the one form the answer has for each."""

from __future__ import annotations

from examples.house_assistant.grammar import Draw, Language, meanings, rules

__all__ = [
    "Said",
    "amount",
    "clock",
    "duration",
    "english_number",
    "fixed",
    "level",
    "mandarin_number",
    "percent",
    "temperature",
]

Said = tuple[str, str]
"""What is spoken, and what the answer says."""

_ONES_TEXT = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen
"""
_ONES = _ONES_TEXT.split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_DIGITS = "零一二三四五六七八九"


_NAMED = {"midnight": "00:00", "半夜十二点": "00:00", "sunset": "sunset", "日落": "sunset",
          "sunrise": "sunrise", "日出": "sunrise"}  # fmt: skip


def english_number(n: int, *, joint: str = " ") -> str:
    """Spell a number.

    Args:
        n: 0 to 100.
        joint: what stands between tens and ones.
    """
    if n < 20:
        return _ONES[n]
    if n == 100:
        return "a hundred"
    tens = _TENS[n // 10 - 2]
    return tens + joint + _ONES[n % 10] if n % 10 else tens


def mandarin_number(n: int, *, counting: bool = False) -> str:
    """Spell a number in Chinese.

    Args:
        n: 0 to 100.
        counting: whether a measure word follows, where two is another word.
    """
    if n == 2 and counting:
        return "两"
    if n < 10:
        return _DIGITS[n]
    if n == 100:
        return "一百"
    tens = ("" if n < 20 else _DIGITS[n // 10]) + "十"
    return tens + _DIGITS[n % 10] if n % 10 else tens


def _spell(draw: Draw, language: Language, n: int, *, counting: bool = False) -> str:
    """Say a number in words or in digits."""
    if draw.chance(0.4):
        return str(n)
    if language == "zh":
        return mandarin_number(n, counting=counting)
    return english_number(n, joint=draw.rng.choice((" ", " ", "-")))


def fixed(draw: Draw, language: Language, name: str) -> Said:
    """Choose a phrase that stands for one value, such as "means.color"."""
    phrases, stands_for = meanings(language, name)
    phrase = draw.pick(phrases)
    return phrase, stands_for[phrase]


def duration(draw: Draw, language: Language) -> Said:
    """Say how long, such as ("twenty minutes", "20m")."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.2:
        return fixed(draw, language, "means.duration")
    if kind < 0.32:
        n, name, unit = (
            rng.choice((5, 10, 15, 20, 30, 45, 60, 90, rng.randint(2, 99))),
            "seconds",
            "s",
        )
    elif kind < 0.75:
        n, name, unit = (
            rng.choice((5, 10, 15, 20, 25, 30, 40, 45, rng.randint(2, 99))),
            "minutes",
            "m",
        )
    elif kind < 0.88:
        n, name, unit = rng.randint(2, 12), "hours", "h"
    else:
        h = rng.randint(2, 9)
        hours = _spell(draw, language, h, counting=True)
        if kind < 0.94:
            m = rng.choice((10, 15, 20, 30, 40, 45, 50))
            template = draw.pick(rules(language, "duration.both"))
            spoken = {"h": hours, "m": _spell(draw, language, m, counting=True)}
            return draw.fill(template, spoken), f"{h}h{m}m"
        template = draw.pick(rules(language, "duration.halves"))
        hours = str(h) if ".5" in template else hours
        return draw.fill(template, {"h": hours}), f"{h}h30m"
    spoken = {"n": _spell(draw, language, n, counting=True)}
    return draw.fill(draw.pick(rules(language, f"duration.{name}")), spoken), f"{n}{unit}"


def clock(draw: Draw, language: Language) -> Said:
    """Say a time of day, such as ("ten to seven", "06:50").

    An hour from one to twelve without a part of the day means the morning half of the clock.
    """
    rng = draw.rng
    kind, minute = _minute(draw)
    if kind == "named":
        spoken = draw.pick(rules(language, "time.named"))
        return spoken, _NAMED.get(spoken, "12:00")
    if kind == "spoken" and language == "zh":
        kind = "past"
    template = draw.pick(rules(language, f"time.{kind}"))
    if "{H" in template or "{ampm}" in template:
        hour = rng.randrange(24)
    elif "{part}" in template:
        hour = rng.choice((*range(5, 12), *range(13, 17), *range(17, 23)))
    else:
        hour = rng.randint(1, 12)
    return draw.fill(
        template, _clock_slots(draw, language, hour, minute)
    ), f"{hour:02d}:{minute:02d}"


def _minute(draw: Draw) -> tuple[str, int]:
    """Choose how a time is said, and the minute."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.3:
        return "hour", 0
    if kind < 0.42:
        return "half", 30
    if kind < 0.5:
        return "quarter_past", 15
    if kind < 0.58:
        return "quarter_to", 45
    if kind < 0.65:
        return "past", rng.choice((5, 10, 20, 25, rng.randint(1, 29)))
    if kind < 0.74:
        return "to", 60 - rng.choice((5, 10, 20, 25, rng.randint(1, 29)))
    if kind < 0.8:
        return "spoken", rng.randint(11, 59)
    if kind < 0.96:
        return "digital", rng.choice((0, 15, 30, 45, rng.randrange(60), rng.randrange(60)))
    return "named", 0


def _clock_slots(draw: Draw, language: Language, hour: int, minute: int) -> dict[str, str]:
    """Say each part that a time template may ask for."""
    h = hour % 12 or 12
    part = "am" if hour < 12 else "noon" if hour < 17 else "pm"
    if 13 <= hour < 19 and language == "zh":
        part = "noon"
    slots = {
        "part": draw.pick(rules(language, f"part.{part}")),
        "hd": str(h),
        "h2": f"{h:02d}",
        "H": str(hour),
        "H2": f"{hour:02d}",
        "m2": f"{minute:02d}",
        "md": str(minute),
    }
    if language == "en":
        next_hour = english_number(h % 12 + 1)
        ampm = ("am", "a.m.") if hour < 12 else ("pm", "p.m.")
        return slots | {
            "h": english_number(h),
            "next": next_hour,
            "m": english_number(minute),
            "mm": english_number(minute),
            "left": english_number(60 - minute),
            "ampm": draw.rng.choice((*ampm[:1], *ampm)),
        }
    return slots | {
        "h": mandarin_number(h, counting=True),
        "next": mandarin_number(h % 12 + 1, counting=True),
        "m": ("零" if minute < 10 else "") + mandarin_number(minute),
        "left": mandarin_number(60 - minute, counting=True),
        "Hz": mandarin_number(hour, counting=True),
        "mz": ("零" if minute < 10 else "") + mandarin_number(minute),
    }


def percent(draw: Draw, language: Language) -> Said:
    """Say a share, such as ("thirty percent", "30%")."""
    rng = draw.rng
    kind = rng.random()
    for limit, name, canonical in (
        (0.06, "half", "50%"),
        (0.12, "max", "max"),
        (0.17, "min", "min"),
    ):
        if kind < limit:
            return draw.pick(rules(language, f"value.{name}")), canonical
    n = rng.randint(0, 100) if rng.random() < 0.6 else rng.randrange(10, 101, 10)
    if draw.chance(0.12):
        return _spell(draw, language, n), str(n)
    return _number_phrase(draw, language, "percent", n), f"{n}%"


def temperature(draw: Draw, language: Language) -> Said:
    """Say a temperature, such as ("twenty one degrees", "21 C")."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.12:
        n = rng.randint(50, 90)
        return _number_phrase(draw, language, "fahrenheit", n), f"{n} F"
    n = rng.randint(10, 32) if rng.random() < 0.85 else rng.randint(1, 90)
    if kind < 0.25:
        return _number_phrase(draw, language, "half_degree", n), f"{n}.5 C"
    if draw.chance(0.15):
        return _spell(draw, language, n), str(n)
    return _number_phrase(draw, language, "temperature", n), f"{n} C"


def level(draw: Draw, language: Language) -> Said:
    """Say a bare number or a level, such as ("level two", "2")."""
    n = draw.rng.randint(1, 10) if draw.chance(0.7) else draw.rng.randint(1, 100)
    return _number_phrase(draw, language, "level", n), str(n)


def amount(draw: Draw, language: Language) -> Said:
    """Say by how much something changes."""
    kind = draw.rng.random()
    n = draw.rng.randint(1, 10) if draw.chance(0.5) else draw.rng.randrange(5, 60, 5)
    if kind < 0.5:
        return _number_phrase(draw, language, "percent", n), f"{n}%"
    if kind < 0.9:
        if n == 1 and language == "en":
            return draw.rng.choice(("one degree", "1 degree", "a degree")), "1 C"
        return _number_phrase(draw, language, "temperature", n), f"{n} C"
    return _spell(draw, language, n), str(n)


def _number_phrase(draw: Draw, language: Language, name: str, n: int) -> str:
    counting = (
        language == "zh" and name in ("temperature", "half_degree", "level") and draw.chance(0.5)
    )
    words = (
        mandarin_number(n, counting=counting)
        if language == "zh"
        else english_number(n, joint=draw.rng.choice((" ", " ", "-")))
    )
    if name == "percent" and n == 100 and language == "zh":
        words = "百"
    return draw.fill(draw.pick(rules(language, f"value.{name}")), {"n": words, "d": str(n)})
