"""Numbers of telephones: international ones, Chinese ones, and national ones beside a word."""

import re
from collections.abc import Iterator
from typing import Final

from onhand.device.privacy.digits import Window, windows
from onhand.device.privacy.spans import Found, is_apart

__all__ = ["find_phones"]

# Codes of countries, of E.164.
_COUNTRY: Final = re.compile(
    "1|7|2[07]|3[0123469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    "|(?:2[1-69]|3[578]|42|5[09]|6[789]|8[58]|9[67])[0-9]|99[2-8]"
)
_NORTH_AMERICA: Final = re.compile(r"1?[2-9][0-9]{2}[2-9][0-9]{6}")
_MOBILE: Final = re.compile(r"(?:(?:00)?86)?(1[3-9][0-9]{9})")
_LANDLINE: Final = re.compile(r"(?:(?:00)?86)?0?(10|2[0-9]|[3-9][0-9]{2})([2-9][0-9]{6,7})")
_SERVICE: Final = re.compile(r"[48]00[0-9]{7}")
# How people break eleven digits up; by year, month and day they do not.
_MOBILE_GROUPS: Final = frozenset({
    *((11,), (3, 4, 4), (3, 3, 5), (3, 8), (7, 4), (4, 7), (4, 4, 3), (5, 6), (3, 2, 2, 2, 2)),
    *((4, 3, 4), (3, 2, 3, 3), (3, 3, 3, 2), (3, 4, 2, 2), (2, 3, 3, 3), (1,) * 11),
})
_PLUS: Final = re.compile(r"(?:\+|\(\+|\+\()\s?$")
_WORD: Final = re.compile(
    r"phone|\btel\b|telephone|mobile|\bcell|\bcall|\bring\b|\bfax|whatsapp|\btext\b|\bsms\b|\bdial"
    r"|reach|contact|电话|手机|致电|拨打|拨通|座机|热线|传真|联系|号码|打给|微信|短信",
    re.IGNORECASE,
)
_OTHER: Final = re.compile(
    r"order|isbn|issn|invoice|version|serial|ticket|tracking"
    r"|订单|单号|版本|编号|发票|快递|序列|运单|书号",
    re.IGNORECASE,
)
_NEAR: Final = 24


def find_phones(text: str) -> Iterator[Found]:
    """Find numbers of telephones.

    Those with a plus and a country's code; Chinese mobile numbers and landlines, as they are
    usually written; North American, French and British ones with their usual gaps; and any of 7 to
    15 digits beside a word such as "call".

    Args:
        text: plain form.

    Yields:
        What is found.
    """
    ended = 0
    for one in windows(text, least=7, most=17):
        if one.start < ended or not one.is_first or not one.is_last:
            continue
        plus = _PLUS.search(text, max(one.start - 3, 0), one.start)
        start = one.start if plus is None else plus.start()
        if plus is None and text[start - 1 : start] == "(":
            start -= 1
        if not is_apart(text, start, one.end) or _continues(text, start, one.end):
            continue
        if _is_phone(text, one, has_plus=plus is not None):
            ended = one.end
            yield Found(kind="phone", start=start, end=one.end, value=_value(one.digits))


def _value(digits: str) -> str:
    mobile = _MOBILE.fullmatch(digits)
    return digits if mobile is None else mobile[1]


def _continues(text: str, start: int, end: int) -> bool:
    # "3.14159265" and "7:1234567" are no telephones.
    before, after = text[start - 2 : start], text[end : end + 2]
    touches = before[1:] in {".", "/", "_", "#", "$", "=", "&"} and before[:1].isalnum()
    return touches or (after[:1] in {".", ":", "%", "_"} and after[1:].isdigit())


def _is_phone(text: str, one: Window, *, has_plus: bool) -> bool:
    if has_plus:
        return _is_international(one.digits)
    if len(one.groups) == 4 and max(one.groups) <= 3 and set(one.gaps) == {"."}:
        return False  # an address of a computer, or a version
    if _is_chinese(one) or _is_national(one, text):
        return True
    before = text[max(one.start - _NEAR, 0) : one.start]
    is_named = _WORD.search(before) is not None and _OTHER.search(before) is None
    is_dated = one.groups[:2] in {(4, 2), (4, 1)} or one.digits.startswith(("978", "979"))
    if len(one.digits) > 13 and not one.digits.startswith("00"):
        return False
    return is_named and not is_dated


def _is_international(digits: str) -> bool:
    if not 8 <= len(digits) <= 15:
        return False
    if digits[0] == "1":
        return _NORTH_AMERICA.fullmatch(digits) is not None and len(digits) == 11
    return _COUNTRY.match(digits) is not None


def _is_chinese(one: Window) -> bool:
    groups = one.groups
    # The country's code may stand in a group of its own, or before the number.
    for code in ("0086", "86", ""):
        if not one.digits.startswith(code):
            continue
        rest, left = one.digits[len(code) :], _without(groups, len(code))
        if _MOBILE.fullmatch(rest) and len(rest) == 11 and left in _MOBILE_GROUPS:
            return True
        is_landline = _LANDLINE.fullmatch(rest) is not None and (rest[0] == "0" or bool(code))
        if is_landline and len(left) in {2, 3} and left[0] in {2, 3, 4} and max(left) <= 8:
            area = _LANDLINE.fullmatch(rest)
            return area is not None and left[0] == len(rest) - len(area[2])
    return _SERVICE.fullmatch(one.digits) is not None and groups in {(3, 3, 4), (3, 4, 3)}


def _without(groups: tuple[int, ...], n: int) -> tuple[int, ...]:
    if not n:
        return groups
    first, *rest = groups
    return tuple(rest) if first == n else (first - n, *rest)


def _is_national(one: Window, text: str) -> bool:
    """Say whether it is written as it is in North America, France or the United Kingdom."""
    groups, digits = one.groups, one.digits
    if groups in {(3, 3, 4), (1, 3, 3, 4)} and _NORTH_AMERICA.fullmatch(digits):
        is_bracketed = text[one.start - 1 : one.start] == "(" and ")" in one.gaps[0]
        gaps = {gap.strip() for gap in one.gaps}
        return is_bracketed or gaps <= {"-"} or gaps <= {"."} or ")" in "".join(one.gaps)
    if groups == (2, 2, 2, 2, 2) and digits[0] == "0" and digits[1] != "0":
        return len(set(one.gaps)) == 1 and one.gaps[0] in {" ", "."}
    return groups in {(5, 6), (5, 3, 3)} and digits.startswith("07") and set(one.gaps) <= {" ", "-"}
