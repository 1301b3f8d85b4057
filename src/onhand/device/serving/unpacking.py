"""Requests that come compressed, as long as what they unpack to has a bound."""

import zlib
from typing import TYPE_CHECKING, Final

from onhand.device.serving.refusals import Refusal, RefusedRequest

if TYPE_CHECKING:
    from starlette.types import Message, Receive

__all__ = ["ACCEPTED", "unpacked"]

ACCEPTED: Final = "gzip"
"""The coding that requests may have, beside none."""

_GZIP: Final = 16 + zlib.MAX_WBITS


def unpacked(receive: "Receive", *, most_bytes: int) -> "Receive":
    """Hand a body on as it was before it was compressed.

    Args:
        receive: of ASGI; its body is compressed by gzip.
        most_bytes: of what it unpacks to; a few bytes can stand for a great many.

    Returns:
        What is received from instead. It raises `RefusedRequest` where the body is no gzip, is cut
        off or is too large.
    """
    reader = zlib.decompressobj(_GZIP)
    n_bytes = 0

    async def receiving() -> "Message":
        nonlocal n_bytes
        message = await receive()
        if message["type"] != "http.request":
            return message
        try:
            data = reader.decompress(message.get("body", b""), most_bytes - n_bytes + 1)
        except zlib.error as error:
            raise _wrong(400, f"the body is not gzip: {error}") from error
        n_bytes += len(data)
        if n_bytes > most_bytes:
            raise _wrong(413, f"the request's body may have {most_bytes} bytes, unpacked")
        if reader.unused_data or not (message.get("more_body") or reader.eof):
            raise _wrong(400, "the body is not gzip: it is cut off, or goes on behind its end")
        return {**message, "body": data}

    return receiving


def _wrong(status: int, message: str) -> RefusedRequest:
    code = "body_too_large" if status == 413 else "content_encoding"
    return RefusedRequest(Refusal(status=status, message=message, code=code))
