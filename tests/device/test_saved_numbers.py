"""Every half of a saved memory is judged by its bits as numpy judges it by its value."""

import numpy as np
import pytest

from onhand.core.errors import InputError
from onhand.device.engines.memory import pack_span, unpack_span

KEY = bytes(32)
SHAPES = [(1, 1, np.dtype(np.float16))]


def test_exactly_the_halves_that_are_numbers_are_taken() -> None:
    """All 65,536 of them, each beside a number."""
    for bits in range(2**16):
        part = np.array([[[bits], [0]]], dtype=np.uint16).view(np.float16)
        span = pack_span(KEY, 0, [part])
        if np.isfinite(part).all():
            assert unpack_span(span, KEY, SHAPES, length=0, context=4)[0] == 2
        else:
            with pytest.raises(InputError, match="not finite"):
                unpack_span(span, KEY, SHAPES, length=0, context=4)
