"""`onhand trust`: the keys whose bundles this device takes."""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from onhand.cli.options import AsJson
from onhand.cli.output import write, write_json, write_table
from onhand.core.errors import InputError
from onhand.core.signing import key_id, public_key
from onhand.device.trust.owner_file import read_state, write_state
from onhand.device.trust.store import TrustedKey, TrustStore, make_seed, parse_public

__all__ = ["command"]

_DAY_S = 86400
_MOST_BYTES = 64 * 1024
_Action = Annotated[
    Literal["list", "key", "add", "revoke", "rotate", "accept", "make"],
    typer.Argument(
        help="list: show all keys. key: show this device's public key. add: trust a KEY. revoke: "
        "trust a KEY no more, for ever. rotate: give this device a new key, and write a statement "
        "that says so into a FILE. accept: trust the new key of a statement in a FILE. make: write "
        "a new private key for `onhand sign --key` into a FILE."
    ),
]
_Given = Annotated[
    str, typer.Argument(metavar="[KEY|FILE]", help="What the action is about.", show_default=False)
]
_Name = Annotated[str, typer.Option(help="For add: whose key it is.")]
_Days = Annotated[
    int | None, typer.Option(min=1, max=36500, help="For add: days after which it expires.")
]
_RevokeOld = Annotated[
    bool,
    typer.Option("--revoke-old", help="For rotate: nothing by the old key counts any more."),
]


def command(
    context: typer.Context,
    action: _Action = "list",
    given: _Given = "",
    *,
    name: _Name = "",
    days: _Days = None,
    revoke_old: _RevokeOld = False,
    as_json: AsJson = False,
) -> None:
    """Show, add, revoke and replace the keys whose bundles this device takes.

    Raises:
        InputError: if an action lacks what it is about, or a file is missing or in the way.
    """
    store = TrustStore(context.obj.home())
    if action == "list":
        _list(store, as_json=as_json)
        return
    if action == "key":
        _told(_own(store), as_json=as_json)
        return
    if not given:
        raise InputError(f"{action}: say which key or file, as in `onhand trust {action} ...`")
    match action:
        case "add":
            expires_s = None if days is None else int(time.time()) + days * _DAY_S
            public = parse_public(given)
            _told(store.add(public, name=name or given[-16:], expires_s=expires_s), as_json=as_json)
        case "revoke":
            key = store.find(given)
            store.revoke(key)
            _told(store.keys()[key.id], as_json=as_json)
        case "rotate":
            _free(Path(given))
            write_state(Path(given), store.rotate(revokes_old=revoke_old))
            _told(_own(store), as_json=as_json)
        case "accept":
            content = read_state(Path(given), most_bytes=_MOST_BYTES)
            if content is None:
                raise InputError(f"{given}: there is no such file")
            _told(store.accept(content, now_s=time.time()), as_json=as_json)
        case _:
            _free(Path(given))
            _show_public(make_seed(Path(given)), as_json=as_json)


def _own(store: TrustStore) -> TrustedKey:
    public = public_key(store.seed())
    return store.keys()[key_id(public)]


def _free(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} exists already; choose another name")


def _list(store: TrustStore, *, as_json: bool) -> None:
    keys, own = store.keys(), store.own()
    if as_json:
        write_json({"keys": [_described(key) for key in keys.values()], "own": own})
    elif not keys:
        write("no key is trusted here yet; the first build makes this device's own\n")
    else:
        rows = [(key.id[:16], key.name, _state(key)) for key in keys.values()]
        write_table(("key", "name", "state"), rows)


def _told(key: TrustedKey, *, as_json: bool) -> None:
    if as_json:
        write_json(_described(key))
    else:
        write(f"ed25519:{key.public}\n{key.id[:16]}  {key.name}: {_state(key)}\n")


def _show_public(public: bytes, *, as_json: bool) -> None:
    if as_json:
        write_json({"public": f"ed25519:{public.hex()}"})
    else:
        write(f"ed25519:{public.hex()}\n")


def _described(key: TrustedKey) -> dict[str, object]:
    return {
        "expires_s": key.expires_s,
        "followed_by": key.followed_by,
        "id": key.id,
        "name": key.name,
        "public": f"ed25519:{key.public}",
        "state": _state(key),
    }


def _state(key: TrustedKey) -> str:
    if key.is_revoked:
        return "revoked"
    if key.expires_s is not None and time.time() >= key.expires_s:
        return "expired"
    return "followed by another" if key.followed_by else "trusted"
