"""The server's own description: what may be asked of it, as OpenAPI.

It is written by hand beside the readers of requests, whose bounds it names, and held against them
by tests: every route is described, and requests made from the description get answers that it
allows.

Source:
    OpenAPI Specification 3.1.0; JSON Schema 2020-12.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Final

from onhand.device.serving.api.bounds import (
    MOST_BIASES,
    MOST_CHOICES,
    MOST_CLASSES,
    MOST_INPUTS,
    MOST_PROMPTS,
    MOST_SCORES,
    MOST_STOPS,
    MOST_TOKENS,
    MOST_TOOLS,
)

__all__ = ["OPENAPI_PATH", "described_api"]

OPENAPI_PATH: Final = "/openapi.json"

Schema = Mapping[str, object]

_KEY: Final[Sequence[object]] = [{"key": []}]


def described_api() -> dict[str, object]:
    """Return the description of every path of the API."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "onhand",
            "version": version("onhand"),
            "description": "Models on this device. The paths that OpenAI has are as it has them.",
        },
        "paths": {**_watching(), **_asking(), **_later()},
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "responses": {"refused": _REFUSED},
        },
    }


def _watching() -> dict[str, object]:
    """Paths that say how the server is."""
    text = {"description": "Counts.", "content": {"text/plain": {"schema": _TEXT}}}
    return {
        "/health": {"get": _read("The process lives.")},
        "/ready": {"get": _read("Requests are taken.")},
        OPENAPI_PATH: {"get": _read("This description.")},
        "/metrics": {"get": {**_read("Counts, for Prometheus."), "responses": _answers(text)}},
        "/v1/governor": {"get": _read("What was adjusted, and why.")},
        "/v1/models": {"get": _read("What may be asked.")},
        "/v1/models/{name}": {"get": _read("One model."), "parameters": [_in_path("name")]},
        "/v1/models/{name}/reload": {
            "post": _asked("Open the bundle's new version.", _object({})),
            "parameters": [_in_path("name")],
        },
    }


def _asking() -> dict[str, object]:
    """Paths that a model answers."""
    return {
        "/v1/chat/completions": {"post": _asked("Answer a conversation.", _CHAT, is_text=True)},
        "/v1/completions": {"post": _asked("Continue texts.", _COMPLETION, is_text=True)},
        "/v1/responses": {"post": _asked("Answer, in the newer form.", _RESPONSE, is_text=True)},
        "/v1/embeddings": {"post": _asked("Vectors of texts.", _EMBEDDING)},
        "/v1/classify": {"post": _asked("Classes of a text or a picture.", _CLASSIFICATION)},
        "/v1/feedback": {
            "get": _read("How learning stands."),
            "post": _asked("What a user says of an answer, or an example.", _FEEDBACK),
        },
    }


def _later() -> dict[str, object]:
    """Paths of requests that are answered later."""
    return {
        "/v1/outbox": {"get": _read("What waits, and what came of it.")},
        "/v1/outbox/{id}": {
            "get": _read("One request, with its answer."),
            "delete": _read("Forget a request."),
            "parameters": [_in_path("id")],
        },
    }


def _read(summary: str) -> dict[str, object]:
    """A request without a body."""
    return {
        "summary": summary,
        "security": _KEY,
        "responses": _answers(_json(summary)),
    }


def _asked(summary: str, schema: Schema, *, is_text: bool = False) -> dict[str, object]:
    """A request with a body; one for text may be answered piece by piece, or later."""
    found = _json(summary)
    if is_text:
        events = {"text/event-stream": {"schema": _EVENT}}
        found = {**found, "content": {"application/json": {"schema": _ANY}, **events}}
    described: dict[str, object] = {
        "summary": summary,
        "security": _KEY,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": _answers(found),
    }
    if is_text:
        described["parameters"] = _WISHES
    return described


def _answers(found: Schema) -> dict[str, object]:
    refused: Schema = {"$ref": "#/components/responses/refused"}
    accepted = _json("It is taken; the answer says where to look for it.")
    return {"200": found, "202": accepted, "4XX": refused, "503": refused, "504": refused}


