"""The tree of errors is the one that its page shows."""

import inspect

from onhand.core import errors
from onhand.core.errors import InputError


def test_the_tree_equals_its_docstring() -> None:
    """Every class stands under its parent in the docstring, and no line is left over."""
    assert errors.__doc__ is not None
    lines = errors.__doc__.splitlines()[2:]
    parents: list[str] = []
    shown: dict[str, str] = {}
    for line in filter(None, lines):
        depth = (len(line) - len(line.lstrip())) // 4
        name = line.split()[0]
        parents[depth:] = [name]
        shown[name] = parents[depth - 1] if depth else "Exception"

    classes = dict(inspect.getmembers(errors, inspect.isclass))

    assert shown == {name: made.__bases__[0].__name__ for name, made in classes.items()}
    assert sorted(shown) == sorted(errors.__all__)


def test_attack_a_message_is_never_longer_than_a_person_reads() -> None:
    """Whatever of an input stands in it; its beginning and its end are there."""
    short, long = InputError("a" * 2000), InputError("begin " + "x" * 100_000 + " end")

    assert str(short) == "a" * 2000
    assert str(long).startswith("begin xxx")
    assert str(long).endswith("xxx end")
    assert len(str(long)) < 2000
