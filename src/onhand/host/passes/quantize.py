"""Weights as small integers, one scale for each group of inputs."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.host.calibrate import InputStatistics
from onhand.host.model import Model
from onhand.host.passes.base import Matrix, MatrixLoss, PassReport
from onhand.host.rounding import METHODS, Rounding, round_matrix

__all__ = ["Quantize"]

# Weights rounded at once by one thread: its working set stays near the cache.
_BLOCK_WEIGHTS = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize:
    """Store weight matrices as small integers, one scale for each group of inputs. See `Pass`.

    Attributes:
        bits: width of one code: 2, 3, 4 or 8.
        group_size: inputs that share one scale: 32, 64 or 128.
        symmetric: one fixed zero point and the full range; False stores a zero point per group.
        method: "rtn" rounds to nearest, "clip" searches the scales by weighted error.
        embed_bits: bits of the embedding, learned positions and the head; 0 for the same as `bits`.
    """

    name: ClassVar[str] = "quantize"

    bits: int = 4
    group_size: int = 32
    symmetric: bool = True
    method: str = "clip"
    embed_bits: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}, must be one of {', '.join(METHODS)}")
        self._format("layers.0.qkv")
        self._format("embed")

    def plan(self, decoder: Decoder) -> PassReport:
        """Say what `apply` would change, from shapes alone."""
        return PassReport(
            formats={name: self._format(name) for name in decoder.matrices()},
            kept=dict.fromkeys(decoder.vectors(), "a norm or bias: float32, too small to matter"),
            rounding=self.method,
            needs_calibration=self.method == "clip",
        )

    def apply(
        self,
        model: Model,
        statistics: InputStatistics,
        *,
        names: Sequence[str],
        threads: int,
        advance: Callable[[float], None],
    ) -> Iterator[Matrix]:
        """Yield the named matrices, finished, in the order given.

        Yields:
            The matrices, one by one.
        """
        from threadpoolctl import threadpool_limits

        # Each worker multiplies small matrices: threads of numpy's own would only be in the way.
        with threadpool_limits(1), ThreadPoolExecutor(max_workers=threads) as pool:
            for name in names:
                yield self._matrix(model, name, statistics, pool, advance)

    def _matrix(
        self,
        model: Model,
        name: str,
        statistics: InputStatistics,
        pool: ThreadPoolExecutor,
        advance: Callable[[float], None],
    ) -> Matrix:
        decoder = model.decoder
        n, k = decoder.matrices()[name]
        # A tied embedding was observed as the head: the error of those products counts. An
        # embedding of its own is only looked up, so all its columns weigh alike.
        form = self._format(name)
        moments = statistics.moments(name, form.group_size, k)
        step = max(_BLOCK_WEIGHTS // k, 1)

        def work(low: int) -> tuple[Rounding, float, float]:
            block = model.weights.block(name, low, min(low + step, n))
            rounded = round_matrix(block, form, method=self.method, moments=moments)
            return rounded, *_plain_error(block, rounded.tensor)

        pieces: list[QuantTensor] = []
        sums = np.zeros(4)
        for low, (rounded, error, norm) in zip(
            range(0, n, step), pool.map(work, range(0, n, step)), strict=True
        ):
            pieces.append(rounded.tensor)
            sums += (error, norm, rounded.squared_error, rounded.squared_norm)
            advance(min(step, n - low) * k)
        tensor = _stacked(pieces, (n, k))
        relative, weighted = np.sqrt(sums[0::2] / np.maximum(sums[1::2], 1e-300))
        return Matrix(
            tensor=tensor,
            loss=MatrixLoss(
                name=name,
                bits=form.bits,
                group_size=form.group_size,
                size_bytes=tensor.size_bytes,
                relative_error=float(relative),
                output_error=float(weighted),
            ),
        )

    def _format(self, name: str) -> GroupFormat:
        edge = name in {"embed", "head", "positions"}
        bits = self.embed_bits if edge and self.embed_bits else self.bits
        return GroupFormat(bits=bits, group_size=self.group_size, symmetric=self.symmetric)


def _plain_error(block: FloatArray, tensor: QuantTensor) -> tuple[float, float]:
    difference = tensor.dequantize() - block
    error = float(np.square(difference).sum(dtype=np.float64))
    return error, float(np.square(block).sum(dtype=np.float64))


def _stacked(pieces: list[QuantTensor], shape: tuple[int, int]) -> QuantTensor:
    zeros = [piece.zeros for piece in pieces if piece.zeros is not None]
    return QuantTensor(
        shape=shape,
        format=pieces[0].format,
        codes=np.concatenate([piece.codes for piece in pieces]),
        scales=np.concatenate([piece.scales for piece in pieces]),
        zeros=np.concatenate(zeros) if zeros else None,
    )
