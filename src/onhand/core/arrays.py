"""Array types used in signatures."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["ByteArray", "FloatArray", "HalfArray", "TokenArray"]

FloatArray = NDArray[np.float32]
HalfArray = NDArray[np.float16]
ByteArray = NDArray[np.uint8]
TokenArray = NDArray[np.int64]
