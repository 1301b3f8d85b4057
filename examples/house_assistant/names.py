"""Open names: made-up rooms, devices and people, so that a name must be copied, not known."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, wraps

from examples.house_assistant.grammar import (
    Draw,
    Language,
    is_held,
    languages,
    misspellings,
    open_words,
    rules,
    training_words,
    words_of,
)

__all__ = [
    "english_device",
    "english_room",
    "held_names",
    "mandarin_device",
    "mandarin_person",
    "mandarin_room",
    "mandarin_stem",
    "name_words",
    "ordinary",
    "person",
    "pseudo_word",
    "title",
]

_ONSETS_TEXT = """
b c d f g h j k l m n p r s t v w z bl br ch cl cr dr fl fr gl gr kl kr pl pr qu sc sh sk
sl sn sp st str sw th tr tw vr wh y x
"""
_ONSETS = _ONSETS_TEXT.split()
_NUCLEI_TEXT = """
a e i o u a e i o u ai au ea ee ei ia ie io oa oo ou ue y
"""
_NUCLEI = _NUCLEI_TEXT.split()
_CODAS_TEXT = """
n r l s t m d k p x b g ck ft ld lf lk lm lt mp nd ng nk nt rd rf rk rm rn rt sh sk st th
zz
"""
_CODAS = _CODAS_TEXT.split()


def pseudo_word(draw: Draw) -> str:
    """Make up a word that can be spoken and that no list of the grammar is close to."""
    while True:
        word = _syllables(draw.rng) if draw.chance(0.5) else _fragments(draw.rng)
        if 3 <= len(word) <= 12 and _belongs(draw, word) and not _is_close(word):
            return word


def _syllables(rng: random.Random) -> str:
    """Put syllables together: a word as it could come from any language."""
    word = ""
    for _ in range(rng.choice((1, 2, 2, 2, 3))):
        onset = rng.choice(_ONSETS) if rng.random() < 0.9 else ""
        coda = rng.choice(_CODAS) if rng.random() < 0.45 else ""
        word += onset + rng.choice(_NUCLEI) + coda
    return word + rng.choice("aeiou") if rng.random() < 0.25 else word


def _fragments(rng: random.Random) -> str:
    """Put pieces of ordinary words together, so that any piece of a word may be in a name."""
    pieces = []
    for _ in range(rng.choice((2, 2, 3))):
        word = rng.choice(training_words())
        length = rng.randint(2, min(5, len(word)))
        start = rng.randint(0, len(word) - length)
        pieces.append(word[start : start + length])
    return "".join(pieces)


def _never_held(make: Callable[[Draw], str]) -> Callable[[Draw], str]:
    """Draw a training name again if it happens to be one that only the held-out sets use."""

    @wraps(make)
    def made(draw: Draw) -> str:
        while True:
            name = make(draw)
            if draw.split == "held" or name.lower() not in held_names():
                return name

    return made


def _belongs(draw: Draw, name: str) -> bool:
    """Keep the halves of the made-up names apart."""
    if draw.split == "train":
        return not is_held(name)
    if is_held(name):
        draw.held.add(("name", name))
        return True
    return False


@cache
def _neighbours() -> frozenset[str]:
    """Every ordinary word, whole and with one letter dropped."""
    words = [word for word in words_of("en") if len(word) >= 3]
    return frozenset(words).union(*({w[:i] + w[i + 1 :] for i in range(len(w))} for w in words))


def _is_close(word: str) -> bool:
    """Say whether one slip could turn an ordinary word into this one."""
    shorter = {word[:i] + word[i + 1 :] for i in range(len(word))}
    return not _neighbours().isdisjoint({word, *shorter})


@_never_held
def title(draw: Draw) -> str:
    """Put two ordinary words together, as scenes, tunes and things are called."""
    nouns = open_words("en", "nouns")
    second = draw.rng.choice(nouns if draw.chance(0.6) else _NOUNS_AT_WORK)
    return f"{draw.rng.choice(nouns)} {second}"


def _word(draw: Draw, source: str) -> str:
    """Choose a word for a name from a list, or make it up, so that no list can be relied on."""
    if (noun := ordinary(draw, "en", "nouns", share=0.3)) is not None:
        return noun
    return pseudo_word(draw) if draw.chance(0.4) else draw.pick(rules("en", source), "name")


def ordinary(draw: Draw, language: Language, *kinds: str, share: float) -> str | None:
    """Choose an ordinary word as a name, in a share of the names of training.

    There are too many of them to be learnt by heart. The held-out sets have words of their own.

    Args:
        draw: the source of chance.
        language: which words.
        kinds: lists of `phrasings/words.toml`.
        share: how often, 0 to 1; None is returned otherwise.
    """
    if draw.split == "held" or not draw.chance(share):
        return None
    return draw.rng.choice(open_words(language, draw.rng.choice(kinds)))


def _rare(draw: Draw) -> str:
    return ordinary(draw, "en", "nouns", "nouns", "adjectives", share=0.5) or _word(draw, "rare")


# Words that mean something else in a command, and yet may be the first part of a name.
_AT_WORK_TEXT = """
heat track step sound song power energy level time day night morning evening front back side
main fire water air gas alarm color speed weather cold warm hot cool music video news floor
party dinner window door wall table desk fairy pool bath steam stove wine box boot
"""
_NOUNS_AT_WORK = _AT_WORK_TEXT.split()
_DEVICE_LISTS = ("light", "climate", "media", "cover", "appliance")


def _known_compound(draw: Draw, source: str) -> str:
    """Make a name of known words alone: one from elsewhere, and mostly one that says what it is."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.5:
        # Any word may begin a name: in an answer it is then spelt without the space before it.
        first = rng.choice(training_words())
    elif kind < 0.75:
        first = rng.choice(_NOUNS_AT_WORK)
    else:
        first = rng.choice(rules("en", f"device.{rng.choice(_DEVICE_LISTS)}").train).split()[0]
    known = rng.choice(rules("en", source).train)
    return f"{first} {known if rng.random() < 0.7 else rng.choice(_NOUNS_AT_WORK)}"


