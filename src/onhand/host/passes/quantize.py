"""Weights as small integers, one scale for each group of inputs."""

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.host.calibrate import InputStatistics
from onhand.host.gptq import order_columns, round_columns
from onhand.host.hqq import round_half_quadratic
from onhand.host.model import Model
from onhand.host.passes.base import Matrix, MatrixLoss, PassReport
from onhand.host.rounding import Rounding, round_matrix
from onhand.host.scale_tables import SCALE_BITS, few_scales
from onhand.host.sparsify import Repair, Share, prune_rows

__all__ = [
    "LAYER_METHODS",
    "METHODS",
    "PRESETS",
    "WHOLE_BITS",
    "LayerTable",
    "Quantize",
    "check_layers",
]

METHODS = ("rtn", "hqq", "clip", "awq", "gptq", "awq+gptq")

LAYER_METHODS = tuple(method for method in METHODS if not method.startswith("awq"))
"""Those that a single matrix may have: the others scale inputs that several matrices share."""

LayerTable = Mapping[str, Mapping[str, int | bool | float | str]]
"""Pattern of names -> what is different of the matrices that fit."""

PRESETS: Mapping[str, tuple[str, int]] = {
    "fast": ("clip", 0),
    "good": ("gptq", 0),
    "best": ("gptq", 8),
}
"""Name -> method, and how often the scales are trained: minutes; more minutes; and hours for a
model of half a billion weights."""

WHOLE_BITS = 32
"""Bits of a matrix that stays as it is."""

_OF_FORMAT: Mapping[str, tuple[int | str, ...]] = {
    "bits": (*GroupFormat.BITS, WHOLE_BITS),
    "group_size": GroupFormat.GROUP_SIZES,
    "method": LAYER_METHODS,
    "symmetric": (True, False),
}
_ZEROS = "zeros"

