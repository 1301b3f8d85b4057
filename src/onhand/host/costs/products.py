"""What the products of a step cost: multiplying the weights, and waiting for them."""

from collections.abc import Mapping
from dataclasses import dataclass

from onhand.core.decoder import Decoder
from onhand.core.quantized import GroupFormat
from onhand.host.costs.calibration import Calibration
from onhand.host.costs.sizes import Formats, packed_bytes, read_matrices
from onhand.host.costs.work import prompt_parts

__all__ = ["ProductCost", "decode_products", "product_cost", "prompt_products_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductCost:
    """One product of a step.

    Attributes:
        read_s: reading the weights.
        compute_s: multiplying them, once they lie in the nearest cache.
        seconds: both together.
    """

    read_s: float
    compute_s: float
    seconds: float


def product_cost(
    calibration: Calibration,
    shape: tuple[int, int],
    form: GroupFormat | None,
    *,
    rows: int,
    threads: int,
    working_bytes: float,
) -> ProductCost:
    """Return what a matrix costs in one step.

    Args:
        calibration: the device's parts.
        shape: (N, K).
        form: how it is stored; None for float32.
        rows: of the step.
        threads: of the step.
        working_bytes: of all that a step reads.
    """
    n, k = shape
    n_bytes = packed_bytes(shape, form)
    weight_s, output_s = calibration.product(form, rows)
    compute_s = rows * (n * k * weight_s + n * output_s) / threads
    read_s = n_bytes / calibration.bytes_per_s(working_bytes, threads)
    if rows == 1:
        # Weights used once are waited for: only what the nearest cache takes is part of computing.
        cached_s = n_bytes / calibration.bytes_per_s(0, threads)
        seconds = compute_s + max(0.0, read_s - cached_s)
        seconds += n_bytes * calibration.step.byte_s / threads
    else:
        seconds = max(read_s, compute_s)
    return ProductCost(read_s=read_s, compute_s=compute_s, seconds=seconds)


def decode_products(
    calibration: Calibration,
    decoder: Decoder,
    formats: Formats,
    *,
    threads: int,
    working_bytes: float | None = None,
) -> Mapping[str, ProductCost]:
    """Return name -> what each matrix costs in a step of one token.

    Args:
        calibration: the device's parts.
        decoder: the model.
        formats: matrix name -> how it is stored.
        threads: of a step.
        working_bytes: of all that a step reads; None for these matrices alone.
    """
    read = read_matrices(decoder)
    if working_bytes is None:
        working_bytes = sum(packed_bytes(shape, formats[name]) for name, shape in read.items())
    return {
        name: product_cost(
            calibration,
            shape,
            formats[name],
            rows=1,
            threads=threads,
            working_bytes=working_bytes,
        )
        for name, shape in read.items()
    }


def prompt_products_s(
    calibration: Calibration, decoder: Decoder, formats: Formats, *, tokens: int, threads: int
) -> float:
    """Return the seconds that the products of a prompt take; the head scores its last token.

    Args:
        calibration: the device's parts.
        decoder: the model.
        formats: matrix name -> how it is stored.
        tokens: of the prompt.
        threads: of a step.
    """
    read = read_matrices(decoder)
    working = sum(packed_bytes(shape, formats[name]) for name, shape in read.items())
    costs = dict.fromkeys(prompt_parts(tokens), 0.0)
    for rows in costs:
        for name, shape in read.items():
            costs[rows] += product_cost(
                calibration,
                shape,
                formats[name],
                rows=1 if name.startswith(decoder.head) else rows,
                threads=threads,
                working_bytes=working,
            ).seconds
    return sum(costs[rows] for rows in prompt_parts(tokens))
