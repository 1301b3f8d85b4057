"""What the weights of the native engine take beyond their bytes."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onhand import native

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
MODULE: Any = native.module


def anonymous_bytes() -> int:
    """Memory of this process that is no file's."""
    found = re.search(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        pytest.skip("the kernel does not tell what is no file's")
    return int(found[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_matrices_of_a_model_share_large_pages() -> None:
    """Each in pages of its own would take half as much again: 2.3 MB in two of 2 MiB."""
    n_rows, n_inputs = 1024, 4096
    codes = np.zeros(n_rows * n_inputs // 2, np.uint8)
    scales = np.ones((n_rows, n_inputs // 32), np.uint16)
    numbers = {"bits": 4, "group": 32, "n_rows": n_rows, "n_inputs": n_inputs}
    before = anonymous_bytes()

    arena = MODULE.Arena()
    made = [
        MODULE.Matrix(**numbers, codes=codes, scales=scales, zeros=None, arena=arena)
        for _ in range(40)
    ]

    taken = anonymous_bytes() - before
    assert taken < 1.1 * sum(matrix.n_bytes for matrix in made)


def test_matrices_outlive_what_gave_them_memory() -> None:
    """A coarse copy reads all of the one that is left."""
    codes = np.full(64 * 32, 0x9F, np.uint8)
    scales = np.ones((64, 2), np.uint16)
    numbers = {"bits": 4, "group": 32, "n_rows": 64, "n_inputs": 64}
    arena = MODULE.Arena()
    matrices = [
        MODULE.Matrix(**numbers, codes=codes, scales=scales, zeros=None, arena=arena)
        for _ in range(2)
    ]
    del arena, matrices[0]

    assert matrices[0].coarse(1).n_bytes > 0
