"""Whether two questions in Chinese ask the same, by their characters.

Chinese is not cut into words here, so nothing may differ but what is listed: particles, courtesy,
ways to ask how and why, a few verbs, and where the verb of a command stands.
"""

import re
import unicodedata
from collections import Counter
from typing import Final

__all__ = ["difference"]


def _listed(text: str) -> list[str]:
    return text.split()


_DIGITS: Final = {letter: value for value, letter in enumerate("零一二三四五六七八九")} | {
    "〇": 0,  # noqa: RUF001 (a numeral)
    "两": 2,
}
_PLACES: Final = {"十": 10, "百": 100, "千": 1000}
_LARGE: Final = {"万": 10**4, "亿": 10**8}
_NUMERAL: Final = re.compile("[零〇一二两三四五六七八九十百千万亿]+")
# The longest first, so that no part of a longer one is taken.
_SAME: Final = (
    ("麻烦您", ""),
    ("麻烦你", ""),
    ("请问", ""),
    ("帮我", ""),
    ("给我", ""),
    ("一下", ""),
    ("请", ""),
    ("为何", "为什么"),
    ("怎么样", "怎样"),
    ("什么样", "怎样"),
    ("开启", "打开"),
    ("关掉", "关闭"),
    ("关上", "关闭"),
    ("可以", "能"),
    ("的", ""),
    ("吗", ""),
    ("呢", ""),
    ("吧", ""),
    ("啊", ""),
    ("呀", ""),
    ("您", "你"),
)
_COMMANDS: Final = ("打开", "关闭", "锁上", "拉上", "拉开", "调亮", "调暗", "播放", "暂停", "停止")
_NEGATIONS: Final = frozenset("不没别无非未勿莫否")
_ASKS: Final = ("为什么", "怎样", "怎么", "什么时候", "什么", "多少", "几", "谁", "哪")
_OPPOSITES: Final = tuple(
    frozenset(pair.split("/"))
    for pair in _listed(
        "开/关 上/下 左/右 前/后 大/小 高/低 多/少 快/慢 冷/热 早/晚 长/短 新/旧 亮/暗 增/减 升/降 "
        "买/卖 进/出 来/去 提/降 装/卸 锁/开 有/没 内/外 东/西 南/北 男/女 好/坏 先/后 加/减 始/终"
    )
)


def difference(one: str, other: str) -> str | None:
    """Say how two questions in Chinese differ.

    Args:
        one: a question.
        other: another.

    Returns:
        None if they ask the same; else "number", "negation", "question", "opposite", "order" or
        "words".
    """
    first, second = _normal(one), _normal(other)
    if first == second:
        return None
    if _numbers(first) != _numbers(second):
        return "number"
    if _count(first, _NEGATIONS) != _count(second, _NEGATIONS):
        return "negation"
    whole, others = "".join(first), "".join(second)
    if [ask for ask in _ASKS if ask in whole] != [ask for ask in _ASKS if ask in others]:
        return "question"
    left, right = Counter(whole), Counter(others)
    if left == right:
        return "order"
    gone, come = set(left - right), set(right - left)
    if any(pair & gone and pair & come for pair in _OPPOSITES):
        return "opposite"
    return "words"


def _normal(text: str) -> tuple[str, ...]:
    """Return what is compared: the text's characters, the verb of a command and "why" first."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = "".join(letter for letter in folded if letter.isalnum() or letter in ".%°-+")
    folded = re.sub("如何$", "怎么样", folded.rstrip(".")).replace("如何", "怎么")
    for written, stands in _SAME:
        folded = folded.replace(written, stands)
    folded = _NUMERAL.sub(lambda match: f"#{_value(match.group())}#", folded)
    folded = re.sub(r"(?<![\d#.])(\d+(?:\.\d+)*)(?![\d#.])", r"#\1#", folded)
    folded = folded.replace("##", "#")
    first = ""
    if folded.count("为什么") == 1:
        folded, first = folded.replace("为什么", ""), "为什么"
    verbs = [verb for verb in _COMMANDS if verb in folded]
    if len(verbs) == 1 and folded.count(verbs[0]) == 1:
        # "Open the lamp" and "take the lamp and open it" are one command.
        for begins, ends in ((verbs[0], ""), ("把", verbs[0])):
            if folded.startswith(begins) and folded.endswith(ends):
                inner = folded[len(begins) : len(folded) - len(ends)]
                return (first, verbs[0], *inner)
    return (first, "", *folded)


def _numbers(text: tuple[str, ...]) -> list[str]:
    return re.findall(r"#([^#]*)#", "".join(text))


def _count(text: tuple[str, ...], letters: frozenset[str]) -> int:
    return sum(letter in letters for letter in text)


def _value(numeral: str) -> str:
    """Return a numeral's digits; numerals without places, as in years, digit by digit."""
    if all(letter in _DIGITS for letter in numeral):
        return "".join(str(_DIGITS[letter]) for letter in numeral)
    total = part = digit = 0
    for letter in numeral:
        if letter in _DIGITS:
            digit = _DIGITS[letter]
        elif letter in _PLACES:
            part += (digit or 1) * _PLACES[letter]
            digit = 0
        else:
            total, part, digit = (total + part + digit or 1) * _LARGE[letter], 0, 0
    return str(total + part + digit)
