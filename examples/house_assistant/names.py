"""Open names: made-up rooms, devices and people, so that a name must be copied, not known."""

from __future__ import annotations

from functools import cache

from examples.house_assistant.grammar import Draw, is_held, misspellings, rules, words_of

__all__ = [
    "english_device",
    "english_room",
    "mandarin_device",
    "mandarin_person",
    "mandarin_room",
    "person",
    "pseudo_word",
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
    rng = draw.rng
    while True:
        word = ""
        for _ in range(rng.choice((1, 2, 2, 2, 3))):
            onset = rng.choice(_ONSETS) if rng.random() < 0.9 else ""
            coda = rng.choice(_CODAS) if rng.random() < 0.45 else ""
            word += onset + rng.choice(_NUCLEI) + coda
        if rng.random() < 0.25:
            word += rng.choice("aeiou")
        if 4 <= len(word) <= 11 and _belongs(draw, word) and not _is_close(word):
            return word


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


def _rare(draw: Draw) -> str:
    return draw.pick(rules("en", "rare"), "name")


def _cased(draw: Draw, name: str) -> str:
    """Write a made-up name as people write brands and nicknames."""
    kind = draw.rng.random()
    if kind < 0.75:
        return name
    return name.title() if kind < 0.97 else name.upper()


def person(draw: Draw) -> str:
    """Name somebody, mostly from the lists."""
    if draw.chance(0.3):
        name = pseudo_word(draw)
        return name.title() if draw.chance(0.7) else name
    name = draw.pick(rules("en", "people"), "name")
    return name.lower() if draw.chance(0.3) else name


def english_room(draw: Draw) -> str:
    """Make up the name of a room."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.35:
        return _cased(draw, pseudo_word(draw))
    if kind < 0.5:
        first = pseudo_word(draw) if rng.random() < 0.5 else _rare(draw)
        return f"{first} {draw.pick(rules('en', 'room_word'), 'name')}"
    if kind < 0.6:
        return _rare(draw)
    if kind < 0.75:
        kinds = rules("en", "room_word" if rng.random() < 0.5 else "room.inside")
        return f"{person(draw)}'s {draw.pick(kinds, 'name')}"
    if kind < 0.87:
        number = str(rng.randint(1, 400)) if rng.random() < 0.8 else rng.choice("ABCDEFGH")
        return f"{draw.pick(rules('en', 'room_number'), 'name')} {number}"
    first = _rare(draw) if rng.random() < 0.5 else pseudo_word(draw)
    return _cased(draw, f"{first} {pseudo_word(draw)}")


def english_device(draw: Draw) -> str:
    """Make up the name of a device."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.35:
        return _cased(draw, pseudo_word(draw))
    if kind < 0.6:
        first = pseudo_word(draw) if rng.random() < 0.5 else _rare(draw)
        return _cased(draw, f"{first} {draw.pick(rules('en', 'device_word'), 'name')}")
    if kind < 0.67:
        return _rare(draw)
    if kind < 0.8:
        number = str(rng.randint(1, 99)) if rng.random() < 0.7 else rng.choice("ABCDEFGH")
        return f"{draw.pick(rules('en', 'device_number'), 'name')} {number}"
    if kind < 0.9:
        return _cased(draw, f"{pseudo_word(draw)} {pseudo_word(draw)}")
    brand = pseudo_word(draw).title()
    return f"{brand} {rng.choice('ABEGKLMPRSTXZ')}{rng.randint(1, 999)}"


def _characters(draw: Draw, fewest: int, most: int) -> str:
    """Combine random characters into a Chinese name."""
    rng = draw.rng
    pool = _pool()
    wrong = misspellings()[1]
    while True:
        length = rng.randint(fewest, most)
        if rng.random() < 0.06:
            # Any character at all, so that copying does not depend on knowing it.
            name = "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(length))
        else:
            name = "".join(rng.choice(pool) for _ in range(length))
        if _belongs(draw, name) and name not in wrong:
            return name


@cache
def _pool() -> str:
    return "".join(rules("zh", "character").train)


def _mandarin_stem(draw: Draw) -> str:
    kind = draw.rng.random()
    if kind < 0.5:
        return _characters(draw, 2, 3)
    if kind < 0.9:
        return draw.pick(rules("zh", "rare"), "name")
    word = pseudo_word(draw)
    return word.title() if draw.chance(0.5) else word


def mandarin_person(draw: Draw) -> str:
    """Name somebody in Chinese."""
    if draw.chance(0.3):
        return _characters(draw, 2, 3)
    return draw.pick(rules("zh", "people"), "name")


def mandarin_room(draw: Draw) -> str:
    """Make up the Chinese name of a room."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.25:
        return _mandarin_stem(draw)
    if kind < 0.6:
        return _mandarin_stem(draw) + draw.pick(rules("zh", "room_word"), "name")
    if kind < 0.75:
        return f"{mandarin_person(draw)}{rng.choice(('的房间', '房间', '的卧室', '的书房'))}"
    if kind < 0.88:
        return f"{rng.choice('一二三四五六七八九')}{rng.choice(('号房间', '号房', '楼', '号厅'))}"
    if kind < 0.94:
        return f"{rng.randint(1, 40)}{rng.choice(('号房间', '号房', '楼', '号仓'))}"
    return _characters(draw, 2, 4)


def mandarin_device(draw: Draw) -> str:
    """Make up the Chinese name of a device."""
    rng = draw.rng
    kind = rng.random()
    if kind < 0.25:
        return _mandarin_stem(draw)
    if kind < 0.75:
        return _mandarin_stem(draw) + draw.pick(rules("zh", "device_word"), "name")
    if kind < 0.87:
        return f"{rng.choice('一二三四五六七八九')}号{rng.choice(('灯', '机', '插座', '风扇'))}"
    if kind < 0.93:
        return f"{pseudo_word(draw).title()}{rng.randint(1, 99)}号"
    return _characters(draw, 2, 4)
