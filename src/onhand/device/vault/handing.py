"""A vault and other processes: whether there is one, in words, and its key for a child."""

from pathlib import Path

from onhand.core.errors import VaultError
from onhand.device.vault.sources import described
from onhand.device.vault.vault import hold_open, open_vault, read_facts

__all__ = ["handed_key", "take_key", "vault_sentence"]


def vault_sentence(home: Path) -> str:
    """Return whether a vault protects what is kept, in words.

    Args:
        home: the state folder.

    Raises:
        VaultError: if the vault's file is damaged.
    """
    facts = read_facts(home)
    if facts is None:
        return (
            "vault: none: prompts, answers and what is learned lie in the clear in the state "
            "folder; see `onhand vault init`"
        )
    return f"vault: what is kept is encrypted; its key comes from {described(facts.source)}"


def handed_key(home: Path) -> str:
    """Return the key of a vault for a process that this one starts, to be handed by a pipe.

    Args:
        home: the state folder.

    Returns:
        Hex digits; "" where there is no vault, or the process can have the key by itself.

    Raises:
        VaultError: if the vault is locked or damaged.
    """
    facts = read_facts(home)
    if facts is None or not facts.source.is_passphrase:
        return ""
    vault = open_vault(home)
    return "" if vault is None else vault.kek_hex()


def take_key(home: Path, handed: str) -> None:
    """Open a vault with a key from the process that started this one.

    Args:
        home: the state folder.
        handed: of `handed_key`; "" does nothing.

    Raises:
        VaultError: if it is not this vault's key.
    """
    if not handed:
        return
    try:
        kek = bytes.fromhex(handed)
    except ValueError as error:
        raise VaultError("the key that was handed over is none") from error
    hold_open(home, kek)
