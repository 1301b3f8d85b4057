"""Cells of databases and whole small files, sealed where there is a vault and plain where not.

A store writes through one of these, so that it need not know whether there is a vault. With a
vault, plain values of an earlier time are not read: what can be computed again is, and what cannot
is sealed by its store when it is opened.
"""

import hmac
from typing import Final, Protocol

from onhand.core.errors import InputError, VaultError
from onhand.core.sealing import (
    Keys,
    derived_key,
    open_record,
    seal_bytes,
    seal_record,
    unseal_bytes,
)

__all__ = ["PLAIN", "Cells", "FileSealer", "PlainCells", "SealedCells"]


class Cells(Protocol):
    """Turns values into what a database keeps, and back. May be shared between threads."""

    def put(self, content: bytes, place: bytes) -> bytes:
        """Return what to keep.

        Args:
            content: the value.
            place: table, column and row; it is opened nowhere else.
        """
        ...

    def get(self, kept: bytes, place: bytes) -> bytes:
        """Return the value.

        Raises:
            ValueError: if it is not what `put` gave for this place.
        """
        ...

    def name(self, content: bytes) -> bytes:
        """Return what a value is found by: the same for the same value."""
        ...


class PlainCells:
    """See `Cells`: values as they are, where there is no vault."""

    def put(self, content: bytes, place: bytes) -> bytes:
        """See `Cells`."""
        return content

    def get(self, kept: bytes, place: bytes) -> bytes:
        """See `Cells`."""
        return kept

    def name(self, content: bytes) -> bytes:
        """See `Cells`."""
        return content


PLAIN: Final = PlainCells()


class SealedCells:
    """See `Cells`: values sealed by a store's keys."""

    def __init__(self, keys: Keys, *, naming: bytes) -> None:
        """Use the keys of a store.

        Args:
            keys: of the store.
            naming: a key of the store that stays when others are rotated.
        """
        self._keys = keys
        self._naming = derived_key(naming, purpose="onhand names of cells")

    def put(self, content: bytes, place: bytes) -> bytes:
        """See `Cells`."""
        return seal_record(self._keys, content, context=place)

    def get(self, kept: bytes, place: bytes) -> bytes:
        """See `Cells`.

        Raises:
            ValueError: as in `Cells`.
        """
        try:
            return open_record(self._keys, kept, context=place)
        except VaultError as error:
            raise ValueError(str(error)) from error

    def name(self, content: bytes) -> bytes:
        """See `Cells`: without the key, nobody can try which value it is."""
        return hmac.digest(self._naming, content, "sha256")


class FileSealer:
    """See `onhand.device.serving.caches.seals.Sealer`: files encrypted by a store's keys."""

    def __init__(self, keys: Keys) -> None:
        """Use the keys of a store."""
        self._keys = keys

    def seal(self, content: bytes, *, place: bytes) -> bytes:
        """See `Sealer`."""
        return seal_bytes(self._keys, content, name=place.hex())

    def unseal(self, sealed: bytes | memoryview, *, place: bytes) -> memoryview:
        """See `Sealer`.

        Raises:
            InputError: as in `Sealer`.
        """
        try:
            return memoryview(unseal_bytes(self._keys, sealed, name=place.hex()))
        except VaultError as error:
            raise InputError(f"a block does not open: {error}") from error
