"""`onhand vault`: keys of what lies on the disk."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from onhand.cli.options import AsJson
from onhand.cli.output import say, write, write_json
from onhand.core.errors import InputError

__all__ = ["command"]


class _Action(StrEnum):
    init = "init"
    status = "status"
    recipient = "recipient"
    rotate = "rotate"
    seal = "seal"
    erase = "erase"


_What = Annotated[_Action, typer.Argument(help="What to do.", show_default=False)]
_Keystore = Annotated[
    bool, typer.Option("--keystore", help="Keep the key in the system's keystore.")
]
_Passphrase = Annotated[
    bool, typer.Option("--passphrase", help="Derive the key from a passphrase that is asked for.")
]
_PassphraseEnv = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Likewise, from the environment variable of that name."),
]
_PassphraseFd = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Likewise, from an open file descriptor.")
]
_KeyFile = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Keep the key in a file that only its owner may read."),
]
_Store = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of rotate: which store gets a new key, or all."),
]
_Yes = Annotated[bool, typer.Option("--yes", help="Of erase and seal: do not ask.")]


def command(
    context: typer.Context,
    action: _What,
    *,
    keystore: _Keystore = False,
    passphrase: _Passphrase = False,
    passphrase_env: _PassphraseEnv = None,
    passphrase_fd: _PassphraseFd = None,
    key_file: _KeyFile = None,
    store: _Store = None,
    yes: _Yes = False,
    as_json: AsJson = False,
) -> None:
    """Make the vault of this device, show it, change its keys, or remove them for good.

    init seals what is in the state folder already; what is in the clear later is refused, and
    taken as it is by seal alone.

    init and rotate take one of --keystore, --passphrase, --passphrase-env, --passphrase-fd and
    --key-file; rotate takes --store instead, for a new data key.

    Raises:
        InputError: if the options do not go together.
    """
    given = [
        (kind, place)
        for kind, place, is_given in (
            ("keystore", "", keystore),
            ("passphrase", "", passphrase),
            ("passphrase-env", passphrase_env or "", passphrase_env is not None),
            ("passphrase-fd", str(passphrase_fd), passphrase_fd is not None),
            ("key-file", str(key_file), key_file is not None),
        )
        if is_given
    ]
    if store is not None and action is not _Action.rotate:
        raise InputError("--store belongs to rotate")
    home: Path = context.obj.home()
    if action is _Action.status:
        result = _status(home)
    elif action is _Action.recipient:
        result = _recipient(home, context)
    elif action is _Action.erase:
        result = _erased(home, is_sure=yes)
    elif action is _Action.seal:
        result = _sealed(home, is_sure=yes)
    elif store is not None:
        result = _rotated(home, store, given, context)
    else:
        result = _with_key(home, action, given, context)
    if as_json:
        write_json(result)
    else:
        write("".join(f"{name}: {value}\n" for name, value in result.items()))


def _status(home: Path) -> dict[str, object]:
    from onhand.device.vault.sources import described
    from onhand.device.vault.vault import read_facts

    facts = read_facts(home)
    if facts is None:
        return {"vault": "none: what is kept in the state folder is not encrypted"}
    keys = {f"store {name}": f"key {ids[-1]}" for name, ids in facts.generations.items()}
    return {"vault": "configured", "key from": described(facts.source), **keys}


def _recipient(home: Path, context: typer.Context) -> dict[str, object]:
    from onhand.device.vault.recipients import recipient_of
    from onhand.device.vault.sources import Asking
    from onhand.device.vault.vault import open_vault

    vault = open_vault(home, asking=Asking(context.obj.environment))
    if vault is None:
        raise InputError(f"{home}: there is no vault; make one by `onhand vault init`")
    return {"recipient": recipient_of(vault)}


def _erased(home: Path, *, is_sure: bool) -> dict[str, object]:
    from onhand.device.vault.sources import described
    from onhand.device.vault.vault import erase_vault

    if not is_sure:
        sentence = "Remove all keys? What they sealed can never be read again."
        if not typer.confirm(sentence, err=True):
            raise InputError("nothing was erased")
    return {"vault": "erased", "key was from": described(erase_vault(home))}


def _sealed(home: Path, *, is_sure: bool) -> dict[str, object]:
    from onhand.device.serving.plain_stores import seal_stores

    if not is_sure:
        sentence = "Take what lies in the state folder in the clear as this device's own?"
        if not typer.confirm(sentence, err=True):
            raise InputError("nothing was sealed")
    found = seal_stores(home)
    for name in found:
        say(f"{name} was in the clear, and is sealed now")
    return {"vault": "configured", "sealed": len(found)}


def _rotated(
    home: Path, store: str, given: list[tuple[str, str]], context: typer.Context
) -> dict[str, object]:
    from onhand.device.vault.sources import Asking
    from onhand.device.vault.vault import STORES, rotate_store

    if given:
        raise InputError("--store gives a new data key; change the key-encryption key by itself")
    stores = STORES if store == "all" else (store,)
    made = rotate_store(home, stores, asking=Asking(context.obj.environment))
    return {f"store {name}": f"key {key_id}" for name, key_id in made.items()}


def _with_key(
    home: Path, action: _Action, given: list[tuple[str, str]], context: typer.Context
) -> dict[str, object]:
    from onhand.device.vault.sources import Asking, described
    from onhand.device.vault.vault import begin_vault, rewrap

    if len(given) != 1:
        raise InputError(
            "say where the key comes from, by one of --keystore, --passphrase, --passphrase-env, "
            f"--passphrase-fd and --key-file; {len(given)} were given"
        )
    ((kind, place),) = given
    asking = Asking(context.obj.environment)
    make = begin_vault if action is _Action.init else rewrap
    source = make(home, kind=kind, place=place, asking=asking)
    say(f"the vault's key comes from {described(source)}")
    if action is not _Action.init:
        return {"vault": "wrapped anew"}
    return {**_sealed(home, is_sure=True), "vault": "made"}
