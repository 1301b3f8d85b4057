"""A device's own keys of X25519, which bundles are sealed for: derived from its vault's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onhand.core.errors import VaultError
from onhand.core.sealed_header import public_of, recipient_text
from onhand.core.sealing_keys import derived_key
from onhand.device.vault.vault import Vault, open_vault

__all__ = ["DeviceUnsealer", "private_keys", "recipient_of"]

_STORE = "bundles"
_PURPOSE = "onhand device recipient"


def private_keys(vault: Vault) -> tuple[bytes, ...]:
    """Return a device's private keys, one for each key of the store `bundles`.

    Args:
        vault: an open one.

    Returns:
        32 bytes each, the current one first: what was sealed before a rotation still opens.
    """
    keys = vault.keys(_STORE)
    newest, _ = keys.current()
    return tuple(
        derived_key(keys.by_id(key_id), purpose=_PURPOSE) for key_id in range(newest, 0, -1)
    )


def recipient_of(vault: Vault) -> str:
    """Return what others seal bundles for this device by; it is no secret."""
    return recipient_text(public_of(private_keys(vault)[0]))


@dataclass(frozen=True, slots=True)
class DeviceUnsealer:
    """See `onhand.core.unsealing.Unsealer`: the keys of this device's vault.

    Attributes:
        home: gives the state folder; called when the first sealed bundle is opened.
    """

    home: Callable[[], Path]

    def private_keys(self) -> Sequence[bytes]:
        """See `Unsealer`.

        Raises:
            VaultError: if there is no vault, or it is locked.
        """
        vault = open_vault(self.home())
        if vault is None:
            raise VaultError(
                "the bundle is sealed, and this device has no vault: make one by `onhand vault "
                "init`, and have the bundle sealed for what `onhand vault recipient` prints"
            )
        return private_keys(vault)
