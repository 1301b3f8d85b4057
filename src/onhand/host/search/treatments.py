"""What is done to a matrix beside its format: method, zeros, a lower rank; in words, and done."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onhand.core.errors import InputError
from onhand.host.calibrate import InputStatistics
from onhand.host.factors import factorise
from onhand.host.model import Model
from onhand.host.passes.quantize import WHOLE_BITS, Quantize
from onhand.host.search.choices import Form, form_name, named_form

__all__ = [
    "Stored",
    "Treatment",
    "as_quantize",
    "named_treatment",
    "ranks_of",
    "stored_as",
    "stored_names",
    "treatment_name",
]

_NAME = re.compile(r"(.+?)(?: rank (\d+))?(?: (\d+)% zeros)?(?: by ([a-z+]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """How one matrix is stored, and what is done to it before.

    Attributes:
        form: of the codes.
        method: how weights are rounded; "" for that of the search.
        zeros: share of each row that becomes zero before, in whole hundredths.
        rank: of the two thinner matrices whose product stands in its place; 0 for itself.
    """

    form: Form
    method: str = ""
    zeros: float = 0.0
    rank: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but a format."""
        return not (self.method or self.zeros or self.rank)


def treatment_name(treatment: Treatment) -> str:
    """Say it in words: "int4 g32", "int4 g32 rank 64", "int8 g128 25% zeros", "int4 g32 by clip".

    Args:
        treatment: what is done.
    """
    rank = f" rank {treatment.rank}" if treatment.rank else ""
    zeros = f" {round(100 * treatment.zeros)}% zeros" if treatment.zeros else ""
    method = f" by {treatment.method}" if treatment.method else ""
    return f"{form_name(treatment.form)}{rank}{zeros}{method}"


def named_treatment(text: str) -> Treatment:
    """Undo `treatment_name`.

    Args:
        text: what it gave.

    Returns:
        The treatment.

    Raises:
        InputError: if it is no such text.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        raise InputError(f"format {text!r}: expected one like 'int4 g32' or 'int4 g32 rank 64'")
    form, rank, zeros, method = found.groups()
    return Treatment(
        form=named_form(form),
        method=method or "",
        zeros=int(zeros or 0) / 100,
        rank=int(rank or 0),
    )


def stored_names(name: str, text: str) -> tuple[str, ...]:
    """Return the names of the matrices that are stored in the place of one.

    Args:
        name: of the matrix.
        text: its treatment in words.
    """
    return (f"{name}.left", f"{name}.right") if named_treatment(text).rank else (name,)


def ranks_of(choices: Mapping[str, str]) -> dict[str, int]:
    """Return the ranks of matrices that become products.

    Args:
        choices: matrix -> its treatment in words.
    """
    found = {name: named_treatment(text).rank for name, text in choices.items()}
    return {name: rank for name, rank in found.items() if rank}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A model as it is stored: some matrices are products.

    Attributes:
        model: its matrices are those that are rounded.
        statistics: of their inputs.
        ranks: of what became a product.
    """

    model: Model
    statistics: InputStatistics
    ranks: Mapping[str, int]


def stored_as(model: Model, statistics: InputStatistics, choices: Mapping[str, str]) -> Stored:
    """Put products of thinner matrices where choices say so.

    Args:
        model: what is to be stored.
        statistics: of the calibration text.
        choices: matrix -> its treatment in words.

    Returns:
        The model. What the second factor's inputs are follows from the first one and its inputs.

    Raises:
        SourceError: if a weight or a moment is not finite.
    """
    ranks = ranks_of(choices)
    if not ranks:
        return Stored(model=model, statistics=statistics, ranks={})
    made = factorise(model, {**model.decoder.ranks, **ranks}, statistics)
    products, divisors = dict(statistics.products), dict(statistics.divisors)
    for name in ranks:
        if (found := products.get(name)) is None:
            continue
        products[f"{name}.right"] = found
        if name in divisors:
            divisors[f"{name}.right"] = divisors[name]
        if (moments := statistics.second_moments(name)) is not None:
            right = made.weights.matrix(f"{name}.right")  # (R, K)
            seen = np.float32(statistics.n_tokens)
            products[f"{name}.left"] = seen * np.matmul(right @ moments, right.T)  # (R, R)
    return Stored(
        model=made,
        statistics=replace(statistics, products=products, divisors=divisors),
        ranks=ranks,
    )


def as_quantize(choices: Mapping[str, str], *, method: str, scale_bits: int = 16) -> Quantize:
    """Return the pass that stores each matrix as it was chosen.

    Args:
        choices: matrix -> its treatment in words.
        method: how weights are rounded where nothing else is said.
        scale_bits: of the scales.
    """
    layers: dict[str, dict[str, int | bool | float | str]] = {}
    for name, text in choices.items():
        treatment = named_treatment(text)
        for part in stored_names(name, text):
            layers[part] = _table(treatment)
    return Quantize(method=method, layers=layers, scale_bits=scale_bits)


def _table(treatment: Treatment) -> dict[str, int | bool | float | str]:
    form = treatment.form
    if form is None:
        return {"bits": WHOLE_BITS}
    table: dict[str, int | bool | float | str] = {
        "bits": form.bits,
        "group_size": form.group_size,
        "symmetric": form.symmetric,
    }
    if treatment.method:
        table["method"] = treatment.method
    if treatment.zeros:
        table["zeros"] = treatment.zeros
    return table
