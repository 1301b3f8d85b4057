"""Recipes name registered passes and their options, nothing else."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from onhand.core.errors import InputError, RecipeError
from onhand.core.recipe import Guard, Recipe, parse_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A pass with an option of each kind."""

    name: ClassVar[str] = "round"
    bits: int = 4
    method: str = "rtn"
    share: float = 0.5
    keep: str | None = None
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits > 8:
            raise InputError(f"bits is {self.bits}, must be at most 8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A pass with lists."""

    name: ClassVar[str] = "listed"
    keep: tuple[str, ...] = ()
    sizes: tuple[int, ...] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """A pass that must be told something."""

    ratio: float


def passes(name: str) -> object:
    """Stands for the registered passes."""
    known = {"round": Round, "listed": Listed, "prune": Prune, "function": passes}
    if name not in known:
        raise InputError(f"unknown pass {name!r}; did you mean 'round'?")
    return known[name]


def parse(text: str) -> Recipe:
    """Read a recipe with the passes of this file."""
    return parse_recipe(text, passes=passes, where="phone.toml")


def test_steps_are_built_in_order() -> None:
    """What is not said has its default."""
    text = """
        name = "phone"
        [[step]]
        pass = "prune"
        ratio = 0.25
        [[step]]
        pass = "round"
        bits = 8
        keep = "head"
    """

    assert parse(text) == Recipe(
        name="phone",
        steps=(Prune(ratio=0.25), Round(bits=8, keep="head")),
        guards=(Guard(), Guard()),
    )


def test_lists_and_whole_numbers_take_the_type_of_the_default() -> None:
    """TOML has no tuples, and 1 is a number as well as 1.0."""
    text = """
        [[step]]
        pass = "listed"
        keep = ["a", "b"]
        sizes = [1]
        [[step]]
        pass = "round"
        share = 1
    """

    first, second = parse(text).steps

    assert first == Listed(keep=("a", "b"), sizes=(1,))
    assert isinstance(second, Round)
    assert (second.share, type(second.share)) == (1.0, float)
    with pytest.raises(RecipeError, match=r"keep is 'a', must be like \(\)"):
        parse("[[step]]\npass = 'listed'\nkeep = 'a'\n")


def test_a_step_says_what_it_may_lose() -> None:
    """Beside the pass's own options; a whole number is a share as well."""
    text = "[[step]]\npass = 'round'\nmost_loss = 0\n[[step]]\npass = 'round'\nundo = true\n"

    assert parse(text).guards == (Guard(most_loss=0.0), Guard(undo=True))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("most_loss = 2", "step 1 (round): most_loss is 2, must be a share from 0 to 1"),
        ("most_loss = true", "most_loss is True, must be a share"),
        ("most_loss = 'all'", "most_loss is 'all', must be a share"),
        ("undo = 1", "step 1 (round): undo is 1, must be true or false"),
    ],
)
def test_a_guard_is_checked(line: str, message: str) -> None:
    """As any other option is."""
    with pytest.raises(RecipeError) as caught:
        parse(f"[[step]]\npass = 'round'\n{line}\n")

    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["", "../a", "my recipe", "a" * 101])
def test_a_name_has_a_bundles_letters(name: str) -> None:
    """It becomes the variant's, which would be refused when all work is done."""
    with pytest.raises(RecipeError, match="must be 1 to 100 of letters"):
        parse(f'name = "{name}"\n[[step]]\npass = "round"\n')


def test_a_name_is_not_needed() -> None:
    """A recipe without one still runs."""
    assert parse('[[step]]\npass = "round"').name == "unnamed"


def test_a_recipe_may_say_what_is_learnable() -> None:
    """As the command's option has it; nothing, where it says nothing."""
    assert parse('learnable = "head"\n[[step]]\npass = "round"').learnable == "head"
    assert parse('[[step]]\npass = "round"').learnable == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name =", "phone.toml is not TOML"),
        (f"name = {'[' * 100_000}", "phone.toml is not TOML"),
        (f"name = {'9' * 5000}", "phone.toml is not TOML"),
        ("nmae = 'x'", "phone.toml: unknown key 'nmae'; did you mean 'name'?"),
        ("other = 'x'", "phone.toml: unknown key 'other'; known: learnable, name, step"),
        ("name = 'x'", "phone.toml: no [[step]]; a recipe needs at least one"),
        ("learnable = 3", "phone.toml: learnable is 3, must be a text"),
        ("[step]\npass = 'round'", "phone.toml: no [[step]]"),
        ("step = []", "phone.toml: no [[step]]"),
        ("step = [1]", 'phone.toml: step 1: needs a pass, as in pass = "quantize"'),
        ("[[step]]\nbits = 4", "phone.toml: step 1: needs a pass"),
        ("[[step]]\npass = 4", "phone.toml: step 1: needs a pass"),
        ("[[step]]\npass = 'rond'", "step 1: unknown pass 'rond'; did you mean 'round'?"),
        ("[[step]]\npass = 'function'", "step 1: pass 'function' is not a dataclass"),
        (
            "[[step]]\npass = 'round'\n[[step]]\npass = 'round'\nbit = 4",
            "step 2 (round): unknown option 'bit'; did you mean 'bits'?",
        ),
        (
            "[[step]]\npass = 'round'\nzzz = 4",
            "unknown option 'zzz'; known: bits, keep, method, most_loss, share, symmetric, undo",
        ),
        ("[[step]]\npass = 'round'\nbits = '4'", "(round): bits is '4', must be like 4"),
        ("[[step]]\npass = 'round'\nbits = true", "(round): bits is True, must be like 4"),
        ("[[step]]\npass = 'round'\nbits = 4.0", "(round): bits is 4.0, must be like 4"),
        ("[[step]]\npass = 'round'\nsymmetric = 1", "(round): symmetric is 1, must be like True"),
        ("[[step]]\npass = 'round'\nbits = 16", "step 1 (round): bits is 16, must be at most 8"),
        ("[[step]]\npass = 'prune'", "step 1 (prune): "),
        ("name = 5\n[[step]]\npass = 'round'", "phone.toml: name is 5, must be a text"),
    ],
    ids=lambda value: value[:40],
)
def test_a_slip_says_where_and_what_was_meant(text: str, message: str) -> None:
    """The file, the step, the pass, what was found and what would do."""
    with pytest.raises(RecipeError) as caught:
        parse(text)

    assert message in str(caught.value)
