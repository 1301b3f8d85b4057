"""Addresses of computers: of the Internet's protocols, of network cards, internal names."""

import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from onhand.device.privacy.spans import Found, is_apart

__all__ = ["find_hosts", "find_urls"]

_V4: Final = re.compile(
    r"(?<![0-9A-Za-z.\-])([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?![0-9A-Za-z]|\.[0-9]|-[0-9])"
)
_V6: Final = re.compile(
    r"(?<![0-9A-Za-z:.])([0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{2,39}(?:(?<=:)[0-9.]{7,15})?+)"
)
_ZONE: Final = re.compile(r"%[0-9A-Za-z]{1,15}")
_MAC: Final = re.compile(
    r"(?<![0-9A-Za-z:.\-])[0-9A-Fa-f]{2}(?:([:\-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?![0-9A-Za-z:\-])"
    r"|(?<![0-9A-Za-z:.\-])[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![0-9A-Za-z:.\-])"
)
_NAME: Final = re.compile(
    r"(?<![0-9A-Za-z.\-_])((?:[A-Za-z0-9_](?:[A-Za-z0-9_\-]{0,61}[A-Za-z0-9])?+\.){1,6})"
    r"(local|internal|intranet|lan|corp|home\.arpa|localdomain|localnet)(?![0-9A-Za-z\-_(]|\.[A-Za-z0-9])",
    re.IGNORECASE,
)
# Programs have fields of these names, and files end so.
_CODE: Final = frozenset({
    *("self", "this", "cls", "env", "config", "settings", "threading", "thread", "module", "args"),
    "options",
})
# Dotted numbers that count something else.
_COUNTED: Final = re.compile(
    r"(?:\bv|version|ver\.?|release|firmware|build|section|chapter|clause|§|版本号?|章节?|第|固件)"
    r"[\s:#是为]{0,4}$",
    re.IGNORECASE,
)
_NEAR: Final = 16
_AUTHORITY: Final = re.compile(r"[!$-.0-;=@-~]{1,512}")  # no / ? # \" < >
_TAIL: Final = re.compile(r"[!#-;=?-~]{0,2048}")  # printable ASCII, no \" < >
_SECRET_FIELD: Final = re.compile(
    r"[?&#;](?:[A-Za-z_\-]{0,20}(?:token|secret|password|passwd|api_?key|access_?key|signature|sig)"
    r"|auth|key|pwd)=[^&\s]{6}",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(r"[A-Za-z0-9+.\-]{2,20}$")


def find_hosts(text: str) -> Iterator[Found]:
    """Find addresses and internal names of computers; those of loopback name nobody.

    Args:
        text: plain form.

    Yields:
        What is found.
    """
    for match in _V4.finditer(text):
        if _is_v4(match[1]) and not _is_counted(text, match.start()):
            yield _found(match.start(), match.end(), match[1])
    for match in _V6.finditer(text):
        if (found := _v6(text, match)) is not None:
            yield found
    for match in _MAC.finditer(text):
        value = re.sub(r"[^0-9a-f]", "", match.group().lower())
        if len(set(value)) > 1:
            yield _found(match.start(), match.end(), value)
    for match in _NAME.finditer(text):
        if match[1].rstrip(".").lower() not in _CODE:
            yield _found(match.start(), match.end(), match.group().lower())


def find_urls(text: str) -> Iterator[Found]:
    """Find addresses on the web and of databases that hold a password or a token.

    Args:
        text: plain form.

    Yields:
        What is found.
    """
    at = text.find("://")
    while at >= 0:
        scheme = _SCHEME.search(text, max(at - 20, 0), at)
        authority = _AUTHORITY.match(text, at + 3)
        end = at + 3
        if scheme is not None and authority is not None:
            tail = _TAIL.match(text, authority.end())
            end = authority.end() if tail is None else tail.end()
            while text[end - 1] in ".,;:!?)]}":
                end -= 1
            has_user = "@" in authority.group().rstrip("@") and ":" in authority.group()
            if has_user or _SECRET_FIELD.search(text, authority.end(), end):
                start = scheme.start()
                yield Found(kind="url", start=start, end=end, value=text[start:end])
        at = text.find("://", max(end, at + 3))


def _found(start: int, end: int, value: str) -> Found:
    return Found(kind="host", start=start, end=end, value=value)


def _is_v4(text: str) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:  # over 255, or with zeros in front
        return False
    return not (address.is_loopback or address.is_unspecified)


def _is_counted(text: str, start: int) -> bool:
    return _COUNTED.search(text[max(start - _NEAR, 0) : start]) is not None


def _v6(text: str, match: re.Match[str]) -> Found | None:
    given = match[1]
    for cut in (given, given.rstrip(":")):  # "at fe80::1:" ends with a colon of the sentence
        try:
            address = ipaddress.IPv6Address(cut)
        except ValueError:
            continue
        end = match.start() + len(cut)
        # In programs two colons stand between names: "abc::def".
        is_plain = cut.count(":") < 3 and not any(one.isdigit() for one in cut)
        if address.is_loopback or address.is_unspecified or is_plain:
            return None
        if not is_apart(text, match.start(), end):
            return None
        zone = _ZONE.match(text, end)
        return _found(match.start(), end if zone is None else zone.end(), str(address))
    return None
