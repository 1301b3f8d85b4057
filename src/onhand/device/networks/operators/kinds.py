"""What operators take and give, for type checkers."""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Array", "Operator", "Operators"]

Array = Any
"""A numpy array. Any: a graph decides on dtypes and shapes, and numpy checks them as it runs."""
Operator = Callable[..., Any]
"""(node, inputs, None for one left out) -> an array, or a tuple of them."""
Operators = Mapping[tuple[str, str], Operator]
"""Domain and name -> what computes it."""
