"""Run a template that outsiders wrote: no way to Python, and no more work than is allowed.

jinja2's sandbox keeps a template from Python's internals, not from using up time and memory.
Here every loop turn, call, filter, operator and print pays from one purse, by the size of what it
reads and makes, so a template ends after a bounded amount of work on any machine; no clock or
signal is needed. What a chat template has no use for (format strings, lorem ipsum, recursive
loops) is not there at all.
"""

# ruff: noqa: N802 (jinja2 calls a visitor by the name of the node)
# Python has `typing.override` from 3.12 on.
# mypy: disable-error-code="explicit-override"

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import reduce, wraps
from typing import ClassVar, Final, cast

from jinja2 import Undefined, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

__all__ = ["Purse", "Sandbox"]

_STEP: Final = 20  # price of one loop turn, call or operator
_READ: Final = 64  # characters that can be compared or searched for the price of one
_MOST_BITS: Final = 4096
_FILTERS: Final = """
    abs capitalize count d default e escape first float int items join last length list lower map
    max min reject rejectattr replace reverse safe select selectattr string title trim upper
"""
_COMPARING_TESTS: Final = """
    == != > >= < <= eq equalto ne gt greaterthan ge lt lessthan le in
"""
_TEXT_METHODS: Final = """
    capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit
    islower isnumeric isspace istitle isupper join lower lstrip partition removeprefix
    removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines startswith
    strip swapcase title upper
"""


