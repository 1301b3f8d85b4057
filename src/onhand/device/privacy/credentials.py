"""Secrets: keys by their known beginnings, and what looks random beside a word for it."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from onhand.device.privacy.spans import Found

__all__ = ["entropy_bits", "find_secrets"]

_EDGE: Final = r"(?<![0-9A-Za-z_\-])"
_KNOWN: Final = re.compile(
    _EDGE
    + "(?:"
    + "|".join((
        r"sk-(?:proj-|ant-|or-|svcacct-)?[A-Za-z0-9_\-]{16,200}",
        r"gh[pousr]_[A-Za-z0-9]{30,255}",
        r"github_pat_[A-Za-z0-9_]{22,255}",
        r"gl(?:pat|ptt|dt|rt)-[A-Za-z0-9_\-]{20,64}",
        r"xox[abeprs]-[A-Za-z0-9\-]{10,250}",
        r"(?:AKIA|ASIA|AGPA|AIDA|AROA)[0-9A-Z]{16}",
        r"LTAI[0-9A-Za-z]{12,30}",
        r"AKID[0-9A-Za-z]{13,40}",
        r"AIza[0-9A-Za-z_\-]{35}",
        r"ya29\.[0-9A-Za-z_\-]{20,255}",
        r"hf_[A-Za-z0-9]{30,64}",
        r"npm_[A-Za-z0-9]{36}",
        r"pypi-[A-Za-z0-9_\-]{40,255}",
        r"[rspw][kh](?:sec)?_(?:live|test)_[A-Za-z0-9]{16,255}",
        r"SG\.[A-Za-z0-9_\-]{16,64}\.[A-Za-z0-9_\-]{16,64}",
        r"do[opr]_v1_[a-f0-9]{64}",
        r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
        r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
        r"hvs\.[A-Za-z0-9_\-]{24,255}",
        r"eyJ[A-Za-z0-9_\-]{8,4096}\.eyJ[A-Za-z0-9_\-]{8,8192}(?:\.[A-Za-z0-9_\-]{0,4096})?",
        r"(?:bot)?[0-9]{8,10}:AA[A-Za-z0-9_\-]{33}",
    ))
    + r")(?![0-9A-Za-z_\-])"
)
_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20})-----")
_WORD: Final = re.compile(
    r"(?:pass(?:word|wd|phrase|code)|\bpwd|\bpin(?: code)?\b|secret|token|credentials?|bearer"
    r"|(?:api|access|private|encryption|account)[ _\-]?key|(?:verification|one-time) code"
    r"|密码|口令|密钥|令牌|验证码|私钥|秘钥|暗号)",
    re.IGNORECASE,
)
_QUOTES: Final = "\"'`\u201c\u2018\u300c"
# What may stand between the word and the secret: a sign, or a word that says that it follows.
_SIGN: Final = re.compile(
    r"[\"'`]?(?:\s{0,2}(?:is|was|for [A-Za-z0-9 \-]{1,30} is|now is))?\s{0,2}"
    rf"(?:(?::|=>?|->|是|为|改成|设为)\s{{0,2}})?[{_QUOTES}]?",
    re.IGNORECASE,
)
_BESIDE: Final = re.compile(
    r"[^\s\"'`\u2018\u2019\u201c\u201d\u3001\u3002\u300c\u300d,;()<>{}\[\]]{4,512}"
)
_LONG: Final = re.compile(r"(?<![0-9A-Za-z+/_\-])[0-9A-Za-z+/_\-]{20,512}=?=?")
_CODE_WORDS: Final = ("pin", "code", "密码", "口令", "验证码", "passcode")
_REACH: Final = 48
_LEAST_LONG: Final = 20


def entropy_bits(text: str) -> float:
    """Return Shannon's entropy of a text's letters, in bits for each.

    Args:
        text: at least one letter.
    """
    n = len(text)
    return -sum(count / n * math.log2(count / n) for count in Counter(text).values())


def find_secrets(text: str) -> Iterator[Found]:
    """Find keys and passwords.

    Args:
        text: plain form.

    Yields:
        What is found.
    """
    for match in _KNOWN.finditer(text):
        if len(set(match.group())) > 8:
            yield _found(text, match.start(), match.end())
    yield from _private_keys(text)
    ended = 0
    for match in _WORD.finditer(text):
        if match.start() < ended:  # a part of what was found beside an earlier word
            continue
        for one in _beside(text, match):
            ended = one.end
            yield one


def _found(text: str, start: int, end: int) -> Found:
    return Found(kind="secret", start=start, end=end, value=text[start:end])


def _private_keys(text: str) -> Iterator[Found]:
    at = 0
    while (match := _PEM.search(text, at)) is not None:
        footer = f"-----END {match[1]}-----"
        found = text.find(footer, match.end())
        # A key whose end was cut off is one up to the end.
        at = len(text) if found < 0 else found + len(footer)
        yield _found(text, match.start(), at)


def _beside(text: str, word: re.Match[str]) -> Iterator[Found]:
    sign = _SIGN.match(text, word.end())
    start = word.end() if sign is None else sign.end()
    has_sign = start > word.end() and text[word.end() : start].strip(f" {_QUOTES}") != ""
    match = _BESIDE.match(text, start)
    if match is not None and (has_sign or start > word.end()):
        given = match.group().rstrip(".:?-")
        if _is_secret(given, has_sign=has_sign, is_code=word.group().lower().endswith(_CODE_WORDS)):
            yield _found(text, start, start + len(given))
            return
    # Where a run begins within reach; the whole of it is read then.
    begun = _LONG.search(text, word.end(), min(word.end() + _REACH + _LEAST_LONG, len(text)))
    other = None if begun is None else _LONG.match(text, begun.start())
    if other is None or "\n" in text[word.end() : other.start()]:
        return
    if _is_random(other.group()):
        yield _found(text, other.start(), other.end())


def _is_secret(given: str, *, has_sign: bool, is_code: bool) -> bool:
    """Say whether a word beside "password" is one: people write words there, too."""
    has_digit = any(one.isdigit() for one in given)
    has_letter = any(one.isascii() and one.isalpha() for one in given)
    has_other = any(one.isascii() and not one.isalnum() and one not in "._-/:" for one in given)
    if not given.isascii():
        return False
    if not has_letter:
        return is_code and has_sign and has_digit and len(given) >= 4 and given.isdigit()
    if len(given) < 6:
        return False
    is_mixed = has_digit or has_other
    return (has_sign and is_mixed) or _is_random(given) or (is_mixed and has_digit and has_other)


def _is_random(given: str) -> bool:
    has_digit = any(one.isdigit() for one in given)
    has_letter = any(one.isalpha() for one in given)
    return len(given) >= 16 and has_digit and has_letter and entropy_bits(given) >= 3.0
