"""What each matrix adds to what a bundle costs, in each format and along each axis of a budget."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from onhand.core.quantized import GroupFormat
from onhand.host.search.choices import Form, form_name

__all__ = ["RATES", "CostTable", "Costs", "Figures", "as_cost", "cost_table", "plain_forms"]

RATES = frozenset({"prefill_tokens_per_s", "decode_tokens_per_s"})
"""Figures that are better the higher; their costs are seconds for a token."""


class Figures(Protocol):
    """A forecast. See `onhand.host.costs.decoders.Forecast`."""

    @property
    def spread(self) -> Mapping[str, float]:
        """Name of a figure -> how far it may lie off, as a fraction of it."""
        ...

    def figures(self) -> dict[str, float]:
        """Return name -> value."""
        ...


class Costs(Protocol):
    """A cost model. See `onhand.host.costs.decoders.DecoderCosts`."""

    def whole(self, formats: Mapping[str, GroupFormat | None]) -> Figures:
        """Return what a whole model costs."""
        ...

    def factorised(self, ranks: Mapping[str, int]) -> "Costs":
        """Return the costs of the same model with some matrices as products of two."""
        ...


def as_cost(name: str, value: float) -> float:
    """Turn a figure into one that is better the lower and adds up, or such a one back.

    Args:
        name: of the figure.
        value: in its unit; a rate becomes seconds.
    """
    if name not in RATES:
        return value
    return 1 / value if value > 0 else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """Costs as a sum over matrices.

    Attributes:
        names: of the figures, one for each axis.
        fixed: what does not depend on any choice, along each axis.
        each: matrix -> format, as `form_name` says it -> what is added, at least 0.
        spread: of each axis, how far a forecast may lie off, as a fraction.
    """

    names: tuple[str, ...]
    fixed: tuple[float, ...]
    each: Mapping[str, Mapping[str, tuple[float, ...]]]
    spread: Mapping[str, float]

    def figures(self, choices: Mapping[str, str]) -> dict[str, float]:
        """Return name -> figure of a whole model.

        Args:
            choices: matrix -> its format, every one.
        """
        sums = list(self.fixed)
        for name, form in choices.items():
            sums = [a + b for a, b in zip(sums, self.each[name][form], strict=True)]
        return {name: as_cost(name, total) for name, total in zip(self.names, sums, strict=True)}


def cost_table(costs: Costs, able: Mapping[str, Sequence[Form]], names: Sequence[str]) -> CostTable:
    """Ask a cost model what each choice adds to a model with int4 everywhere.

    Matrices of one kind and of the same formats are asked for once: layers are alike.

    Args:
        costs: the cost model.
        able: matrix -> formats.
        names: figures of the forecast that are to be axes.

    Returns:
        The table.
    """
    plain = plain_forms(able)
    whole = costs.whole(plain)
    figures = whole.figures()
    base = [as_cost(name, figures[name]) for name in names]
    asked: dict[tuple[str, tuple[Form, ...]], dict[str, list[float]]] = {}
    fixed = list(base)
    each: dict[str, dict[str, tuple[float, ...]]] = {}
    for name, forms in able.items():
        kind = re.sub(r"\.\d+\.", ".*.", name), tuple(forms)
        if kind not in asked:
            asked[kind] = _added(costs, plain, name, names, base, forms)
        added = asked[kind]
        least = [min(column) for column in zip(*added.values(), strict=True)]
        fixed = [total + low for total, low in zip(fixed, least, strict=True)]
        each[name] = {
            form: tuple(value - low for value, low in zip(values, least, strict=True))
            for form, values in added.items()
        }
    return CostTable(
        names=tuple(names),
        fixed=tuple(fixed),
        each=each,
        spread={name: float(whole.spread.get(name, 0.0)) for name in names},
    )


def plain_forms(able: Mapping[str, Sequence[Form]]) -> dict[str, Form]:
    """Return the formats of the model that choices are compared with: int4 where it can be.

    Args:
        able: matrix -> formats.
    """
    usual = GroupFormat()
    return {name: usual if usual in forms else forms[0] for name, forms in able.items()}


def _added(
    costs: Costs,
    plain: Mapping[str, Form],
    name: str,
    names: Sequence[str],
    base: Sequence[float],
    forms: Sequence[Form],
) -> dict[str, list[float]]:
    """Return for each format what a matrix in it costs more than it does in the plain one."""
    found: dict[str, list[float]] = {}
    for form in forms:
        figures = costs.whole({**plain, name: form}).figures()
        found[form_name(form)] = [
            as_cost(axis, figures[axis]) - before for axis, before in zip(names, base, strict=True)
        ]
    return found
