"""What a client is told when its request is not answered, as OpenAI's clients expect it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from onhand.core.errors import (
    BundleError,
    ContextOverflow,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    InputError,
    OnhandError,
    ResourceError,
)

__all__ = ["BackendFailed", "Refusal", "RefusedRequest", "not_for_model", "refusal_of"]

_MOST_PARAM: Final = 200
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refusal.

    Attributes:
        status: of HTTP.
        message: one sentence for a person.
        code: a word for a program; None for none.
        param: which part of the request is wrong; None for none.
        headers: of the answer.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        """Return the answer's JSON."""
        kind = _KINDS.get(self.status)
        if kind is None:
            kind = "invalid_request_error" if self.status < 500 else "server_error"
            kind = "rate_limit_error" if self.status == 429 else kind
        # A request's own words may stand in it: short, as for a person.
        message = str(InputError(self.message))
        param = self.param if self.param is None else self.param[:_MOST_PARAM]
        error = {"message": message, "type": kind, "param": param, "code": self.code}
        return {"error": error}


class RefusedRequest(InputError):
    """A request that is refused in a way of its own."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class BackendFailed(EngineError):
    """Another server did not answer; another one may.

    Attributes:
        refusal: what a client is told if none does.
        is_fault: whether it speaks against the server; one that is only busy is well.
        is_lasting: whether asking the same server again cannot help: its key or model is wrong.
        retry_after_s: seconds for which it asks to be left alone; None where it does not say.
    """

    def __init__(
        self,
        message: str,
        refusal: Refusal,
        *,
        is_fault: bool = True,
        is_lasting: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.is_fault = is_fault
        self.is_lasting = is_lasting
        self.retry_after_s = retry_after_s


def not_for_model() -> Refusal:
    """Return the refusal of a model that a key is not for; its name is not told."""
    message = "this key is for other models: see /v1/models"
    return Refusal(status=403, message=message, code="model_not_allowed", param="model")


def refusal_of(error: OnhandError) -> Refusal:
    """Say how a request ends that ran into an error.

    What a client gave wrongly is told in full; of what is wrong on this side the client is told
    no more than that, since messages name paths and settings.

    Args:
        error: what was raised.

    Returns:
        The refusal.
    """
    match error:
        case RefusedRequest() | BackendFailed():
            return error.refusal
        case ContextOverflow():
            return Refusal(status=400, message=str(error), code="context_length_exceeded")
        case InputError():
            return Refusal(status=400, message=str(error))
        case EngineBusy():
            return Refusal(
                status=429,
                message="as many requests wait as may; ask again",
                code="busy",
                headers={"Retry-After": "1"},
            )
        case EngineUnavailable():
            message = "the model is not there any more; ask again later"
            return Refusal(
                status=503, message=message, code="unavailable", headers={"Retry-After": "5"}
            )
        case ResourceError():
            message = "this device lacks memory or disk for the answer; ask again later"
            return Refusal(
                status=503, message=message, code="no_resources", headers={"Retry-After": "10"}
            )
        case BundleError():
            return Refusal(status=500, message="the model's files are damaged", code="bundle")
        case _:
            return Refusal(status=500, message="the engine failed; see the log", code="engine")
