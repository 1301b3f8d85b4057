"""What zeros and lower ranks add to, or take from, what a matrix costs in a plain format."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from onhand.core.quantized import GroupFormat
from onhand.host.search.choices import Form, form_name
from onhand.host.search.cost_table import Costs, CostTable, as_cost, plain_forms
from onhand.host.search.sensitivity import FormLoss
from onhand.host.search.treatments import named_treatment

__all__ = ["with_treatments"]

_SIZE = "size_bytes"


def with_treatments(
    table: CostTable,
    costs: Costs,
    able: Mapping[str, Sequence[Form]],
    losses: Sequence[FormLoss],
    shapes: Mapping[str, tuple[int, int]],
) -> CostTable:
    """Add the costs of what is more than a format, and take off codes that are not stored.

    Zeros are fewer bytes on disk and nothing else: engines compute with them as with any number.
    Two thinner matrices cost what the cost model says of the decoder that has them.

    Args:
        table: of plain formats.
        costs: the cost model.
        able: matrix -> plain formats, as the table was made of.
        losses: every treatment of every matrix, with the bytes that it stores.
        shapes: of the matrices, (N, K).

    Returns:
        A table with a row for each of the losses.
    """
    plain = plain_forms(able)
    axis = table.names.index(_SIZE)
    asked: dict[tuple[str, str], list[float]] = {}
    each: dict[str, dict[str, tuple[float, ...]]] = {name: {} for name in able}
    for row in losses:
        treatment = named_treatment(row.form)
        form, rank = treatment.form, treatment.rank
        if rank:
            kind = re.sub(r"\.\d+\.", ".*.", row.matrix), row.form
            if kind not in asked:
                asked[kind] = _with_rank(costs, plain, row.matrix, form, rank, table.names)
            usual = table.each[row.matrix][form_name(plain[row.matrix])]
            cost = [a + b for a, b in zip(usual, asked[kind], strict=True)]
            if form is not None:
                n, k = shapes[row.matrix]
                whole = form.size_bytes((n, rank)) + form.size_bytes((rank, k))
                cost[axis] -= whole - row.size_bytes
        else:
            cost = list(table.each[row.matrix][form_name(form)])
            if form is not None:
                cost[axis] -= form.size_bytes(shapes[row.matrix]) - row.size_bytes
        each[row.matrix][row.form] = tuple(cost)
    fixed = list(table.fixed)
    for name, own in each.items():
        least = [min(column) for column in zip(*own.values(), strict=True)]
        fixed = [total + low for total, low in zip(fixed, least, strict=True)]
        each[name] = {
            text: tuple(value - low for value, low in zip(cost, least, strict=True))
            for text, cost in own.items()
        }
    return replace(table, fixed=tuple(fixed), each=each)


def _with_rank(
    costs: Costs,
    plain: Mapping[str, Form],
    name: str,
    form: GroupFormat | None,
    rank: int,
    names: Sequence[str],
) -> list[float]:
    """Return what a model costs more with one matrix as a product, along each axis."""
    whole = costs.whole(plain).figures()
    thinner = {other: own for other, own in plain.items() if other != name}
    thinner |= {f"{name}.left": form, f"{name}.right": form}
    changed = costs.factorised({name: rank}).whole(thinner).figures()
    return [as_cost(axis, changed[axis]) - as_cost(axis, whole[axis]) for axis in names]
