"""Numbers that states give to persons."""

import re
from collections.abc import Iterator
from datetime import date
from typing import Final

from onhand.device.privacy.spans import Found

__all__ = ["find_ids"]

_GAP: Final = r"[ \-]?"
_RESIDENT: Final = re.compile(
    rf"(?<![0-9A-Za-z])([1-9][0-9]{{5}}){_GAP}((?:18|19|20)[0-9]{{2}}){_GAP}([01][0-9]){_GAP}"
    rf"([0-3][0-9]){_GAP}([0-9]{{3}}){_GAP}([0-9Xx])(?![0-9A-Za-z])"
)
_OLD_RESIDENT: Final = re.compile(
    r"(?<![0-9A-Za-z])([1-9][0-9]{5})([0-9]{2})([01][0-9])([0-3][0-9])[0-9]{3}(?![0-9A-Za-z])"
)
_PROVINCES: Final = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[123]|91")
_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS: Final = "10X98765432"
_SOCIAL: Final = re.compile(
    r"(?<![0-9A-Za-z\-])(?!000|666|9)([0-9]{3})([ \-]?)(?!00)([0-9]{2})\2(?!0000)([0-9]{4})"
    r"(?![0-9A-Za-z]|-[0-9])"
)
_SOCIAL_WORD: Final = re.compile(r"ssn|social security|社保号|社会安全", re.IGNORECASE)
_RESIDENT_WORD: Final = re.compile(r"身份证|证件号|resident id|id card", re.IGNORECASE)
_INSURANCE: Final = re.compile(
    r"(?<![0-9A-Za-z])(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
    r" ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D](?![0-9A-Za-z])"
)
_HONG_KONG: Final = re.compile(r"(?<![0-9A-Za-z])([A-Z]{1,2})([0-9]{6}) ?\(([0-9A])\)")
_PASSPORT: Final = re.compile(
    r"(?:passport|护照)(?:\s{0,2}(?:number|no\.?|号码|号))?[\s:#是为]{0,4}(?:is\s)?"
    r"([A-Z]{1,2}[0-9]{6,8}|[0-9]{9})(?![0-9A-Za-z])",
    re.IGNORECASE,
)
_NEAR: Final = 40  # letters before a number in which a word may say what it is


def find_ids(text: str) -> Iterator[Found]:
    """Find numbers of persons whose form leaves little doubt, or that a word names.

    Chinese resident identity numbers by their date and checksum (18 digits) or beside such a word
    (15), those of Hong Kong by their checksum; numbers of the social security of the United States
    and of the national insurance of the United Kingdom by their form; passports beside that word.

    Args:
        text: plain form.

    Yields:
        What is found.

    Source:
        GB 11643-1999 (ISO 7064, MOD 11-2).
    """
    yield from _residents(text)
    for match in _SOCIAL.finditer(text):
        if match[2] == "-" or _named(text, match, _SOCIAL_WORD):
            yield _found(match, f"{match[1]}{match[3]}{match[4]}")
    for match in _INSURANCE.finditer(text):
        yield _found(match, match.group().replace(" ", ""))
    for match in _HONG_KONG.finditer(text):
        if _is_of_hong_kong(match[1], match[2], match[3]):
            yield _found(match, "".join(match.groups()))
    for match in _PASSPORT.finditer(text):
        yield Found(kind="id", start=match.start(1), end=match.end(1), value=match[1].upper())


def _residents(text: str) -> Iterator[Found]:
    for match in _RESIDENT.finditer(text):
        if _is_resident(match):
            yield _found(match, "".join(match.groups()).upper())
    for match in _OLD_RESIDENT.finditer(text):
        is_dated = _is_date(int(f"19{match[2]}"), int(match[3]), int(match[4]))
        if _PROVINCES.match(match[1]) and is_dated and _named(text, match, _RESIDENT_WORD):
            yield _found(match, match.group())


def _found(match: re.Match[str], value: str) -> Found:
    return Found(kind="id", start=match.start(), end=match.end(), value=value)


def _named(text: str, match: re.Match[str], word: re.Pattern[str]) -> bool:
    before = text[max(match.start() - _NEAR, 0) : match.start()]
    return word.search(before) is not None


def _is_resident(match: re.Match[str]) -> bool:
    region, year, month, day, order, check = match.groups()
    if not _PROVINCES.match(region) or not _is_date(int(year), int(month), int(day)):
        return False
    digits = f"{region}{year}{month}{day}{order}"
    total = sum(int(digit) * weight for digit, weight in zip(digits, _WEIGHTS, strict=True))
    return _CHECKS[total % 11] == check.upper()


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def _is_of_hong_kong(letters: str, digits: str, check: str) -> bool:
    values = [36, *(ord(one) - 55 for one in letters)][-2:]
    values += [*(int(one) for one in digits), 10 if check == "A" else int(check)]
    return (
        sum(value * weight for value, weight in zip(values, range(9, 0, -1), strict=True)) % 11 == 0
    )
