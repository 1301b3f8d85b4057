"""Where the key-encryption key comes from: keystore, passphrase, or a file of its owner's."""

import base64
import contextlib
import getpass
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from onhand.core.errors import InputError, VaultError
from onhand.core.sealing import KEY_BYTES

__all__ = [
    "KINDS",
    "Asking",
    "Source",
    "described",
    "drop_key",
    "from_keystore",
    "make_key",
    "obtain_key",
    "to_keystore",
]

Kind = Literal["keystore", "passphrase", "passphrase-env", "passphrase-fd", "key-file"]
KINDS: Final = ("keystore", "passphrase", "passphrase-env", "passphrase-fd", "key-file")
_SERVICE: Final = "onhand vault"
_LEAST_PASSPHRASE: Final = 8
_MOST_PASSPHRASE_BYTES: Final = 4096
# RFC 9106, the second recommended option: a device has 64 MiB to spare for a moment.
_MEMORY_KIB, _PASSES, _LANES = 65536, 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a vault's key-encryption key comes from; holds no secret.

    Attributes:
        kind: one of `KINDS`.
        place: the file, the variable, the descriptor or the keystore's entry; empty for a prompt.
        salt: of a passphrase, 16 random bytes in hex; empty for others.
    """

    kind: str
    place: str = ""
    salt: str = ""

    def __post_init__(self) -> None:
        """Check the kind.

        Raises:
            InputError: if it is unknown.
        """
        if self.kind not in KINDS:
            raise InputError(f"a vault's key from {self.kind!r}, must be one of {', '.join(KINDS)}")

    @property
    def is_passphrase(self) -> bool:
        """Whether the key is derived from a passphrase."""
        return self.kind.startswith("passphrase")


def _prompted(text: str) -> str:
    if not sys.stdin.isatty():
        raise VaultError(
            "the vault is locked: it asks for a passphrase, and there is no terminal; change it by "
            "`onhand vault rotate --passphrase-env NAME`"
        )
    return getpass.getpass(text)


@dataclass(frozen=True, slots=True)
class Asking:
    """How secrets are had in this process.

    Attributes:
        environment: where a passphrase may stand.
        ask: shows a text, and returns a passphrase.
    """

    environment: Mapping[str, str]
    ask: Callable[[str], str] = _prompted


def described(source: Source) -> str:
    """Return a source in words."""
    words = {
        "keystore": "the system's keystore",
        "passphrase": "a passphrase that is asked for",
        "passphrase-env": f"a passphrase in the environment variable {source.place}",
        "passphrase-fd": f"a passphrase from file descriptor {source.place}",
        "key-file": f"the key file {source.place}",
    }
    return words[source.kind]


def make_key(kind: str, place: str, asking: Asking) -> tuple[Source, bytes]:
    """Begin a source, and return its key.

    Args:
        kind: one of `KINDS`.
        place: of the file, variable or descriptor.
        asking: how passphrases are had.

    Returns:
        The source, and its 32 bytes.

    Raises:
        VaultError: if it cannot be had here, or a passphrase is too short.
        InputError: if the kind is unknown.
    """
    if kind == "keystore":
        source = Source(kind=kind, place=secrets.token_hex(8))
        keyring = _keyring()
        made = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        with _keystore_errors(keyring):
            keyring.set_password(_SERVICE, source.place, made)
        return source, obtain_key(source, asking)
    if kind == "key-file":
        path = Path(place).absolute()
        if not path.exists():
            _make_file(path)
        source = Source(kind=kind, place=str(path))
        return source, obtain_key(source, asking)
    source = Source(kind=kind, place=place, salt=secrets.token_hex(16))
    passphrase = _passphrase(source, asking)
    if len(passphrase) < _LEAST_PASSPHRASE:
        raise VaultError(
            f"a passphrase of {len(passphrase)} characters, must have {_LEAST_PASSPHRASE} at least"
        )
    if kind == "passphrase" and asking.ask("The same passphrase again: ") != passphrase:
        raise VaultError("the two passphrases differ; nothing was changed")
    return source, _stretched(passphrase, source)


def obtain_key(source: Source, asking: Asking) -> bytes:
    """Return the key of a source; whether it is the right one, the vault's file tells.

    Args:
        source: as `make_key` gave it.
        asking: how passphrases are had.

    Returns:
        32 bytes.

    Raises:
        VaultError: if it cannot be had.
    """
    if source.kind == "key-file":
        return _read_file(Path(source.place))
    if source.is_passphrase:
        return _stretched(_passphrase(source, asking), source)
    keyring = _keyring()
    with _keystore_errors(keyring):
        found = keyring.get_password(_SERVICE, source.place)
    if found is None:
        raise VaultError(
            f"the system's keystore has no entry {_SERVICE!r} {source.place!r}: it was removed, or "
            "is another user's; what it sealed cannot be opened"
        )
    with contextlib.suppress(ValueError):
        key = base64.b64decode(found, validate=True)
        if len(key) == KEY_BYTES:
            return key
    raise VaultError(f"the keystore's entry {_SERVICE!r} {source.place!r} holds no key of ours")


def to_keystore(service: str, name: str, text: str) -> None:
    """Keep a text in the system's keystore.

    Args:
        service: what it belongs to.
        name: of the entry.
        text: it.

    Raises:
        VaultError: if there is no keystore, or it refuses.
    """
    keyring = _keyring()
    with _keystore_errors(keyring):
        keyring.set_password(service, name, text)


def from_keystore(service: str, name: str) -> str | None:
    """Return a text of the system's keystore; None where there is none.

    Args:
        service: what it belongs to.
        name: of the entry.

    Raises:
        VaultError: if there is no keystore, or it refuses.
    """
    keyring = _keyring()
    with _keystore_errors(keyring):
        found = keyring.get_password(service, name)
    return None if found is None else str(found)


def drop_key(source: Source) -> None:
    """Remove a key that is kept somewhere; one of a passphrase is nowhere.

    Raises:
        VaultError: if it cannot be removed.
    """
    if source.kind == "key-file":
        path = Path(source.place)
        if path.exists():
            _read_file(path)  # whatever else a changed vault names is not removed
        try:
            if path.exists():
                path.write_bytes(bytes(path.stat().st_size))
            path.unlink(missing_ok=True)
        except OSError as error:
            raise VaultError(f"{path}: cannot be removed: {error.strerror}") from error
    elif source.kind == "keystore":
        keyring = _keyring()
        with _keystore_errors(keyring):
            if keyring.get_password(_SERVICE, source.place) is not None:
                keyring.delete_password(_SERVICE, source.place)


def _passphrase(source: Source, asking: Asking) -> str:
    if source.kind == "passphrase":
        return asking.ask("Passphrase of the vault: ")
    if source.kind == "passphrase-env":
        found = asking.environment.get(source.place, "")
        if not found:
            raise VaultError(
                f"the vault is locked: its passphrase is read from the environment variable "
                f"{source.place}, which is not set"
            )
        return found
    try:
        with os.fdopen(int(source.place), "rb") as file:
            return file.readline(_MOST_PASSPHRASE_BYTES).decode().rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise VaultError(
            f"the vault is locked: its passphrase is read from file descriptor {source.place}, "
            "which cannot be read; begin the command with it open, as by 3<FILE"
        ) from error


def _stretched(passphrase: str, source: Source) -> bytes:
    try:
        derive = Argon2id(
            salt=bytes.fromhex(source.salt),
            length=KEY_BYTES,
            iterations=_PASSES,
            lanes=_LANES,
            memory_cost=_MEMORY_KIB,
        )
        return derive.derive(passphrase.encode())
    except (UnsupportedAlgorithm, ValueError) as error:
        raise VaultError(f"the passphrase cannot be used here: {error}") from error


def _make_file(path: Path) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise VaultError(f"{path}: the key file cannot be made: {error.strerror}") from error


def _read_file(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(file.fileno())
            content = file.read(256)
    except OSError as error:
        raise VaultError(f"{path}: the key file cannot be read: {error.strerror}") from error
    if os.name == "posix":
        if about.st_uid != os.getuid():
            raise VaultError(f"{path}: the key file is another user's")
        if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise VaultError(
                f"{path}: others may use the key file ({stat.filemode(about.st_mode)}); "
                "make it its owner's alone, as by chmod 600"
            )
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(content.decode().strip())
        if len(key) == KEY_BYTES:
            return key
    raise VaultError(f"{path}: holds no key: {2 * KEY_BYTES} hex digits were expected")


def _keyring() -> ModuleType:
    try:
        import keyring
    except ImportError as error:
        raise VaultError(
            'the system\'s keystore needs a package: pip install "onhand[keyring]"; or choose '
            "--passphrase or --key-file"
        ) from error
    backend = keyring.get_keyring()
    kind = f"{type(backend).__module__}.{type(backend).__name__}"
    if ".fail" in kind or ".null" in kind or kind.startswith("keyrings.alt"):
        raise VaultError(
            f"there is no keystore here that keeps secrets ({kind}); choose --passphrase or "
            "--key-file"
        )
    module: ModuleType = keyring
    return module


@contextlib.contextmanager
def _keystore_errors(keyring: ModuleType) -> Iterator[None]:
    """Give a block in which the keystore's own errors become ours.

    Yields:
        Nothing.

    Raises:
        VaultError: if the keystore refused.
    """
    try:
        yield
    except keyring.errors.KeyringError as error:
        raise VaultError(f"the system's keystore refused: {error or type(error).__name__}") from (
            error
        )