_HELD_LISTS = (
    "room.inside",
    "room.outside",
    *(f"device.{kind}" for kind in (*_DEVICE_LISTS, "lock")),
    *("room_word", "device_word", "people", "rare", "tune", "scene_name", "noun"),
)


@cache
def held_names() -> frozenset[str]:
    """Return the names and parts of names that no training command may hold, in small letters."""
    return frozenset(
        name.lower()
        for language in languages
        for source in _HELD_LISTS
        for name in rules(language, source).held
    )


_WORD_KINDS = ("nouns", "adjectives", "rooms", "devices", "tunes", "scenes")
_NAME_LISTS = ("rare", "people", "tune", "scene_name", "noun")


@cache
def name_words() -> frozenset[str]:
    """Return the English words that stand in names alone, in small letters."""
    names = [name for kind in _WORD_KINDS for name in open_words("en", kind)]
    names += [entry.lower() for name in _NAME_LISTS for entry in rules("en", name).train]
    found = {word for name in names for word in name.split()}
    return frozenset(found.difference(training_words(skip=_NAME_LISTS, shortest=1)))


def _cased(draw: Draw, name: str) -> str:
    """Write a made-up name as people write brands and nicknames."""
    kind = draw.rng.random()
    if kind < 0.75:
        return name
    return name.title() if kind < 0.97 else name.upper()


@_never_held
def person(draw: Draw) -> str:
    """Name somebody."""
    if draw.chance(0.5):
        name = pseudo_word(draw)
        return name.title() if draw.chance(0.7) else name
    name = draw.pick(rules("en", "people"), "name")
    return name.lower() if draw.chance(0.3) else name


@_never_held
def english_room(draw: Draw) -> str:
    """Make up the name of a room."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.35:
        return _cased(draw, pseudo_word(draw))
    if draw.split == "train" and rng.random() < 0.22:
        return _known_compound(draw, "room_word")
    if kind < 0.5:
        first = pseudo_word(draw) if rng.random() < 0.5 else _rare(draw)
        return f"{first} {_word(draw, 'room_word')}"
    if kind < 0.6:
        return ordinary(draw, "en", "rooms", share=0.5) or _rare(draw)
    if kind < 0.68 and draw.split == "train":
        return f"{_rare(draw)} {rng.choice(rules('en', 'room.inside').train)}"
    if kind < 0.75:
        return f"{person(draw)}'s {_word(draw, rng.choice(('room_word', 'room.inside')))}"
    if kind < 0.87:
        number = str(rng.randint(1, 400)) if rng.random() < 0.8 else rng.choice("ABCDEFGH")
        return f"{_word(draw, 'room_number')} {number}"
    first = _rare(draw) if rng.random() < 0.5 else pseudo_word(draw)
    return _cased(draw, f"{first} {pseudo_word(draw)}")


@_never_held
def english_device(draw: Draw) -> str:
    """Make up the name of a device."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.35:
        return _cased(draw, pseudo_word(draw))
    if draw.split == "train" and rng.random() < 0.22:
        return _known_compound(draw, "device_word")
    if kind < 0.6:
        first = pseudo_word(draw) if rng.random() < 0.5 else _rare(draw)
        return _cased(draw, f"{first} {_word(draw, 'device_word')}")
    if kind < 0.67:
        return ordinary(draw, "en", "devices", share=0.5) or _rare(draw)
    if kind < 0.72 and draw.split == "train":
        known = rng.choice(("light", "climate", "media", "appliance", "cover"))
        return f"{_rare(draw)} {rng.choice(rules('en', f'device.{known}').train)}"
    if kind < 0.8:
        number = str(rng.randint(1, 99)) if rng.random() < 0.7 else rng.choice("ABCDEFGH")
        return f"{_word(draw, 'device_number')} {number}"
    if kind < 0.9:
        return _cased(draw, f"{pseudo_word(draw)} {pseudo_word(draw)}")
    brand = pseudo_word(draw).title()
    return f"{brand} {rng.choice('ABEGKLMPRSTXZ')}{rng.randint(1, 999)}"


