"""What routing needs to know of a request, and what it says to one that nobody answers."""

from typing import Final

from onhand.device.serving.asks import Ask
from onhand.device.serving.refusals import Refusal
from onhand.device.serving.routing.situation import Decision

__all__ = ["needs_of", "prompt_tokens_of", "refusal_of_decision"]

_TOKEN_BYTES: Final = 4  # of a text that nobody has counted


def needs_of(ask: Ask) -> frozenset[str]:
    """Return the capabilities that an answer needs."""
    needs = set()
    if ask.grammar is not None:
        needs.add("schema")
    if ask.tools is not None:
        needs.add("tools")
    return frozenset(needs)


def prompt_tokens_of(ask: Ask) -> int:
    """Return about how many tokens a prompt has, without counting them."""
    texts = [ask.prompt] if isinstance(ask.prompt, str) else [one.content for one in ask.prompt]
    return sum(len(text.encode(errors="surrogatepass")) for text in texts) // _TOKEN_BYTES


def refusal_of_decision(decision: Decision) -> Refusal:
    """Return what a client is told whose request nobody answers.

    Args:
        decision: of the mode "refuse".
    """
    code = f"no_backend_{decision.why}"
    if decision.is_passing:
        return Refusal(status=503, message=decision.reason, code=code, headers={"Retry-After": "5"})
    status = 403 if decision.why == "privacy" else 400
    if decision.why == "context":
        code = "context_length_exceeded"
    return Refusal(status=status, message=decision.reason, code=code)
