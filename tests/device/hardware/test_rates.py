"""Products are timed in the engines that are there."""

import statistics

import numpy as np
import pytest

from onhand.device.hardware import rates
from onhand.device.hardware.rates import Shape, measure_rates
from onhand.native import missing, module

SMALL = (Shape(1, 64, 48), Shape(5, 64, 48))


def test_each_kind_and_shape_has_a_rate() -> None:
    """By the native engine where it is built."""
    found = measure_rates(1, shapes=SMALL)

    assert [(one.kind, one.rows) for one in found] == [
        (kind, rows) for kind in ("fp32", "int8", "int4") for rows in (1, 5)
    ]
    assert all(one.rate > 0 for one in found)
    assert {one.engine for one in found if one.kind != "fp32"} == {"native" if module else "onnx"}


def test_without_the_native_part_another_engine_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime multiplies integers as well."""
    monkeypatch.setattr("onhand.native.module", None)

    assert {one.engine for one in measure_rates(1, shapes=SMALL)} == {"onnx"}


@pytest.mark.skipif(module is None, reason=missing)
def test_a_product_of_nothing_is_not_timed() -> None:
    """Rows, threads and runs are checked before anything is computed."""
    assert module is not None
    codes = np.zeros(32 * 16, dtype=np.uint8)
    scales = np.ones((16, 1), dtype=np.float16).view(np.uint16)
    matrix = module.Matrix(8, 32, 16, 32, codes, scales, None, threads=1)

    assert statistics.median(matrix.time_products(3, 2, 4)) > 0
    for rows, threads, runs in ((0, 1, 1), (257, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ValueError, match=r"out of range|threads"):
            matrix.time_products(rows, threads, runs)


def test_shapes_fit_what_engines_take() -> None:
    """Whole groups of inputs."""
    assert all(shape.inputs % 32 == 0 and shape.rows <= 256 for shape in rates.SHAPES)
