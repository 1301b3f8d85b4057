"""`/v1/chat/completions` and `/v1/completions`: what they may ask."""

from collections.abc import Sequence
from dataclasses import replace

from onhand.device.sampling import Sampling
from onhand.device.serving.api.bodies import Body
from onhand.device.serving.api.bounds import (
    MOST_CHOICES,
    MOST_PROMPTS,
    MOST_SCORES,
    MOST_STOPS,
    MOST_TOKENS,
)
from onhand.device.serving.api.completion_shape import CompletionShape
from onhand.device.serving.api.reading import (
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
    return _asked(body, "chat", [ask], shape)


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
    prompts = body.texts("prompt", most=MOST_PROMPTS)
    if not prompts:
        raise body.wrong("prompt", "is missing; give a text or a list of texts")
    if body.text("suffix"):
        raise body.wrong("suffix", "is not supported: texts are continued at their end")
    body.only("best_of", 1)
    n_scores = body.whole("logprobs", least=0, most=MOST_SCORES)
    has_echo = body.flag("echo", False)
    if has_echo and n_scores is not None:
        raise body.wrong("logprobs", "cannot be given with echo: prompts are not scored")
    ask = replace(_ask(body, "", tenant=tenant, usual=usual), n_scores=n_scores)
    asks = [
        replace(ask, prompt=prompt, wire=completion_wire({**body.given, "prompt": prompt}))
        for prompt in prompts
    ]
    wants_usage = _wants_usage(body)
    asked = _asked(body, "text", asks, CompletionShape(kind="text"))
    shape = CompletionShape(
        kind="text",
        wants_usage=wants_usage,
        has_scores=n_scores is not None,
        echoes=tuple(str(one.prompt) for one in asked.asks) if has_echo else (),
        n_prompts=len(prompts),
    )
    return replace(asked, shape=shape)


def _ask(body: Body, prompt: str | Sequence[Message], *, tenant: str, usual: Sampling) -> Ask:
    old = body.whole("max_tokens", least=1, most=MOST_TOKENS)
    new = body.whole("max_completion_tokens", least=1, most=MOST_TOKENS)
    return Ask(
        tenant=tenant,
        prompt=prompt,
        max_tokens=old if new is None else new,
        sampling=read_sampling(body, usual),
        stop=body.texts("stop", most=MOST_STOPS),
    )


def _asked(body: Body, route: str, asks: Sequence[Ask], shape: CompletionShape) -> Asked:
    n = body.whole("n", least=1, most=MOST_CHOICES) or 1
    if n * len(asks) > MOST_CHOICES:
        raise body.wrong("n", f"makes {n * len(asks)} choices, at most {MOST_CHOICES} are allowed")
    is_stream = body.flag("stream", False)
    body.ignore(("model", *WITHOUT_EFFECT))
    body.end()
    choices = tuple(choice for ask in asks for choice in choices_of(ask, n))
    return Asked(route=route, asks=choices, is_stream=is_stream, shape=shape)


def _wants_usage(body: Body) -> bool:
    options = body.table("stream_options")
    wants = options.flag("include_usage", False)
    options.ignore(("include_obfuscation",))
    options.end()
    return wants


def _n_scores(body: Body) -> int | None:
    n = body.whole("top_logprobs", least=0, most=MOST_SCORES)
    if body.flag("logprobs", False):
        return n or 0
    if n:
        raise body.wrong("top_logprobs", "needs logprobs = true")
    return None
