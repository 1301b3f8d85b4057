"""Functions of the package that decide whose bundles are taken, where the program has not."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

__all__ = ["decided"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def decided(*, checks: bool) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Have a function decide by `onhand.device.trust.usual.usual_trust`, with its `home`.

    Args:
        checks: whether bundles are checked; what is built is signed in any case.
    """

    def around(function: Callable[_P, _T]) -> Callable[_P, _T]:
        @wraps(function)
        def deciding(*given: _P.args, **named: _P.kwargs) -> _T:
            from onhand.device.trust.usual import usual_trust

            home = named.get("home")
            with usual_trust(home if isinstance(home, str | Path) else None, checks=checks):
                return function(*given, **named)

        return deciding

    return around
