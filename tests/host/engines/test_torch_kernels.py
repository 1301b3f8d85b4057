"""Triton's kernel against plain products. Not run on a GPU: Triton's interpreter computes it.

It takes part where Triton is installed, which comes with torch for CUDA.
"""

import pytest

pytest.importorskip("torch", reason="needs onhand[host]")
pytest.importorskip("triton", reason="Triton is not installed: its kernel is not tried")

import os
import subprocess
import sys

PROGRAM = """
import numpy as np, torch
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.host.engines.torch_kernels import multiply_codes
from onhand.host.engines.torch_matrices import TorchMatrix
rng = np.random.default_rng(0)
for bits in (2, 3, 4, 8):
    for symmetric in (True, False):
        for k, group, n in ((80, 32, 37), (256, 128, 16), (96, 64, 5)):
            form = GroupFormat(bits=bits, group_size=group, symmetric=symmetric)
            G = form.n_groups(k)
            codes = rng.integers(0, 2**bits, (n, G, group), dtype=np.uint8)
            zeros = None if symmetric else rng.integers(0, 2**bits, (n, G), dtype=np.uint8)
            scales = rng.standard_normal((n, G)).astype(np.float16)
            stored = QuantTensor.pack(codes, scales, zeros, n_inputs=k, format=form)
            matrix = TorchMatrix(stored, torch.device("cpu"), torch.float32)
            x = torch.from_numpy(rng.standard_normal((3, k)).astype(np.float32))
            expected = x @ torch.from_numpy(stored.dequantize()).T
            error = (multiply_codes(x, matrix) - expected).abs().max() / expected.abs().max()
            assert error < 1e-5, (bits, symmetric, k, group, n, float(error))
"""


def test_the_kernel_computes_products() -> None:
    """Every width of codes, with zero points and without, groups that are not full."""
    # The interpreter is chosen as Triton is imported: in a process of its own.
    subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "TRITON_INTERPRET": "1"}, check=True
    )
