"""How fast this device computes just now, beside what it does undisturbed."""

import statistics
import time
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from onhand.core.quantized import GroupFormat
from onhand.device.engines.native import NativeEngine
from onhand.device.generate import generate_tokens
from onhand.host.costs.calibration import Speed
from onhand.host.costs.synthetic import Sizes, make_bundle

__all__ = ["SpeedGauge"]

_SHAPE: Final = (256, 1024)
_PRODUCTS: Final = 200
_PROMPT, _ANSWER, _ANSWERS = 16, 48, 3
_PAUSE_S: Final = 0.15


class SpeedGauge:
    """Times the same small product and the same small step, in a few milliseconds.

    Not for several threads.
    """

    def __init__(self, native: ModuleType, folder: Path) -> None:
        """Open a very small model.

        Args:
            native: the native part.
            folder: for its bundle.
        """
        form = GroupFormat()
        codes = np.full(_SHAPE[0] * _SHAPE[1] // 2, 0x5A, dtype=np.uint8)
        scales = np.full((_SHAPE[0], _SHAPE[1] // form.group_size), 0.01, dtype=np.float16)
        self._matrix = native.Matrix(
            form.bits, form.group_size, *_SHAPE, codes, scales.view(np.uint16), None, threads=1
        )
        bundle = make_bundle(Sizes(), folder / "gauge")
        self._loaded = NativeEngine().open(bundle, variant="sample", threads=1)
        self._session = self._loaded.session()

    def now(self) -> Speed:
        """Return how fast the device is, in one thread."""
        products: list[float] = self._matrix.time_products(1, 1, _PRODUCTS)
        steps: list[float] = []
        for _ in range(_ANSWERS):
            self._session.rewind(0)
            prompt = np.arange(1, _PROMPT + 1)
            before = 0.0
            for _ in generate_tokens(self._loaded, self._session, prompt, max_tokens=_ANSWER):
                after = time.perf_counter()
                if before:
                    steps.append(after - before)
                before = after
        return Speed(product_s=statistics.median(products), step_s=statistics.median(steps))

    def best(self, times: int) -> Speed:
        """Return the quickest of some samples: what nothing disturbed.

        Args:
            times: samples, some tenths of a second apart.
        """
        found = self._samples(times)
        return Speed(
            product_s=min(one.product_s for one in found), step_s=min(one.step_s for one in found)
        )

    def usual(self, times: int) -> Speed:
        """Return the median of some samples.

        Args:
            times: samples, some tenths of a second apart.
        """
        found = self._samples(times)
        return Speed(
            product_s=statistics.median(one.product_s for one in found),
            step_s=statistics.median(one.step_s for one in found),
        )

    def close(self) -> None:
        """Give the model back."""
        self._loaded.close()

    def _samples(self, times: int) -> list[Speed]:
        found = []
        for _ in range(times):
            found.append(self.now())
            time.sleep(_PAUSE_S)
        return found
