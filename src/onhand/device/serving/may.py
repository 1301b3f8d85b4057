"""What a request's key may do, where only its body says what it wants."""

from typing import TYPE_CHECKING

from onhand.device.access.doorkeeper import Admission
from onhand.device.serving.refusals import Refusal, RefusedRequest, not_for_model

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["check_counted", "check_may", "check_model", "may_ask"]


def _admission(scope: "Scope") -> Admission:
    """Return what the guard found.

    Raises:
        RefusedRequest: if no guard has seen the request: it is nobody's.
    """
    found = scope.get("state", {}).get("admission")
    if not isinstance(found, Admission):
        message = "nobody has admitted this request"
        raise RefusedRequest(Refusal(status=401, message=message, code="invalid_api_key"))
    return found


def may_ask(scope: "Scope", model: str) -> bool:
    """Say whether a request's key is for a model.

    Args:
        scope: of ASGI.
        model: its name.

    Raises:
        RefusedRequest: if no guard has seen the request.
    """
    return _admission(scope).grant.allows_model(model)


def check_model(scope: "Scope", model: str) -> None:
    """Refuse a model that a request's key is not for.

    Args:
        scope: of ASGI.
        model: its name.

    Raises:
        RefusedRequest: if it is not.
    """
    if not may_ask(scope, model):
        raise RefusedRequest(not_for_model())


def check_may(scope: "Scope", action: str) -> None:
    """Refuse an action that a request's key is not for.

    Args:
        scope: of ASGI.
        action: of `onhand.device.access.scopes.ACTIONS`.

    Raises:
        RefusedRequest: if it is not.
    """
    if action not in _admission(scope).grant.actions:
        message = f"this needs a key for {action!r}"
        raise RefusedRequest(Refusal(status=403, message=message, code="action_not_allowed"))


def check_counted(scope: "Scope") -> None:
    """Refuse to answer later what would not be counted then.

    Args:
        scope: of ASGI.

    Raises:
        RefusedRequest: if the key has a ceiling of tokens.
    """
    meter = _admission(scope).meter
    if meter is not None and meter.quota.tokens_per_minute:
        message = "this key has a ceiling of tokens, and answers that come later are not counted"
        raise RefusedRequest(Refusal(status=403, message=message, code="defer_not_allowed"))
