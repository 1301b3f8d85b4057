"""How families of models write calls, and which of them a chat template speaks."""

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["FORMATS", "GENERIC", "CallFormat", "format_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFormat:
    """How one family writes calls: JSON objects with a name and arguments.

    Attributes:
        name: of the family.
        sign: what its chat templates hold, and no other's of the table before it.
        opening: what stands before a call.
        closing: what stands after it; "" for nothing.
        layout: "tags" for an opening before each object, "list" for one before a list of them,
            "bare" for objects that are the whole answer, with or without the opening.
        arguments: the key of the arguments.
        has_short_ids: whether its templates refuse ids that are not nine letters and digits.
    """

    name: str
    sign: str
    opening: str
    closing: str = ""
    layout: Literal["tags", "list", "bare"] = "tags"
    arguments: Literal["arguments", "parameters"] = "arguments"
    has_short_ids: bool = False


HERMES: Final = CallFormat(
    name="hermes", sign="<tool_call>", opening="<tool_call>", closing="</tool_call>"
)
FORMATS: Final = (
    CallFormat(
        name="mistral",
        sign="[TOOL_CALLS]",
        opening="[TOOL_CALLS]",
        layout="list",
        has_short_ids=True,
    ),
    CallFormat(
        name="phi",
        sign="<|tool_call|>",
        opening="<|tool_call|>",
        closing="<|/tool_call|>",
        layout="list",
    ),
    HERMES,
    CallFormat(
        name="llama",
        sign='"parameters":',
        opening="<|python_tag|>",
        layout="bare",
        arguments="parameters",
    ),
)
"""The families, in the order in which a template is compared with them."""

GENERIC: Final = CallFormat(name="generic", sign="", opening=HERMES.opening, closing=HERMES.closing)
"""For models whose template knows no tools: they are told in words, and to write as Hermes does."""

# Forms of calls that are no JSON: their models are told the generic form in words instead.
_OTHER_SIGNS: Final = ("<function=", "[ARGS]", "<arg_key>", "<tool_call>function")


def format_of(source: str) -> CallFormat:
    """Return the format in which a chat template that knows tools writes calls.

    Args:
        source: the template.

    Returns:
        The first of the table whose sign it holds; `GENERIC` for one that is not in the table.
    """
    if any(sign in source for sign in _OTHER_SIGNS):
        return GENERIC
    plain = source.replace('\\"', '"')
    return next((form for form in FORMATS if form.sign in plain), GENERIC)
