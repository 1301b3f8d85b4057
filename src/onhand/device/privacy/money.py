"""Numbers of cards and bank accounts, by their check digits."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from onhand.device.privacy.digits import luhn_holds, windows
from onhand.device.privacy.spans import Found, is_apart

__all__ = ["find_cards", "find_ibans"]

# First digits of the large networks, and how long their numbers are.
_ISSUERS: Final = (
    (re.compile(r"4"), frozenset({13, 16, 19})),  # Visa
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), frozenset({16})),  # Mastercard
    (re.compile(r"3[47]"), frozenset({15})),  # American Express
    (re.compile(r"62|81"), frozenset(range(16, 20))),  # UnionPay
    (re.compile(r"6011|64[4-9]|65"), frozenset(range(16, 20))),  # Discover
    (re.compile(r"352[89]|35[3-8]"), frozenset(range(16, 20))),  # JCB
    (re.compile(r"30[0-5]|309|36|3[89]"), frozenset({14, 16})),  # Diners Club
    (re.compile(r"220[0-4]|508|60|82"), frozenset({16})),  # Mir, RuPay
    (re.compile(r"50[123]|5[678]|63|67"), frozenset({16, 18, 19})),  # Maestro
)
_GAPS: Final = frozenset({" ", "-", " - ", "  "})
_IBAN: Final = re.compile(r"(?<![0-9A-Za-z])([A-Za-z]{2})[ ]?[0-9]{2}")
_LENGTHS: Final[Mapping[str, int]] = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d{2})",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29"
        "ES24FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20"
        "LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29"
        "PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20"
        "YE30",
    )
}


def find_cards(text: str) -> Iterator[Found]:
    """Find numbers of payment cards: first digits of an issuer, its length, Luhn's check.

    Args:
        text: plain form.

    Yields:
        What is found.
    """
    ended = 0
    for one in windows(text, least=13, most=19):
        if one.start < ended or not set(one.gaps) <= _GAPS:
            continue
        if len(set(one.digits)) == 1 or not is_apart(text, one.start, one.end):
            continue
        n = len(one.digits)
        is_known = any(n in lengths and first.match(one.digits) for first, lengths in _ISSUERS)
        if is_known and luhn_holds(one.digits):
            ended = one.end
            yield Found(kind="card", start=one.start, end=one.end, value=one.digits)


def find_ibans(text: str) -> Iterator[Found]:
    """Find international bank account numbers: a country, its length, the rest modulo 97.

    Args:
        text: plain form.

    Yields:
        What is found.

    Source:
        ISO 13616-1, ISO/IEC 7064 (MOD 97-10).
    """
    for match in _IBAN.finditer(text):
        length = _LENGTHS.get(match[1].upper())
        if length is None:
            continue
        letters, end = _taken(text, match.start(), length)
        if len(letters) == length and is_apart(text, match.start(), end) and _holds(letters):
            yield Found(kind="iban", start=match.start(), end=end, value=letters)


def _taken(text: str, start: int, length: int) -> tuple[str, int]:
    """Return so many letters and digits, single spaces and dashes apart, and where they end."""
    taken: list[str] = []
    at, end = start, start
    while len(taken) < length and at < len(text):
        letter = text[at]
        if letter.isascii() and letter.isalnum():
            taken.append(letter.upper())
            end = at + 1
        elif letter not in " -" or at > end:
            break
        at += 1
    return "".join(taken), end


def _holds(iban: str) -> bool:
    if not iban[2:4].isdigit():
        return False
    number = "".join(str(int(letter, 36)) for letter in iban[4:] + iban[:4])
    return int(number) % 97 == 1
