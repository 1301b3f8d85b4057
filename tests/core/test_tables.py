"""Tables of TOML become dataclasses."""

from dataclasses import dataclass

import pytest

from onhand.core.errors import RecipeError
from onhand.core.tables import filled


@dataclass(frozen=True, slots=True)
class Step:
    """One text that must be there, and a number."""

    method: str
    ratio: float = 0.5


def test_a_table_fills_a_dataclass() -> None:
    """A whole number is a float where the default is one."""
    assert filled(Step, {"method": "rtn", "ratio": 1}, where="recipe.toml") == Step("rtn", 1.0)


def test_a_number_is_no_text() -> None:
    """Nor where a field has no default to compare with."""
    with pytest.raises(RecipeError, match=r"^recipe\.toml: method is 4, must be a text$"):
        filled(Step, {"method": 4}, where="recipe.toml")
