"""The page's files: read from the package, sent with what keeps them from doing harm.

The page needs nothing from elsewhere, and its policy lets it reach nothing else: no inline script,
no other origin, no frame around it. Its files are public, since they hold nothing; what it shows it
asks for with the key of whoever looks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

__all__ = ["PAGE_PATHS", "PageFile", "page_files", "page_routes"]

_NAMES: Final = (
    "answer.js",
    "api.js",
    "chat.js",
    "dom.js",
    "events.js",
    "facts.js",
    "figures.js",
    "governor.js",
    "icon.svg",
    "key.js",
    "live.js",
    "main.js",
    "plot.js",
    "prometheus.js",
    "style.css",
    "units.js",
)
_FRONT: Final = "index.html"
PAGE_PATHS: Final = frozenset({"/", *(f"/page/{name}" for name in _NAMES)})
"""What may be got without a key."""

_KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
))
_HEADERS: Final = {
    # Asked for again every time, and sent again only when it has changed.
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFile:
    """One file of the page.

    Attributes:
        content: its bytes.
        kind: its media type.
        tag: its ETag, the same as long as the bytes are.
    """

    content: bytes
    kind: str
    tag: str


@cache
def page_files() -> Mapping[str, PageFile]:
    """Return all files of the page, by the path that a browser asks for."""
    folder = resources.files("onhand.device.serving.page") / "static"
    named = {"/": _FRONT} | {f"/page/{name}": name for name in _NAMES}
    return {path: _file(name, (folder / name).read_bytes()) for path, name in named.items()}


def page_routes() -> list["Route"]:
    """Return the routes of the page."""
    from starlette.routing import Route

    return [Route(path, _send, methods=["GET"]) for path in sorted(PAGE_PATHS)]


def _file(name: str, content: bytes) -> PageFile:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return PageFile(content=content, kind=_KINDS[PurePosixPath(name).suffix], tag=tag)


async def _send(request: "Request") -> "Response":
    from starlette.responses import Response

    file = page_files()[request.scope["path"]]
    headers = {**_HEADERS, "etag": file.tag}
    if _is_known(request.headers.getlist("if-none-match"), file.tag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers={**headers, "content-type": file.kind})


def _is_known(named: Sequence[str], tag: str) -> bool:
    tags = {one.strip().removeprefix("W/") for one in ",".join(named).split(",")}
    return tag in tags or "*" in tags