# Weights rounded at once by one thread: its working set stays near the cache.
_BLOCK_WEIGHTS = 2**18
_MOST_ROUNDS = 1000
# Column by column there is little work for each: more rows at once.
_COLUMN_BLOCK_WEIGHTS = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize:
    """Store weight matrices as small integers, one scale for each group of inputs. See `Pass`.

    Attributes:
        bits: width of one code: 2, 3, 4 or 8.
        group_size: inputs that share one scale: 32, 64 or 128.
        symmetric: one fixed zero point and the full range; False stores a zero point per group.
        method: "rtn" rounds to nearest; "hqq" fits scales or zero points to the weights alone;
            "clip" searches scales and codes group by group by the error of the outputs; "gptq"
            takes the columns one by one, later ones making good for earlier ones; "awq" scales
            the inputs first, then rounds as "clip" does; "awq+gptq" scales, then as "gptq".
        embed_bits: bits of the embedding, learned positions and the head; 0 for the same as `bits`.
        layers: another format for some matrices: a pattern of names, in which * stands for
            anything, as in "layers.*.down", -> any of bits, group_size, symmetric, method, and
            zeros, the share of each row that becomes zero before it is rounded; 32 bits leave a
            matrix in float32. The first pattern that fits counts.
        distil: how often the scales are trained on the calibration text, so that the model says
            what the original says; 0 leaves them.
        scale_bits: 16, or 8: the scales of a matrix of at most 4 bits take 256 values at most, and
            a byte each in the bundle; engines see them in float16.
    """

    name: ClassVar[str] = "quantize"

    bits: int = 4
    group_size: int = 32
    symmetric: bool = True
    method: str = "clip"
    embed_bits: int = 0
    layers: LayerTable = field(default_factory=dict, hash=False)
    distil: int = 0
    scale_bits: int = 16

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}, must be one of {', '.join(METHODS)}")
        GroupFormat(bits=self.bits, group_size=self.group_size, symmetric=self.symmetric)
        GroupFormat(bits=self.embed_bits or self.bits)
        if not 0 <= self.distil <= _MOST_ROUNDS:
            raise InputError(f"distil is {self.distil}, must be 0 to {_MOST_ROUNDS}")
        if self.scale_bits not in SCALE_BITS:
            raise InputError(f"scale_bits is {self.scale_bits}, must be one of {SCALE_BITS}")
        check_layers(self.layers)

    def plan(self, decoder: Decoder) -> PassReport:
        """Say what `apply` would change, from shapes alone.

        Raises:
            InputError: if a pattern of `layers` fits no matrix.
        """
        names = list(decoder.matrices())
        for pattern in self.layers:
            if not fnmatch.filter(names, pattern):
                raise InputError(
                    f"layers: no matrix is called {pattern!r}; they are called "
                    f"{', '.join(_kinds(names))}"
                )
        formats = {name: self._format(name) for name in names}
        kept = dict.fromkeys(decoder.vectors(), "a norm or bias: float32, too small to matter")
        whole = "float32, as was asked for"
        coded = [name for name in names if formats[name] is not None]
        methods = {name: self._method(name) for name in coded}
        zeros = {name: self._zeros(name) for name in coded}
        return PassReport(
            formats=formats,
            kept=kept | {name: whole for name, form in formats.items() if form is None},
            rounding=f"{self.method} {self.distil}{self._scales}",
            roundings={
                name: f"{methods[name]} {zeros[name]}{self._scales}"
                for name in coded
                if methods[name] != self.method or zeros[name]
            },
            needs_calibration=not {*methods.values(), self.method} <= {"rtn", "hqq"}
            or self.distil > 0
            or any(zeros.values()),
            whole_moments=any(map(_by_columns, {*methods.values(), self.method}))
            or self._scales_inputs
            or any(zeros.values()),
            scales_inputs=self._scales_inputs,
            rounds=self.distil,
            scale_bits=self.scale_bits,
        )

    @property
    def _scales(self) -> str:
        return "" if self.scale_bits == max(SCALE_BITS) else f" scales {self.scale_bits}"

    @property
    def _scales_inputs(self) -> bool:
        return self.method.startswith("awq")

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

        Raises:
            InputError: if one of them stays in float32.
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
        if form is None:
            raise InputError(f"{name}: stays in float32, there is nothing to round")
        rounded_by = self._rounder(name, form, statistics, decoder)
        if zeros := self._zeros(name):
            rounded_by = _with_zeros(rounded_by, zeros, statistics.second_moments(name))
        by_columns = _by_columns(self._method(name))
        step = max((_COLUMN_BLOCK_WEIGHTS if by_columns else _BLOCK_WEIGHTS) // k, 1)

        def work(low: int) -> tuple[Rounding, float, float]:
            block = model.weights.block(name, low, min(low + step, n))
            rounded = rounded_by(block)
            return rounded, *_plain_error(block, rounded.tensor)

        pieces: list[QuantTensor] = []
        sums = np.zeros(4)
        for low, (rounded, error, norm) in zip(
            range(0, n, step), pool.map(work, range(0, n, step)), strict=True
        ):
            pieces.append(rounded.tensor)
            sums += (error, norm, rounded.squared_error, rounded.squared_norm)
            advance(min(step, n - low) * k)
        tensor = QuantTensor.stack(pieces)
        if self.scale_bits != max(SCALE_BITS):
            whole, tensor = tensor, few_scales(tensor)
            # What this adds has nothing to do with how the inputs hang together.
            sums[0::2] += _moved(whole, tensor) * sums[1::2] / max(sums[1], 1e-300)
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

    def _rounder(
        self, name: str, form: GroupFormat, statistics: InputStatistics, decoder: Decoder
    ) -> Callable[[FloatArray], Rounding]:
        """Return what rounds a block of rows of a matrix."""
        own = self._method(name)
        if own == "hqq":
            return lambda block: round_half_quadratic(block, form)
        if _by_columns(own) and (whole := statistics.second_moments(name)) is not None:
            if name == "embed":
                whole = _looked_up_too(whole)
            columns = order_columns(whole, form)
            return lambda block: round_columns(block, form, columns)
        method = "rtn" if own == "rtn" else "clip"
        moments = statistics.moments(name, form.group_size, decoder.matrices()[name][1])
        return lambda block: round_matrix(block, form, method=method, moments=moments)

    def _format(self, name: str) -> GroupFormat | None:
        edge = name.partition(".")[0] in {"embed", "head", "positions"}
        usual: dict[str, int | bool | float | str] = {
            "bits": self.embed_bits if edge and self.embed_bits else self.bits,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
        }
        usual |= self._own(name)
        if usual["bits"] == WHOLE_BITS:
            return None
        return GroupFormat(
            bits=int(usual["bits"]),
            group_size=int(usual["group_size"]),
            symmetric=bool(usual["symmetric"]),
        )

    def _own(self, name: str) -> Mapping[str, int | bool | float | str]:
        """Return what is different of a matrix."""
        fitting = (own for at, own in self.layers.items() if fnmatch.fnmatchcase(name, at))
        return next(fitting, {})

    def _method(self, name: str) -> str:
        return str(self._own(name).get("method", self.method))

    def _zeros(self, name: str) -> float:
        return float(self._own(name).get(_ZEROS, 0.0))


def check_layers(layers: object) -> None:
    """Check a table of formats for some matrices, see `Quantize`.

    Args:
        layers: pattern of names -> a table.

    Raises:
        InputError: if it is no such table, or a value is out of range.
    """
    like = 'must be like { "layers.*.down" = { bits = 8 } }'
    if not isinstance(layers, Mapping):
        raise InputError(f"layers is {layers!r}, {like}")
    for pattern, table in layers.items():
        if not isinstance(table, Mapping) or not table:
            raise InputError(f"layers: {pattern!r} is {table!r}, {like}")
        known = {*_OF_FORMAT, _ZEROS}
        if odd := sorted(set(table) - known):
            raise InputError(
                f"layers: {pattern!r} has {odd[0]!r}; known: {', '.join(sorted(known))}"
            )
        for key, value in table.items():
            if key == _ZEROS:
                if type(value) not in {int, float} or not 0 <= value < 1:
                    raise InputError(
                        f"layers: zeros of {pattern!r} is {value!r}, must be a share from 0 to "
                        "below 1"
                    )
                continue
            if type(value) is not type(_OF_FORMAT[key][0]) or value not in _OF_FORMAT[key]:
                allowed = ", ".join(str(one).lower() for one in _OF_FORMAT[key])
                raise InputError(
                    f"layers: {key} of {pattern!r} is {value!r}, must be one of {allowed}"
                )


def _looked_up_too(moments: FloatArray) -> FloatArray:
    """Weigh the errors of a tied embedding's products, and those of its rows as they are looked up.

    Both count alike. A row that is only looked up has no inputs: all its columns weigh the same.
    """
    mean = np.trace(moments, dtype=np.float64) / len(moments)
    both: FloatArray = moments + np.float32(mean) * np.eye(len(moments), dtype=np.float32)
    return both


def _by_columns(method: str) -> bool:
    return method.endswith("gptq")


def _with_zeros(
    rounded_by: Callable[[FloatArray], Rounding], zeros: float, whole: FloatArray | None
) -> Callable[[FloatArray], Rounding]:
    """Return what makes the weights of a block that matter least zero, and rounds the others.

    The error is that of both together, by all second moments of the inputs; without them, of the
    weights.
    """
    share = Share(zeros)
    repair = None if whole is None else Repair.of(whole)

    def made(block: FloatArray) -> Rounding:
        method = "magnitude" if whole is None else "sparsegpt"
        pruned = prune_rows(block, share, method=method, moments=whole, repair=repair)
        rounded = rounded_by(pruned)
        difference = block - rounded.tensor.dequantize()
        return replace(
            rounded,
            squared_error=_energy(difference, whole),
            squared_norm=_energy(block, whole),
        )

    return made


def _energy(rows: FloatArray, whole: FloatArray | None) -> float:
    """Return the sum of x H x over rows."""
    turned = rows if whole is None else rows @ whole
    return max(float(np.einsum("nk,nk->", turned, rows, dtype=np.float64)), 0.0)


def _kinds(names: Sequence[str]) -> list[str]:
    """Return matrix names, those of all layers as one."""
    return list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))


def _moved(before: QuantTensor, after: QuantTensor) -> float:
    """Return the sum of squares by which weights differ whose scales alone do."""
    steps = before.scales.astype(np.float64) - after.scales  # (N, G)
    total, n_rows = 0.0, max(_BLOCK_WEIGHTS // max(before.shape[1], 1), 1)
    for low in range(0, before.shape[0], n_rows):
        codes, zeros = before.take(np.arange(low, min(low + n_rows, before.shape[0]))).unpack()
        energy = np.square(codes.astype(np.float32) - zeros[:, :, None]).sum(axis=2)  # (n, G)
        total += float((energy * np.square(steps[low : low + n_rows])).sum())
    return total


def _plain_error(block: FloatArray, tensor: QuantTensor) -> tuple[float, float]:
    difference = tensor.dequantize() - block
    error = float(np.square(difference).sum(dtype=np.float64))
    return error, float(np.square(block).sum(dtype=np.float64))
