"""Parsers of requests: their bodies, chat templates, and what detectors read."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.fuzz.targets import Target, as_json

from onhand.device.privacy.detectors import find_all
from onhand.device.sampling import Sampling
from onhand.device.serving.api.bodies import parse_body
from onhand.device.serving.api.completions import read_chat, read_completion
from onhand.device.serving.api.responses import read_response
from onhand.device.serving.api.vectors import read_classification, read_embedding
from onhand.device.serving.caches.questions import read_cache_use
from onhand.device.serving.feedback.reading import read_feedback_request
from onhand.device.serving.feedback.recent import RecentAnswers
from onhand.device.serving.wishes import read_wishes
from onhand.device.template import ChatTemplate, Message
from onhand.device.tools.kinds import parsed_arguments

__all__ = ["TARGETS"]

TURNS = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    {"role": "assistant", "content": "a"},
]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "lamp",
        "description": "d",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}, "n": {"type": "integer", "minimum": 1}},
            "required": ["on", "n"],
            "additionalProperties": False,
        },
    },
}
CHAT = {
    "model": "m",
    "messages": TURNS,
    "max_tokens": 3,
    "n": 2,
    "temperature": 0.5,
    "stop": ["x"],
    "logit_bias": {"3": 1},
    "stream": True,
    "stream_options": {"include_usage": True},
    "tools": [TOOL],
    "tool_choice": "auto",
    "logprobs": True,
    "top_logprobs": 2,
}
STRUCTURED = {
    "messages": TURNS[:2],
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"a": {}}}},
    },
}
TEMPLATES = (
    b"{% for message in messages %}<|{{ message.role }}|>{{ message['content'] | trim }}"
    b"{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    b"{% macro one(m) %}{{ m.role.upper()[:3] }}{% endmacro %}{% set ns = namespace(n=0) %}"
    b"{% for m in messages if m.content %}{% set ns.n = ns.n + 1 %}{{ one(m) ~ ns.n }}"
    b"{{ m.content ~ 'x' * 3 }}{{ m | tojson }}{% endfor %}{{ range(9) | list | join(',') }}",
)
PERSONAL = (
    "Write to ana@example.org or +44 20 7946 0958, card 4111 1111 1111 1111, IBAN "
    "DE89 3704 0044 0532 0130 00, host db1.internal:5432, key sk-abcdefghijklmnop1234, "
    "身份证 11010519491231002X。 https://user:pass@a.example/x?y=z"
).encode()


def _body(read: str) -> Callable[[bytes], object]:
    readers: Mapping[str, Callable[..., object]] = {
        "chat": read_chat,
        "completion": read_completion,
        "response": read_response,
    }
    reader = readers[read]

    def parse(content: bytes) -> None:
        reader(parse_body(content), tenant="t", usual=Sampling())

    return parse


def _feedback(content: bytes) -> None:
    recent = RecentAnswers(most=3, most_bytes=1000, most_s=9.0)
    read_feedback_request(
        parse_body(content), recent, tenant="t", now_s=1.0, shown=lambda answer: ("a", "b")
    )


def _template(content: bytes) -> None:
    template = ChatTemplate(content.decode("utf-8", "replace"))
    template.render([Message("user", "hello"), Message("assistant", "there")])


def _headers(content: bytes) -> None:
    parts = [one.decode("latin-1") for one in content.split(b"\n")[:6]]
    parts += [""] * (6 - len(parts))
    names = ("x-privacy", "x-route-policy", "x-defer", "idempotency-key", "x-deadline-ms")
    read_cache_use(parts[0])
    parts = parts[1:]
    given = {name: part for name, part in zip(names, parts, strict=False) if part}
    read_wishes(given, is_stream=False)


def _calls(content: bytes) -> None:
    json.dumps(parsed_arguments(content.decode("utf-8", "replace")))


def _embedding(content: bytes) -> None:
    read_embedding(parse_body(content))


def _classification(content: bytes) -> None:
    read_classification(parse_body(content))


TARGETS = (
    Target(name="chat", parse=_body("chat"), samples=as_json(CHAT, STRUCTURED)),
    Target(
        name="completion",
        parse=_body("completion"),
        samples=as_json({"prompt": ["a", "b"], "n": 2, "echo": True, "best_of": 1}),
    ),
    Target(
        name="response",
        parse=_body("response"),
        samples=as_json({
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}],
            "instructions": "i",
            "max_output_tokens": 3,
            "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}},
            "tools": [{"type": "function", **TOOL["function"]}],
        }),
    ),
    Target(
        name="embedding",
        parse=_embedding,
        samples=as_json({"input": ["a"], "encoding_format": "base64"}),
    ),
    Target(
        name="classification",
        parse=_classification,
        samples=as_json({"input": "a", "top": 2}, {"input": "a", "labels": ["b", "c"]}),
    ),
    Target(
        name="feedback-request",
        parse=_feedback,
        samples=as_json(
            {"messages": [{"role": "user", "content": "a"}], "answer": "b"},
            {"input": "text", "label": "l"},
            {"image": "AAAA", "label": "l"},
        ),
    ),
    Target(name="template", parse=_template, samples=TEMPLATES),
    Target(name="headers", parse=_headers, samples=(b"no-cache\nprivate\n\nnever",)),
    Target(name="call-arguments", parse=_calls, samples=(b'{"a": [1, "x", {"b": null}]}', b"{'a")),
    Target(
        name="detectors",
        parse=lambda content: find_all(content.decode("utf-8", "replace")),
        samples=(PERSONAL,),
    ),
)
