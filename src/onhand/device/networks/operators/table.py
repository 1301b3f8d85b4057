"""All operators by domain and name."""

from typing import Final

from onhand.device.networks.operators.elementwise import ELEMENTWISE
from onhand.device.networks.operators.kinds import Operators
from onhand.device.networks.operators.matrices import MATRICES
from onhand.device.networks.operators.quantized import MICROSOFT, QUANTIZED
from onhand.device.networks.operators.resizing import RESIZING
from onhand.device.networks.operators.shapes import SHAPES
from onhand.device.networks.operators.windows import WINDOWS

__all__ = ["OPERATORS", "OPSETS"]

OPSETS: Final = range(13, 27)
"""Versions whose meaning the operators have; before 13, axes and softmax were others."""

_ROOMS: Final = (ELEMENTWISE, MATRICES, QUANTIZED, RESIZING, SHAPES, WINDOWS)
OPERATORS: Final[Operators] = {
    **{("", name): operator for room in _ROOMS for name, operator in room.items()},
    **{("com.microsoft", name): operator for name, operator in MICROSOFT.items()},
}