def _json(description: str) -> dict[str, object]:
    return {"description": description, "content": {"application/json": {"schema": _ANY}}}


def _in_path(name: str) -> dict[str, object]:
    return {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}


def _header(name: str, schema: Schema) -> dict[str, object]:
    return {"name": name, "in": "header", "required": False, "schema": schema}


def _object(fields: Mapping[str, Schema], *needed: str) -> dict[str, object]:
    """An object of known fields, each of which may also be null if it is not needed."""
    given = {name: one if name in needed else _or_null(one) for name, one in fields.items()}
    described: dict[str, object] = {
        "type": "object",
        "properties": given,
        "additionalProperties": False,
    }
    return {**described, "required": list(needed)} if needed else described


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _number(least: float, most: float) -> Schema:
    return {"type": "number", "minimum": least, "maximum": most}


def _whole(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _list(items: Schema, *, least: int = 0, most: int | None = None) -> Schema:
    found: dict[str, object] = {"type": "array", "items": items, "minItems": least}
    return found if most is None else {**found, "maxItems": most}


def _one_of(*values: object) -> Schema:
    return {"enum": list(values)}


def _texts(most: int) -> Schema:
    return {"anyOf": [_FULL, _list(_FULL, most=most)]}


_ANY: Final[Schema] = {"type": "object"}
_TEXT: Final[Schema] = {"type": "string"}
# Each event of a stream: what Open API before 3.2 describes in its place.
_EVENT: Final[Schema] = {
    "type": "object",
    "properties": {"event": _TEXT, "data": _TEXT},
    "required": ["data"],
}
_FULL: Final[Schema] = {"type": "string", "minLength": 1}
_FLAG: Final[Schema] = {"type": "boolean"}
_REFUSED: Final[Schema] = {
    "description": "One sentence that says what was wrong, and a word for programs.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/refusal"}}},
}
_WISHES: Final = [
    _header("x-privacy", _one_of("public", "redact", "private")),
    _header("x-defer", _one_of("never", "allow", "must")),
    _header("x-deadline-ms", _whole(1, 24 * 3600 * 1000)),
    _header("idempotency-key", {**_TEXT, "maxLength": 255, "pattern": "^[!-~]+$"}),
]

