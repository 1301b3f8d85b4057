"""Whose bundles a program takes that uses onhand as a library: as the commands do."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final, TypeVar

from onhand.core.errors import InputError
from onhand.core.trusting import current_trust, trusting

__all__ = ["chosen_trust", "usual_trust", "within"]

_T = TypeVar("_T")
_CHOICES: Final = ("signed", "any")


def chosen_trust(environment: Mapping[str, str]) -> str:
    """Return what ONHAND_TRUST says: "signed", also where it says nothing, or "any".

    Args:
        environment: of the process.

    Raises:
        InputError: if it says something else.
    """
    chosen = environment.get("ONHAND_TRUST", "") or "signed"
    if chosen not in _CHOICES:
        raise InputError(f"ONHAND_TRUST is {chosen[:40]!r}, must be {' or '.join(_CHOICES)}")
    return chosen


def usual_trust(home: str | Path | None, *, checks: bool) -> AbstractContextManager[None]:
    """Return what decides about bundles where the program has not decided itself.

    Args:
        home: the state folder whose keys count; None for ONHAND_HOME, or the user's own.
        checks: whether bundles are checked; what is built is signed in any case.

    Returns:
        What to enter.

    Raises:
        InputError: if ONHAND_TRUST is something else than "signed" or "any".
        ResourceError: if no state folder is known.
    """
    if current_trust() is not None or chosen_trust(os.environ) == "any":
        return nullcontext()
    from onhand.device.state import default_home
    from onhand.device.trust.checking import DeviceTrust
    from onhand.device.trust.store import TrustStore

    named = home or os.environ.get("ONHAND_HOME")
    where = Path(named).expanduser() if named else default_home()
    return trusting(DeviceTrust(TrustStore(where), now=time.time, checks=checks))


@contextmanager
def within(
    around: AbstractContextManager[object], inner: AbstractContextManager[_T]
) -> Iterator[_T]:
    """Enter one context in another, as one.

    Args:
        around: what is entered first, and left last.
        inner: what is given.

    Yields:
        What the inner one gives.
    """
    with around, inner as made:
        yield made
