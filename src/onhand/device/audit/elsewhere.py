"""The last heads of an audit log where the vault's key is: in the keystore, or beside its file.

Whoever may write to the state folder can shorten the log and the file of its heads alike, for each
head is signed by itself. He does not reach the place of the vault's key, which is not on this disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from onhand.core.errors import ResourceError
from onhand.device.audit.heads import append_head, read_heads
from onhand.device.audit.keys import VAULT_CHAINS
from onhand.device.vault.sources import from_keystore, to_keystore
from onhand.device.vault.vault import read_facts

__all__ = ["KeptElsewhere", "kept_elsewhere"]

_SERVICE: Final = "onhand audit"
_MOST_CHAINS: Final = 16
_MOST_HEADS: Final = 10


class KeptElsewhere(Protocol):
    """Keeps the last heads of chains."""

    @property
    def place(self) -> str:
        """Where, for people."""
        ...

    def keep(self, chain: str, line: bytes) -> None:
        """Keep a head.

        Raises:
            OnhandError: if it cannot be kept.
        """
        ...

    def kept(self, chain: str) -> Sequence[bytes]:
        """Return the heads of a chain; none where there are none.

        Raises:
            OnhandError: if they cannot be read.
        """
        ...

    def chains(self) -> Sequence[str]:
        """Return the chains of which there are heads.

        Raises:
            OnhandError: if they cannot be read.
        """
        ...


def kept_elsewhere(home: Path) -> KeptElsewhere | None:
    """Return where the last heads of a state folder are kept as well.

    Args:
        home: the state folder.

    Returns:
        None without a vault, and where its key is derived from a passphrase, which is nowhere.

    Raises:
        VaultError: if the vault's file is damaged.
    """
    facts = read_facts(home)
    if facts is None or facts.source.is_passphrase:
        return None
    if facts.source.kind == "keystore":
        return _InKeystore("the system's keystore", facts.source.place)
    key = Path(facts.source.place)
    return _BesideKey(str(key.with_name(f"{key.name}.heads")))


@dataclass(frozen=True, slots=True)
class _BesideKey:
    """See `KeptElsewhere`: in a folder beside the key's file."""

    place: str

    def keep(self, chain: str, line: bytes) -> None:
        """See `KeptElsewhere`.

        Raises:
            ResourceError: as in `KeptElsewhere`.
        """
        try:
            append_head(Path(self.place) / f"{chain}.heads", line, most=_MOST_HEADS)
        except OSError as error:
            raise ResourceError(f"{self.place}: cannot be written: {error.strerror}") from error

    def kept(self, chain: str) -> Sequence[bytes]:
        """See `KeptElsewhere`.

        Raises:
            ResourceError: as in `KeptElsewhere`.
        """
        try:
            return read_heads(Path(self.place) / f"{chain}.heads")
        except OSError as error:
            raise ResourceError(f"{self.place}: cannot be read: {error.strerror}") from error

    def chains(self) -> Sequence[str]:
        """See `KeptElsewhere`."""
        return sorted(path.stem for path in Path(self.place).glob("*-*.heads"))


@dataclass(frozen=True, slots=True)
class _InKeystore:
    """See `KeptElsewhere`: an entry for each chain, named by that of the vault's key."""

    place: str
    entry: str

    def keep(self, chain: str, line: bytes) -> None:
        """See `KeptElsewhere`."""
        to_keystore(_SERVICE, f"{self.entry} {chain}", line.decode().strip())

    def kept(self, chain: str) -> Sequence[bytes]:
        """See `KeptElsewhere`."""
        found = from_keystore(_SERVICE, f"{self.entry} {chain}")
        return [] if found is None else [found.encode()]

    def chains(self) -> Sequence[str]:
        """See `KeptElsewhere`."""
        names = [f"{VAULT_CHAINS}{number}" for number in range(1, _MOST_CHAINS + 1)]
        return [name for name in names if self.kept(name)]
