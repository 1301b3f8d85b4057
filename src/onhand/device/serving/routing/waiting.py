"""Requests that wait on the disk and may not be read there: sealed by a key of the server's own."""

from typing import Final

from onhand.core.errors import ResourceError
from onhand.device.serving.secret import derived
from onhand.device.serving.wishes import Privacy

__all__ = ["Waiting"]

_MARK: Final = b"\x00sealed-1\x00"


class Waiting:
    """Seals what holds personal data; threads may share it.

    The same content becomes the same bytes (a synthetic nonce), so that the same request is known
    again; whoever reads the file learns no more than that.

    Source:
        AES-SIV: RFC 5297.
    """

    def __init__(self, secret: bytes) -> None:
        """Derive its keys.

        Args:
            secret: of the server; see `onhand.device.serving.secret`.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        key = derived(secret, "outbox, authentication") + derived(secret, "outbox, encryption")
        self._cipher = AESSIV(key)

    def kept(self, content: bytes, privacy: Privacy) -> bytes:
        """Return content as it may lie on the disk.

        Args:
            content: a request or its answer.
            privacy: its class; what is public stays as it is.
        """
        return content if privacy == "public" or not content else self.sealed(content)

    def sealed(self, content: bytes) -> bytes:
        """Return content that nobody else can read."""
        return _MARK + self._cipher.encrypt(content, [_MARK])

    @staticmethod
    def is_sealed(kept: bytes) -> bool:
        """Say whether what was kept is sealed."""
        return kept.startswith(_MARK)

    def opened(self, kept: bytes) -> bytes:
        """Return content from what was kept.

        Args:
            kept: of this class; what is not sealed is returned as it is.

        Raises:
            ResourceError: if it was changed, or sealed by another key.
        """
        if not self.is_sealed(kept):
            return kept
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(kept[len(_MARK) :], [_MARK])
        except InvalidTag as error:
            raise ResourceError(
                "a request of the outbox was changed, or sealed by another server's secret"
            ) from error
