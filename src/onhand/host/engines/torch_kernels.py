"""Triton's kernel for products of few rows with codes; imported where a CUDA device computes.

It reads a matrix's bytes once and turns codes into weights on the way, so that a token costs what
its codes take to read.
"""

import functools
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from onhand.host.engines.torch_matrices import TorchMatrix

__all__ = ["has_kernels", "multiply_codes"]

_ROWS = 16  # of the matrix, for each program
_BYTES = 128  # of each row, at once


def has_kernels() -> bool:
    """Return whether Triton is installed; it comes with torch for CUDA."""
    return importlib.util.find_spec("triton") is not None


def multiply_codes(x: "Tensor", matrix: "TorchMatrix") -> "Tensor":
    """Multiply rows with a matrix of codes.

    Args:
        x: (T, K), contiguous or not, on the matrix's device.
        matrix: (N, K), as codes.

    Returns:
        (T, N), of x's dtype; summed in float32.
    """
    import torch

    n, k = matrix.shape
    given = x.contiguous()
    result = torch.empty((x.shape[0], n), device=x.device, dtype=x.dtype)
    n_groups = matrix.scales.shape[1]
    zeros = matrix.scales if matrix.zeros is None else matrix.zeros  # any, where there are none
    _kernel()[(-(-n // _ROWS), x.shape[0])](
        given,
        matrix.codes,
        matrix.scales,
        zeros,
        result,
        n,
        k,
        n_groups,
        matrix.codes.shape[2],
        middle=matrix.middle,
        has_zeros=matrix.zeros is not None,
        bits=matrix.bits,
        block_rows=_ROWS,
        block_bytes=_BYTES,
    )
    return result


@functools.cache
def _kernel() -> Any:
    from onhand.host.engines import torch_kernel_source

    return torch_kernel_source.multiply
