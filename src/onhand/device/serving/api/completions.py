"""`/v1/chat/completions` and `/v1/completions`: what they may ask."""

from collections.abc import Sequence
from dataclasses import replace

from onhand.device.sampling import Sampling
from onhand.device.serving.api.bodies import Body
from onhand.device.serving.api.completion_shape import CompletionShape
from onhand.device.serving.api.reading import (
    MOST_TOKENS,
    WITHOUT_EFFECT,
    choices_of,
    grammar_of,
    read_message,
    read_sampling,
)
from onhand.device.serving.api.shape import Asked
from onhand.device.serving.api.tool_fields import read_tools
from onhand.device.serving.api.wire import chat_wire, completion_wire
from onhand.device.serving.asks import Ask
from onhand.device.template import Message

__all__ = ["read_chat", "read_completion"]

_MOST_CHOICES = 16
_MOST_STOPS = 4
_MOST_SCORES = 20


def read_chat(body: Body, *, tenant: str, usual: Sampling) -> Asked:
    """Understand a request to `/v1/chat/completions`.

    Args:
        body: its fields.
        tenant: whose it is.
        usual: the model's sampling where the request says nothing.

    Returns:
        It.

    Raises:
        RefusedRequest: if a field is wrong, unknown or not supported.
    """
    messages = [read_message(one) for one in body.objects("messages")]
    body.only("store", False)
    body.only("modalities", ["text"])
    tools = read_tools(body, is_flat=False)
    body.ignore(("reasoning_effort", "verbosity"))
    ask = replace(
        _ask(body, messages, tenant=tenant, usual=usual),
        grammar=grammar_of(body.table("response_format"), body, "response_format", is_flat=False),
        tools=tools.use,
        n_scores=_n_scores(body),
        wire=chat_wire(body.given),
    )
    shape = CompletionShape(
        kind="chat", wants_usage=_wants_usage(body), has_scores=ask.n_scores is not None
    )
    return _asked(body, "chat", ask, shape)


def read_completion(body: Body, *, tenant: str, usual: Sampling) -> Asked:
    """Understand a request to `/v1/completions`; see `read_chat`.

    Args:
        body: its fields.
        tenant: whose it is.
        usual: the model's sampling where the request says nothing.

    Returns:
        It.

    Raises:
        RefusedRequest: as in `read_chat`.
    """
    prompts = body.texts("prompt", most=1)
    if not prompts:
        raise body.wrong("prompt", "is missing; give one text")
    body.only("suffix", "")
    body.only("logprobs")
    body.only("best_of", 1)
    echo = prompts[0] if body.flag("echo", False) else ""
    ask = _ask(body, prompts[0], tenant=tenant, usual=usual)
    ask = replace(ask, wire=completion_wire(body.given))
    shape = CompletionShape(kind="text", wants_usage=_wants_usage(body), echo=echo)
    return _asked(body, "text", ask, shape)


def _ask(body: Body, prompt: str | Sequence[Message], *, tenant: str, usual: Sampling) -> Ask:
    old = body.whole("max_tokens", least=1, most=MOST_TOKENS)
    new = body.whole("max_completion_tokens", least=1, most=MOST_TOKENS)
    return Ask(
        tenant=tenant,
        prompt=prompt,
        max_tokens=old if new is None else new,
        sampling=read_sampling(body, usual),
        stop=body.texts("stop", most=_MOST_STOPS),
    )


def _asked(body: Body, route: str, ask: Ask, shape: CompletionShape) -> Asked:
    n = body.whole("n", least=1, most=_MOST_CHOICES) or 1
    is_stream = body.flag("stream", False)
    body.ignore(("model", *WITHOUT_EFFECT))
    body.end()
    return Asked(route=route, asks=choices_of(ask, n), is_stream=is_stream, shape=shape)


def _wants_usage(body: Body) -> bool:
    options = body.table("stream_options")
    wants = options.flag("include_usage", False)
    options.ignore(("include_obfuscation",))
    options.end()
    return wants


def _n_scores(body: Body) -> int | None:
    n = body.whole("top_logprobs", least=0, most=_MOST_SCORES)
    if body.flag("logprobs", False):
        return n or 0
    if n:
        raise body.wrong("top_logprobs", "needs logprobs = true")
    return None