class Purse:
    """What one rendering may still spend. One thread at a time."""

    def __init__(self, units: int) -> None:
        self.most = units
        self.left = units

    def pay(self, units: int) -> None:
        """Spend units.

        Raises:
            SecurityError: if there are not enough.
        """
        self.left -= units
        if self.left < 0 or units < 0:
            raise SecurityError("it does more work than a chat template may")

    def weigh(self, value: object) -> tuple[int, int]:
        """Return the items of a value and the characters in it; pays for each item.

        Raises:
            SecurityError: if the purse is empty before the value ends, as in one that nests
                itself.
        """
        items, letters, waiting = 0, 0, [value]
        while waiting:
            thing = waiting.pop()
            items += 1
            if isinstance(thing, str):
                letters += len(thing)
            elif isinstance(thing, Mapping):
                self.pay(2 * len(thing))
                waiting += [*thing.keys(), *thing.values()]
            elif isinstance(thing, list | tuple | set | frozenset):
                self.pay(len(thing))
                waiting += thing
        return items, letters

    def read(self, value: object) -> object:
        """Return the value, after paying for looking at all of it."""
        items, letters = self.weigh(value)
        self.pay(items + letters // _READ)
        return value

    def made(self, value: object) -> object:
        """Return the value, after paying for having made it."""
        items, letters = self.weigh(value)
        self.pay(_STEP + items + letters)
        return value


class _Closed(Namespace):
    """jinja2's namespace: hidden names refused, and printed without its content."""

    def __setitem__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            raise SecurityError(f"it stores {name!r} on a namespace")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


class _Blocks(Extension):
    """`{% generation %}`: marks an answer for training; here its content is just shown."""

    tags: ClassVar[set[str]] = {"generation"}  # type: ignore[misc]  # jinja2 declares it for instances

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the block's content."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """jinja2 set up as transformers sets it up for chat templates, with a purse for each use.

    Source:
        transformers `utils/chat_template_utils.py`, `_cached_compile_jinja_template`.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%", "-", "/", "//"})

    def __init__(self, purse: Purse) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[_Blocks, loopcontrols],
            finalize=purse.made,
        )
        self.purse = purse
        self.filters = {
            n: self._paid(n, f) for n, f in self.filters.items() if n in _FILTERS.split()
        }
        self.filters["tojson"] = self._paid("tojson", _to_json)
        self.filters["_text"] = self._paid("_text", str)
        self.filters["_turns"] = self._turns
        self.filters["_pay"] = purse.pay
        self.filters["_read"] = purse.read
        self.filters["_made"] = purse.made
        self.globals = {
            "range": self.globals["range"],
            "dict": _dict,
            "namespace": _namespace,
            "raise_exception": _refuse,
            "strftime_now": _now,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Pricing().visit(tree)
        return tree

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        """Allow the few attributes that chat templates use, on plain values."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, str):
            return attr in _TEXT_METHODS.split()
        if isinstance(obj, dict):
            return attr in {"get", "items", "keys", "values"}
        if isinstance(obj, list | tuple):
            return attr in {"count", "index"}
        return isinstance(obj, LoopContext | Macro | Namespace | TemplateReference | Undefined)

    def wrap_str_format(self, value: object) -> None:
        """Refuse format strings: a width such as {:1000000000} makes much from little.

        Raises:
            SecurityError: if the value is a formatting method.
        """
        if getattr(value, "__name__", "") in {"format", "format_map"}:
            raise SecurityError("it formats a string; use ~ to join texts")

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """Compute with two values, after paying where the result may be large.

        Raises:
            SecurityError: if the purse is empty, numbers get too long, or a string is formatted.
        """
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(operator, left, right)
        elif operator == "%" and isinstance(left, str):
            raise SecurityError("it formats a string; use ~ to join texts")
        elif operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    self.purse.pay(len(sequence) * max(times, 0))
        return self.purse.made(super().call_binop(context, operator, left, right))

    def call(
        __self,  # noqa: N805 (jinja2's own names, out of the way of a template's keywords)
        __context: Context,
        __obj: object,
        *args: object,
        **kwargs: object,
    ) -> object:
        """Call what the template calls, after paying for its arguments."""
        purse = __self.purse
        owner = getattr(__obj, "__self__", None)
        for value in (owner, *args, *kwargs.values()):
            purse.read(value)
        if isinstance(owner, str):
            args = __self._check_growth(getattr(__obj, "__name__", ""), owner, args)
        return purse.made(super().call(__context, __obj, *args, **kwargs))

    def _check_growth(self, name: str, text: str, args: tuple[object, ...]) -> tuple[object, ...]:
        """Pay for the two methods of a text that can make much from little."""
        if name == "replace" and len(args) > 1:
            self.purse.pay(text.count(str(args[0])) * len(str(args[1])))
        if name == "join" and args:
            parts = list(cast(Iterable[object], args[0]))
            self.purse.pay(sum(len(str(part)) + len(text) for part in parts))
            return (parts, *args[1:])
        return args

    def _paid(self, name: str, given: Callable[..., object]) -> Callable[..., object]:
        """Wrap a filter: it pays for what it reads and what it makes."""
        skip = 1 if hasattr(given, "jinja_pass_arg") else 0

        @wraps(given)
        def wrapped(*args: object, **kwargs: object) -> object:
            front, rest = args[:skip], args[skip:]
            for value in (*rest, *kwargs.values()):
                self.purse.read(value)
            if name == "replace" and len(rest) > 2:
                self._check_growth("replace", str(rest[0]), rest[1:])
            if name == "join" and rest:
                between = str(rest[1] if len(rest) > 1 else kwargs.get("d", ""))
                (parts,) = self._check_growth("join", between, (rest[0],))
                rest = (parts, *rest[1:])
            return self.purse.made(given(*front, *rest, **kwargs))

        return wrapped

    def _turns(self, values: Iterable[object], letters: int) -> Iterator[object]:
        for value in values:
            self.purse.pay(_STEP + letters)
            yield value


class _Pricing(NodeTransformer):
    """Rewrites a parsed template so that what jinja2 does not intercept pays as well."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Pay for every turn, and for the text that a turn may print.

        Raises:
            SecurityError: if the loop calls itself.
        """
        if node.recursive:
            raise SecurityError("it has a recursive loop")
        self.generic_visit(node)
        node.iter = _filter(node.iter, "_turns", _letters(node))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        """Pay for the text that a call may print."""
        self.generic_visit(node)
        price = _filter(nodes.Const(_letters(node)), "_pay")
        node.body = [nodes.ExprStmt(price), *node.body]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Turn a ~ b into a + b of texts, which is intercepted."""
        self.generic_visit(node)
        texts: list[nodes.Expr] = [_filter(part, "_text") for part in node.nodes]
        return reduce(nodes.Add, texts)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Pay for reading what is compared."""
        self.generic_visit(node)
        node.expr = _filter(node.expr, "_read")
        for operand in node.ops:
            operand.expr = _filter(operand.expr, "_read")
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        """Pay for reading what a test compares."""
        self.generic_visit(node)
        if node.name in _COMPARING_TESTS.split():
            node.node = _filter(node.node, "_read")
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        """Pay for a list, so that none nests itself into something huge."""
        return _filter(self.generic_visit(node), "_made")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        """Pay for a dict."""
        return _filter(self.generic_visit(node), "_made")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        """Pay for a tuple, but not for the names that a loop assigns to."""
        self.generic_visit(node)
        return _filter(node, "_made") if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """Pay for a slice."""
        self.generic_visit(node)
        return _filter(node, "_made") if isinstance(node.arg, nodes.Slice) else node


def _filter(node: nodes.Node, name: str, *args: int) -> nodes.Filter:
    return nodes.Filter(
        node, name, [nodes.Const(value) for value in args], [], None, None, lineno=node.lineno
    )


def _letters(node: nodes.Node) -> int:
    return sum(len(data.data) for data in node.find_all(nodes.TemplateData))


def _check_bits(operator: str, left: int, right: int) -> None:
    bits = left.bit_length() + right.bit_length()
    if operator == "**":
        bits = left.bit_length() * max(right, 1)
    if bits > _MOST_BITS:
        raise SecurityError(f"it computes with numbers of over {_MOST_BITS} bits")


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Plain JSON: jinja2's own filter escapes HTML.
    if indent is not None and not 0 <= indent <= 8:
        raise SecurityError(f"it indents JSON by {indent}, at most 8 is allowed")
    if separators is not None and sum(map(len, separators)) > 8:
        raise SecurityError("its JSON separators are over 8 characters")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


# Functions rather than the classes themselves: a class has attributes that lead to Python.
def _dict(*args: Iterable[tuple[str, object]], **kwargs: object) -> dict[str, object]:
    return dict(*args, **kwargs)


def _namespace(*args: Iterable[tuple[str, object]], **kwargs: object) -> Namespace:
    made = _Closed()
    for name, value in dict(*args, **kwargs).items():
        made[name] = value
    return made


def _refuse(message: object) -> None:
    raise TemplateError(str(message))


def _now(form: str) -> str:
    # A width such as %999999999Y makes the C library write that many characters.
    if len(form) > 100 or re.search(r"%[^a-zA-Z%]*[0-9]", form):
        raise SecurityError(f"it asks for the date as {form[:20]!r}")
    return datetime.now().astimezone().strftime(form)