_PARTS: Final = _list(
    _object({"type": _one_of("text", "input_text", "output_text"), "text": _TEXT}, "type", "text")
)
_CONTENT: Final[Schema] = {"anyOf": [_TEXT, _PARTS]}
_MESSAGE: Final = _object(
    {
        "role": _one_of("system", "developer", "user", "assistant", "tool"),
        "content": _CONTENT,
        "name": _TEXT,
        "tool_call_id": _TEXT,
        "tool_calls": _list({"$ref": "#/components/schemas/call"}),
    },
    "role",
)
_FUNCTION: Final = {
    "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    "description": _TEXT,
    "parameters": _ANY,
    "strict": _FLAG,
}
_SAMPLING: Final[Mapping[str, Schema]] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": _whole(0, 2**31 - 1),
    "min_p": _number(0, 1),
    "repetition_penalty": _number(0.01, 100),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "logit_bias": {
        "type": "object",
        "maxProperties": MOST_BIASES,
        "patternProperties": {"^[0-9]{1,9}$": _number(-100, 100)},
        "additionalProperties": False,
    },
    "seed": _whole(0, 2**63 - 1),
}
_COMMON: Final[Mapping[str, Schema]] = {
    "model": _FULL,
    "stream": _FLAG,
    "user": _TEXT,
    "metadata": _ANY,
    **_SAMPLING,
}
_TOOLS: Final[Mapping[str, Schema]] = {
    "tools": _list({"$ref": "#/components/schemas/tool"}, most=MOST_TOOLS),
    "tool_choice": _one_of("auto", "none", "required"),
    "parallel_tool_calls": _FLAG,
}
_OFTEN: Final[Mapping[str, Schema]] = {
    "max_tokens": _whole(1, MOST_TOKENS),
    "max_completion_tokens": _whole(1, MOST_TOKENS),
    "n": _whole(1, MOST_CHOICES),
    "stop": _texts(MOST_STOPS),
    "stream_options": _object({"include_usage": _FLAG}),
}
_CHAT: Final = _object(
    {
        "messages": _list({"$ref": "#/components/schemas/message"}, least=1),
        "logprobs": _FLAG,
        "top_logprobs": _whole(0, MOST_SCORES),
        "response_format": {"$ref": "#/components/schemas/format"},
        "store": _one_of(False),
        **_COMMON,
        **_OFTEN,
        **_TOOLS,
    },
    "messages",
)
_COMPLETION: Final = _object(
    {
        "prompt": _texts(MOST_PROMPTS),
        "logprobs": _whole(0, MOST_SCORES),
        "echo": _FLAG,
        "best_of": _one_of(1),
        **_COMMON,
        **_OFTEN,
    },
    "prompt",
)
_RESPONSE: Final = _object(
    {
        "input": {"anyOf": [_TEXT, _list({"$ref": "#/components/schemas/item"}, least=1)]},
        "instructions": _TEXT,
        "max_output_tokens": _whole(1, MOST_TOKENS),
        "store": _one_of(False),
        "truncation": _one_of("disabled"),
        **_COMMON,
        "tools": _list({"$ref": "#/components/schemas/flat_tool"}, most=MOST_TOOLS),
        "tool_choice": _one_of("auto", "none", "required"),
        "parallel_tool_calls": _FLAG,
    },
    "input",
)
_EMBEDDING: Final = _object(
    {
        "input": _texts(MOST_INPUTS),
        "encoding_format": _one_of("float", "base64"),
        "model": _FULL,
        "user": _TEXT,
    },
    "input",
)
_CLASSIFICATION: Final = _object({
    "input": _TEXT,
    "image": {"type": "string", "contentEncoding": "base64"},
    "labels": _list(_FULL, least=2, most=MOST_CLASSES),
    "template": _TEXT,
    "top": _whole(1, MOST_CLASSES),
    "model": _FULL,
    "user": _TEXT,
})
_FEEDBACK: Final = _object({
    "id": _FULL,
    "index": _whole(0, 10_000),
    "verdict": _one_of("accepted", "corrected", "rated"),
    "rating": _number(0, 1),
    "correction": _TEXT,
    "model": _FULL,
    "messages": _list(
        _object({"role": _one_of("system", "user", "assistant"), "content": _TEXT}, "role"),
        least=1,
    ),
    "answer": _TEXT,
    "input": _TEXT,
    "image": {"type": "string", "contentEncoding": "base64"},
    "label": _TEXT,
    "user": _TEXT,
})
_SCHEMAS: Final[Mapping[str, Schema]] = {
    "refusal": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": _FULL,
                    "type": _TEXT,
                    "param": _or_null(_TEXT),
                    "code": _or_null(_TEXT),
                },
            }
        },
    },
    "message": _MESSAGE,
    "call": _object(
        {
            "id": _TEXT,
            "type": _one_of("function"),
            "function": _object({"name": _FULL, "arguments": _TEXT}, "name"),
        },
        "function",
    ),
    "tool": _object(
        {"type": _one_of("function"), "function": _object(_FUNCTION, "name")}, "type", "function"
    ),
    "flat_tool": _object({"type": _one_of("function"), **_FUNCTION}, "type", "name"),
    "format": {
        "anyOf": [
            _object({"type": _one_of("text", "json_object")}, "type"),
            _object(
                {
                    "type": _one_of("json_schema"),
                    "json_schema": _object(
                        {"name": _FULL, "schema": _ANY, "strict": _FLAG}, "name", "schema"
                    ),
                },
                "type",
                "json_schema",
            ),
        ]
    },
    "item": {
        "anyOf": [
            _object({"type": _one_of("message"), "role": _TEXT, "content": _CONTENT}, "role"),
            _object(
                {
                    "type": _one_of("function_call"),
                    "call_id": _TEXT,
                    "name": _FULL,
                    "arguments": _TEXT,
                },
                "type",
                "name",
            ),
            _object(
                {"type": _one_of("function_call_output"), "call_id": _TEXT, "output": _CONTENT},
                "type",
                "output",
            ),
        ]
    },
}
