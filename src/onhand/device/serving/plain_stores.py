"""A state folder that gets a vault: whatever lies in it in the clear is sealed in its place.

From then on nothing that is in the clear is taken in the place of what is sealed, so that nobody
who writes to the disk has it read as this device's own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError, ResourceError
from onhand.device.learning.journal import seal_journal
from onhand.device.learning.quarantine import feedback_journal, seal_quarantine
from onhand.device.serving.unsealed import remove_plain_caches, seal_outbox_of
from onhand.device.vault.above import keys_of, seal_in_place

__all__ = ["seal_stores"]

_OWNERS: Final = (
    ("access", "access/keys.json"),
    ("access", "access/local.token"),
    ("signing", "keys/signing.key"),
)

_PATTERNS: Final = (("learned", "*/learned/**/tensors.safetensors"), ("packed", "*/*.bin"))


def seal_stores(home: Path) -> list[str]:
    """Seal what is in the clear in a state folder with a vault, taking it as it is.

    What caches hold is removed: it can be computed again.

    Args:
        home: the state folder; no server of it runs.

    Returns:
        The files that were in the clear, by their places in it.

    Raises:
        InputError: if there is no vault, or a file is none of ours.
        ResourceError: if one cannot be read or written; it stays as it was then.
        VaultError: if the vault is locked or damaged.
    """
    if keys_of(home, "memory") is None:
        raise InputError(f"{home}: there is no vault; make one by `onhand vault init`")
    try:
        found = [path.relative_to(home).as_posix() for path in _sealed_now(home)]
        remove_plain_caches(home)
        # What it made is of the caches and the outbox of before.
        (home / "keys" / "serving.key").unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(f"{home}: cannot be sealed: {error.strerror or error}") from error
    return found


def _sealed_now(home: Path) -> Iterator[Path]:
    # Each is yielded when it is sealed.
    if seal_outbox_of(home):
        yield home / "outbox" / "requests.sqlite"
    for store, name in _OWNERS:
        placed = keys_of(home, store)
        if placed is not None and (home / name).exists() and seal_in_place(home / name, placed):
            yield home / name
    for folder in sorted((home / "state").glob("*/learned")):
        yield from _sealed_lessons(home, folder)
    for store, pattern in _PATTERNS:
        placed = keys_of(home, store)
        for path in sorted((home / "state").glob(pattern)):
            if placed is not None and seal_in_place(path, placed):
                yield path


def _sealed_lessons(home: Path, folder: Path) -> Iterator[Path]:
    journal = feedback_journal(folder)
    if seal_journal(journal):
        yield journal
    if seal_quarantine(folder):
        yield folder / "quarantine.sqlite"
    placed = keys_of(home, "memory")
    if placed is None:
        return
    for path in _files_of(folder):
        if seal_in_place(path, placed):
            yield path


def _files_of(folder: Path) -> Iterator[Path]:
    """Yield the files of what was taught that are sealed as a whole."""
    for name in ("classes.json", "taught.json"):
        if (folder / name).is_file():
            yield folder / name
    yield from sorted(folder.glob("feedback.journal.cut-*"))
    for name in ("taken", "memory", "training"):
        yield from (path for path in sorted((folder / name).rglob("*")) if path.is_file())
