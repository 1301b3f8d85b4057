"""Fields of requests that offer tools, in the forms of both routes for conversations."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from onhand.core.errors import InputError
from onhand.device.serving.api.bodies import Body
from onhand.device.serving.api.bounds import MOST_TOOLS
from onhand.device.serving.api.schemas import TOOL_SCHEMA
from onhand.device.tools.kinds import Tool, ToolUse
from onhand.device.tools.writing import check_arguments

__all__ = ["ToolFields", "read_tools"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_DESCRIPTION: Final = 8192  # letters
_MOST_TOTAL: Final = 128 * 2**10  # letters of all schemas
_MODES: Final = ("none", "auto", "required")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFields:
    """What a request says of tools.

    Attributes:
        use: what its answer may call; None for nothing.
        tools: as the request has them; answers of `/v1/responses` repeat them.
        choice: likewise.
        is_parallel: likewise.
    """

    use: ToolUse | None
    tools: Sequence[object]
    choice: object
    is_parallel: bool


def read_tools(body: Body, *, is_flat: bool) -> ToolFields:
    """Understand `tools`, `tool_choice` and `parallel_tool_calls`.

    Args:
        body: the request's fields.
        is_flat: whether a function stands beside its type, not within "function".

    Returns:
        What they say.

    Raises:
        RefusedRequest: if one is wrong, unknown or too large.
    """
    given, choice = body.peek_value("tools"), body.peek_value("tool_choice")
    is_parallel = body.flag("parallel_tool_calls", True)
    tools: list[Tool] = []
    if isinstance(given, list) and len(given) > MOST_TOOLS:
        raise body.wrong("tools", f"has {len(given)} tools, at most {MOST_TOOLS} are allowed")
    for one in () if given in (None, []) else body.objects("tools"):
        tool = _tool(one, is_flat=is_flat)
        if any(tool.name == other.name for other in tools):
            raise body.wrong("tools", f"has two functions named {tool.name!r}; rename one")
        tools.append(tool)
    if sum(len(json.dumps(tool.parameters)) for tool in tools) > _MOST_TOTAL:
        raise body.wrong("tools", f"their parameters have over {_MOST_TOTAL} letters together")
    body.ignore(("tools",))
    mode, names = _choice(body, tools, is_flat=is_flat)
    use = None
    if tools and mode != "none":
        use = ToolUse(
            tools=tuple(tools),
            names=names,
            is_required=mode == "required",
            is_parallel=is_parallel,
        )
    return ToolFields(
        use=use,
        tools=given if isinstance(given, list) else [],
        choice=choice or ("auto" if tools else "none"),
        is_parallel=is_parallel,
    )


def _tool(body: Body, *, is_flat: bool) -> Tool:
    kind = body.text("type")
    if kind != "function":
        raise body.wrong("type", f"is {kind!r}; tools of the type function alone can be called")
    function = body if is_flat else body.table("function")
    name = function.text("name")
    if name is None or not _NAME.fullmatch(name):
        raise function.wrong(
            "name", f"is {(name or '')[:80]!r}, must be 1 to 64 letters, digits, _ and -"
        )
    description = function.text("description") or ""
    if len(description) > _MOST_DESCRIPTION:
        raise function.wrong("description", f"has over {_MOST_DESCRIPTION} letters")
    parameters = function.value("parameters")
    is_strict = function.flag("strict", False)
    function.end()
    body.end()
    if parameters is None:  # a function without arguments
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    if reason := _why_not(parameters, is_strict=is_strict):
        raise function.wrong("parameters", reason)
    return Tool(
        name=name, description=description, parameters=_table(parameters), is_strict=is_strict
    )


def _table(value: object) -> dict[str, object]:
    return {str(key): one for key, one in value.items()} if isinstance(value, Mapping) else {}


def _why_not(schema: object, *, is_strict: bool) -> str | None:
    """Return why a schema cannot be used, or None; the cheap questions come first."""
    if not isinstance(schema, dict):
        return "must be a JSON schema, an object"
    if schema.get("type", "object") != "object":
        return "must be a schema of the type object, as arguments have names"
    if reason := TOOL_SCHEMA.why_not(schema):
        return reason
    return _why_not_followed(json.dumps(schema), is_strict)


@lru_cache(maxsize=256)
def _why_not_followed(schema: str, is_strict: bool) -> str | None:
    # Agents send the same schemas with every turn.
    try:
        check_arguments(json.loads(schema), is_strict=is_strict)
    except InputError as error:
        return str(error)
    return None


def _choice(body: Body, tools: Sequence[Tool], *, is_flat: bool) -> tuple[str, tuple[str, ...]]:
    """Return the mode, and the names that may be called."""
    known = tuple(tool.name for tool in tools)
    given = body.peek_value("tool_choice")
    if given is None or isinstance(given, str):
        body.ignore(("tool_choice",))
        mode = given or "auto"
        if mode not in _MODES:
            raise body.wrong("tool_choice", f"is {mode!r}, must be {', '.join(_MODES)} or a table")
        if mode == "required" and not tools:
            raise body.wrong("tool_choice", "is 'required', but there are no tools to call")
        return mode, known
    choice = body.table("tool_choice")
    kind = choice.text("type")
    if kind == "function":
        names: tuple[str, ...] = (_named(choice, known, is_flat=is_flat),)
        mode = "required"
    elif kind == "allowed_tools":
        allowed = choice if is_flat else choice.table("allowed_tools")
        mode = allowed.text("mode") or "auto"
        if mode not in {"auto", "required"}:
            raise allowed.wrong("mode", f"is {mode!r}, must be auto or required")
        named = [_allowed(one, known, is_flat=is_flat) for one in allowed.objects("tools")]
        names = tuple(dict.fromkeys(named))
        allowed.end()
    else:
        raise choice.wrong("type", f"is {kind!r}, must be function or allowed_tools")
    choice.end()
    return mode, names


def _allowed(body: Body, known: Sequence[str], *, is_flat: bool) -> str:
    kind = body.text("type")
    if kind != "function":
        raise body.wrong("type", f"is {kind!r}, must be function")
    name = _named(body, known, is_flat=is_flat)
    body.end()
    return name


def _named(body: Body, known: Sequence[str], *, is_flat: bool) -> str:
    function = body if is_flat else body.table("function")
    name = function.text("name")
    if name not in known:
        raise function.wrong("name", f"is {(name or '')[:80]!r}, which is none of the tools")
    if not is_flat:
        function.end()
    return str(name)
