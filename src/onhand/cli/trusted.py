"""Whose bundles a command takes, from the environment and its options."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Final

import typer

from onhand.cli.settings import Settings
from onhand.core.trusting import current_trust, trusting
from onhand.device.trust.usual import chosen_trust

__all__ = ["CHECKED", "AllowUnsigned", "trust_of"]

CHECKED: Final = frozenset({
    *("bench", "chat", "evaluate", "export", "learn", "merge", "run", "serve"),
})
"""Commands that open bundles to use them; `--allow-unsigned` is an option of each."""


def trust_of(settings: Settings, command: str | None) -> AbstractContextManager[None]:
    """Return what decides about bundles as long as a command runs.

    Args:
        settings: of the environment: ONHAND_TRUST and the state folder.
        command: its name; None for none.

    Returns:
        What to enter.

    Raises:
        InputError: if ONHAND_TRUST is something else than "signed" or "any".
    """
    if chosen_trust(settings.environment) == "any" or command is None:
        return nullcontext()
    from onhand.device.trust.checking import DeviceTrust
    from onhand.device.trust.store import TrustStore

    store = TrustStore(settings.home())
    return trusting(DeviceTrust(store, now=time.time, checks=command in CHECKED))


def _allow(is_wanted: bool) -> bool:
    from onhand.device.trust.checking import DeviceTrust

    trust = current_trust()
    if is_wanted and isinstance(trust, DeviceTrust):
        trust.allow_unsigned()
    return is_wanted


AllowUnsigned = Annotated[
    bool,
    typer.Option(
        "--allow-unsigned",
        callback=_allow,
        is_eager=True,
        help="Take a bundle that is not signed, or by a key that is not trusted here.",
    ),
]