def _characters(draw: Draw, fewest: int, most: int) -> str:
    """Combine random characters into a Chinese name."""
    rng = draw.rng
    wrong = misspellings()[1]
    while True:
        length = rng.randint(fewest, most)
        # Common characters of every kind, and now and then any character at all: copying must
        # not depend on knowing a character as part of names.
        kind = rng.random()
        if kind < 0.06:
            name = "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(length))
        else:
            pool = _common() if kind < 0.6 else _pool()
            name = "".join(rng.choice(pool) for _ in range(length))
        if _belongs(draw, name) and name not in wrong:
            return name


@cache
def _pool() -> str:
    return "".join(rules("zh", "character").train)


# Characters that open, join or close phrases, or count: a name with them would blur its edges.
_WORKING = frozenset(
    "的把将给让请我你您他它这那个在里到为成了吧吗呢啊哦和跟与及或再也并还都就要想得去来快帮能可以会不没有"
    "开关打上下拉推锁解调设置改变换用停启动播放听取消提醒点半分秒刻时钟天周期每一二三四五六七八九十百零两"
    "几多少第号楼档度高低大小亮暗热冷灯门窗帘后前过边些全所是什么谁哪怎有"
)


@cache
def _common() -> str:
    """The 3,755 characters of the first level of GB 2312, but for those that do the work."""
    level = (bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    text = b"".join(level).decode("gb2312", errors="ignore")
    return "".join(character for character in text if character not in _WORKING)


@_never_held
def mandarin_stem(draw: Draw) -> str:
    """Make up the part of a Chinese name that says no kind of thing."""
    kind = draw.rng.random()
    if kind < 0.65:
        return _characters(draw, 2, 3)
    if kind < 0.85:
        return ordinary(draw, "zh", "nouns", share=0.6) or draw.pick(rules("zh", "rare"), "name")
    word = pseudo_word(draw)
    return word.title() if draw.chance(0.5) else word


@_never_held
def mandarin_person(draw: Draw) -> str:
    """Name somebody in Chinese."""
    if draw.chance(0.5):
        return _characters(draw, 2, 3)
    return draw.pick(rules("zh", "people"), "name")


def _ending(draw: Draw, source: str) -> str:
    """Choose what kind of thing a Chinese name says, or any character in its place."""
    if draw.chance(0.5 if draw.split == "train" else 0.35):
        return _characters(draw, 1, 1)
    return draw.pick(rules("zh", source), "name")


@_never_held
def mandarin_room(draw: Draw) -> str:
    """Make up the Chinese name of a room."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.25:
        return ordinary(draw, "zh", "rooms", share=0.3) or mandarin_stem(draw)
    if kind < 0.32 and draw.split == "train":
        return mandarin_stem(draw) + rng.choice(rules("zh", "room.inside").train)
    if kind < 0.6:
        return mandarin_stem(draw) + _ending(draw, "room_word")
    if kind < 0.75:
        return f"{mandarin_person(draw)}{rng.choice(('的房间', '房间', '的卧室', '的书房'))}"
    if kind < 0.88:
        return f"{rng.choice('一二三四五六七八九')}{rng.choice(('号房间', '号房', '楼', '号厅'))}"
    if kind < 0.94:
        return f"{rng.randint(1, 40)}{rng.choice(('号房间', '号房', '楼', '号仓'))}"
    return _characters(draw, 2, 4)


@_never_held
def mandarin_device(draw: Draw) -> str:
    """Make up the Chinese name of a device."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.25:
        return ordinary(draw, "zh", "devices", share=0.3) or mandarin_stem(draw)
    if kind < 0.35 and draw.split == "train":
        known = rng.choice(("light", "climate", "media", "appliance"))
        return mandarin_stem(draw) + rng.choice(rules("zh", f"device.{known}").train)
    if kind < 0.75:
        return mandarin_stem(draw) + _ending(draw, "device_word")
    if kind < 0.87:
        return f"{rng.choice('一二三四五六七八九')}号{rng.choice(('灯', '机', '插座', '风扇'))}"
    if kind < 0.93:
        return f"{pseudo_word(draw).title()}{rng.randint(1, 99)}号"
    return _characters(draw, 2, 4)
