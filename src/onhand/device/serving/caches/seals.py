"""How blocks lie on the disk: sealed, so that what comes back is what was written, or nothing."""

import hashlib
import hmac
from typing import Final, Protocol

from onhand.core.errors import InputError
from onhand.device.serving.secret import derived

__all__ = ["MacSealer", "Sealer"]

_BYTES: Final = 32


class Sealer(Protocol):
    """Bytes in, bytes out. May be shared between threads.

    A vault implements it by encrypting; what is not encrypted has a code of its contents at least.
    """

    def seal(self, content: bytes, *, place: bytes) -> bytes:
        """Return the bytes to write.

        Args:
            content: what is kept.
            place: where; the seal of one place is not that of another.
        """
        ...

    def unseal(self, sealed: bytes | memoryview, *, place: bytes) -> bytes | memoryview:
        """Return what was kept.

        Args:
            sealed: what `seal` returned.
            place: as given to `seal`.

        Returns:
            The content; it may lie in `sealed`.

        Raises:
            InputError: if the bytes are not those of this place.
        """
        ...


class MacSealer:
    """See `Sealer`: contents in the clear behind a keyed code of them and their place."""

    def __init__(self, secret: bytes) -> None:
        """Derive its key.

        Args:
            secret: of `onhand.device.serving.secret.server_secret`.
        """
        self._key = derived(secret, "seals of key/value blocks")

    def seal(self, content: bytes, *, place: bytes) -> bytes:
        """See `Sealer`."""
        return self._code(content, place) + content

    def unseal(self, sealed: bytes | memoryview, *, place: bytes) -> memoryview:
        """See `Sealer`.

        Raises:
            InputError: as in `Sealer`.
        """
        content = memoryview(sealed)[_BYTES:]
        if not hmac.compare_digest(sealed[:_BYTES], self._code(content, place)):
            raise InputError("a block's seal is not that of its contents and its place")
        return content

    def _code(self, content: bytes | memoryview, place: bytes) -> bytes:
        # hashlib lets other threads run meanwhile.
        return hmac.digest(self._key, place + hashlib.sha256(content).digest(), "sha256")
