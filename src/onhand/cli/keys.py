"""`onhand keys`: who may ask a server of this device, for what, how much and until when."""

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from onhand.cli.options import AsJson
from onhand.cli.output import say, write, write_json, write_table
from onhand.core.errors import InputError

if TYPE_CHECKING:
    from onhand.device.access.keys import ApiKey
    from onhand.device.access.scopes import Grant

__all__ = ["command", "parse_span_s"]

_Do = Annotated[
    Literal["add", "list", "revoke", "local"],
    typer.Argument(help="local shows the key of this device's own user, made if there is none."),
]
_Name = Annotated[
    str | None, typer.Argument(metavar="NAME", help="Of the key; its id serves revoke as well.")
]
_Role = Annotated[
    Literal["user", "teacher", "monitor", "peer", "admin"] | None,
    typer.Option(help="What it is for: the actions that belong together; user where none is said."),
]
_Action = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ACTION",
        help="One of infer, feedback, learn, manage, metrics, health, in place of a role; may be "
        "given several times.",
    ),
]
_Model = Annotated[
    list[str] | None,
    typer.Option(metavar="MODEL", help="Only this model, or those that begin so: 'house*'."),
]
_Route = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH", help="Only this path, or those that begin so: '/v1/chat*'."),
]
_Expires = Annotated[
    str | None, typer.Option(metavar="SPAN", help="Ends after this: 90m, 12h, 30d or 52w.")
]
_Requests = Annotated[int, typer.Option(min=0, help="Most requests in a minute; 0 for no end.")]
_Tokens = Annotated[
    int, typer.Option(min=0, help="Most tokens in a minute, prompts and answers; 0 for no end.")
]
_AtOnce = Annotated[int, typer.Option(min=0, help="Most requests at once; 0 for no end.")]
_SPANS_S: Final = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def command(
    context: typer.Context,
    do: _Do = "list",
    name: _Name = None,
    *,
    role: _Role = None,
    action: _Action = None,
    model: _Model = None,
    route: _Route = None,
    expires: _Expires = None,
    requests_per_minute: _Requests = 0,
    tokens_per_minute: _Tokens = 0,
    at_once: _AtOnce = 0,
    as_json: AsJson = False,
) -> None:
    """Make, list and take back keys. A key is shown once, when it is made.

    Raises:
        InputError: if a name is missing or of no use, or an option does not belong here.
    """
    from onhand.device.access.quotas import Quota
    from onhand.device.access.store import KeyStore

    store, now_s = KeyStore(context.obj.home()), time.time()
    if do != "add" and any((role, action, model, route, expires)):
        raise InputError(f"onhand keys {do} takes no scope: roles and the like belong to add")
    if do != "add" and any((requests_per_minute, tokens_per_minute, at_once)):
        raise InputError(f"onhand keys {do} takes no ceiling: ceilings belong to add")
    if (do in {"add", "revoke"}) != (name is not None):
        raise InputError(f"onhand keys {do} {'needs' if name is None else 'takes no'} NAME")
    if do == "list":
        _show(store.listed(), now_s=now_s, as_json=as_json)
    elif do == "local":
        path, _ = store.local_token(now_s=now_s)
        _show_token({"file": str(path), "key": store.local_text()}, as_json=as_json)
    elif do == "revoke":
        gone = store.revoke(name or "", now_s=now_s)
        if as_json:
            write_json({"revoked": [one.id for one in gone]})
            return
        for one in gone:
            write(f"{one.name} ({one.id}): revoked\n")
    else:
        made, secret = store.add(
            name or "",
            _grant(role, action, models=model, routes=route),
            quota=Quota(
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
                at_once=at_once,
            ),
            now_s=now_s,
            expires_s=None if expires is None else now_s + parse_span_s(expires),
        )
        say(f"{made.name} ({made.id}): keep this key, it is shown only now")
        _show_token({**_described(made, now_s), "key": secret.text()}, as_json=as_json)


def parse_span_s(text: str) -> float:
    """Return the seconds of a span.

    Args:
        text: as "30d".

    Raises:
        InputError: if it is none.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if found is None:
        raise InputError(f"expires is {text!r}, must be a number and m, h, d or w, as 30d")
    return int(found[1]) * float(_SPANS_S[found[2]])


def _grant(
    role: str | None,
    actions: list[str] | None,
    *,
    models: list[str] | None,
    routes: list[str] | None,
) -> "Grant":
    from onhand.device.access.scopes import ROLES, Grant

    if role is not None and actions:
        raise InputError("--role and --action are both given; choose one of the two")
    return Grant(
        actions=frozenset(actions or ROLES[role or "user"]),
        models=tuple(models or ("*",)),
        routes=tuple(routes or ("*",)),
    )


def _show_token(found: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        write_json(found)
    else:
        write(f"{found['key']}\n")


def _described(key: "ApiKey", now_s: float) -> dict[str, object]:
    return {k: v for k, v in key.to_json().items() if k != "hash"} | {"state": key.state(now_s)}


def _show(keys: "tuple[ApiKey, ...]", *, now_s: float, as_json: bool) -> None:
    if as_json:
        write_json({"keys": [_described(one, now_s) for one in keys]})
        return
    if not keys:
        write("there is no key yet: onhand keys add NAME makes one\n")
        return
    headings = ["name", "id", "state", "for", "models", "ceilings", "ends"]
    write_table(headings, [_row(one, now_s) for one in keys])


def _row(key: "ApiKey", now_s: float) -> list[str]:
    quota = key.quota
    ceilings = [
        f"{amount} {what}"
        for amount, what in (
            (quota.requests_per_minute, "requests/min"),
            (quota.tokens_per_minute, "tokens/min"),
            (quota.at_once, "at once"),
        )
        if amount
    ]
    ends = "never"
    if key.expires_s is not None:
        ends = datetime.fromtimestamp(key.expires_s, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    return [
        key.name,
        key.id,
        key.state(now_s),
        ", ".join(sorted(key.grant.actions)),
        ", ".join(key.grant.models),
        ", ".join(ceilings) or "none",
        ends,
    ]
