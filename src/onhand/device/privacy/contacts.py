"""Addresses by which a person is reached: e-mail."""

import re
from collections.abc import Iterator
from typing import Final

from onhand.device.privacy.spans import Found

__all__ = ["find_emails"]

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?+"
_DOMAIN: Final = re.compile(
    rf" ?(?:{_LABEL}\.){{1,8}}(?:[A-Za-z]{{2,24}}|xn--[A-Za-z0-9\-]{{2,59}})(?![A-Za-z0-9\-])"
)
_WIDE_DOMAIN: Final = re.compile(
    r" ?(?:[0-9A-Za-z\u4e00-\u9fff\-]{1,63}\.){1,8}(?:中国|中國|公司|网络|網路|香港|台湾|台灣)"
)
_SPELLED: Final = re.compile(
    r"(?<![A-Za-z0-9._%+\-])([A-Za-z0-9._%+\-]{1,64}) ?[\[(] ?at ?[\])] ?"
    r"([A-Za-z0-9\-]{1,63}(?: ?(?:\.|[\[(] ?dot ?[\])]) ?[A-Za-z0-9\-]{1,63}){1,4})",
    re.IGNORECASE,
)
_LOCAL: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'=~")
_MOST_LOCAL: Final = 128
# "logo@2x.png" is a file.
_FILES: Final = frozenset({
    *(
        "avif",
        "bmp",
        "gif",
        "ico",
        "jpeg",
        "jpg",
        "png",
        "svg",
        "tiff",
        "webp",
        "mov",
        "mp3",
        "mp4",
    ),
    *("css", "csv", "docx", "gz", "html", "js", "json", "md", "pdf", "pptx", "py", "tar", "ts"),
    *("txt", "wav", "xlsx", "xml", "zip"),
})
# Names that everybody uses on such a host, as in "git@example.com:name/project".
_OF_ALL: Final = frozenset({"git"})


def find_emails(text: str) -> Iterator[Found]:
    """Find e-mail addresses, with spaces around their @, and as "name (at) host (dot) org".

    Args:
        text: plain form.

    Yields:
        What is found.
    """
    at = text.find("@")
    while at >= 0:
        if (found := _around(text, at)) is not None:
            yield found
        at = text.find("@", at + 1)
    for match in _SPELLED.finditer(text):
        domain = re.sub(r" ?[\[(] ?dot ?[\])] ?", ".", match[2], flags=re.IGNORECASE)
        value = f"{match[1]}@{domain.replace(' ', '')}".lower()
        yield Found(kind="email", start=match.start(), end=match.end(), value=value)


def _around(text: str, at: int) -> Found | None:
    """Return the address around an @."""
    domain = _DOMAIN.match(text, at + 1) or _WIDE_DOMAIN.match(text, at + 1)
    if domain is None:
        return None
    end_local = at - 1 if text[at - 1 : at] == " " else at
    start = end_local
    while start > 0 and end_local - start < _MOST_LOCAL and text[start - 1] in _LOCAL:
        start -= 1
    while start < end_local and text[start] in ".-'=~%":
        start += 1
    local, host = text[start:end_local], domain.group().strip().lower()
    if not local or host.rsplit(".", 1)[-1] in _FILES or local.lower() in _OF_ALL:
        return None
    return Found(kind="email", start=start, end=domain.end(), value=f"{local}@{host}".lower())
