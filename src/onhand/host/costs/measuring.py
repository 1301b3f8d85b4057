"""Micro-measurements on this device: products, memory, steps of small models, fresh processes."""

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress, Quiet
from onhand.core.quantized import GroupFormat
from onhand.device.hardware.native_part import native_part
from onhand.device.hardware.rates import Shape, measure_rates
from onhand.device.probe import sample_read_bandwidth
from onhand.device.text import open_tokenizer
from onhand.host.costs.answers import large_ratios, measure_answers
from onhand.host.costs.calibration import (
    FLOAT_BITS,
    ROWS,
    Calibration,
    MemoryCosts,
    ProductRate,
    Speed,
    StartCosts,
    StepCosts,
    Stream,
)
from onhand.host.costs.fitting import fit_step_costs
from onhand.host.costs.speed import SpeedGauge
from onhand.host.costs.starting import measure_starts
from onhand.host.costs.synthetic import Sizes, made_tokenizer
from onhand.host.costs.text import text_seconds

__all__ = ["measure_calibration", "measure_products", "measure_streams"]

_WEIGHTS: Final = 2**18  # of a timed product: few enough for a second cache in any format
_INPUTS: Final = (128, 1024)
_PRODUCT_S: Final = 0.002
_ROUNDS: Final = 3  # through all products: whatever slowed the device once is gone in another
_USUAL_SPEEDS: Final = 9
_STREAM_S: Final = 0.12
_STREAM_BYTES: Final = tuple(2**n for n in (18, 20, 21, 22, 23, 24, 25, 26, 27))
_BANDWIDTH_BYTES: Final = 2**27
# Beyond any cache: matrices one after the other are not read as one that is timed alone.
_LARGE: Final = Sizes(
    width=640, mlp_width=2048, n_layers=24, n_heads=10, n_kv_heads=5, head_dim=64, vocab_size=4096
)
_LARGE_DEVICE_BYTES: Final = 2**31
_PLAIN_TOKENS: Final = 1024
_NOTHING: Final = StepCosts(
    step_s=0.0, layer_s=0.0, value_s=0.0, score_s=0.0, pair_s=0.0, meet_s=0.0, byte_s=0.0
)
_NO_START: Final = StartCosts(
    process_s=0.0,
    open_s=0.0,
    matrix_s=0.0,
    hash_bytes_per_s=1.0,
    pack_bytes_per_s=1.0,
    token_s=0.0,
)
_NO_MEMORY: Final = MemoryCosts(
    process_bytes=0.0, token_bytes=0.0, token_peak_bytes=0.0, matrix_bytes=0.0
)


def measure_products(native: ModuleType) -> tuple[ProductRate, ...]:
    """Time products of one thread in every format, with all `ROWS`, undisturbed.

    Args:
        native: the native part.

    Returns:
        What a weight and an output cost for a row.
    """
    forms = [
        GroupFormat(bits=bits, group_size=group, symmetric=symmetric)
        for bits in GroupFormat.BITS
        for group in GroupFormat.GROUP_SIZES
        for symmetric in (True, False)
    ]
    matrices = {
        (form, k): _matrix(native, form, _WEIGHTS // k, k, threads=1)
        for form in forms
        for k in _INPUTS
    }
    best: dict[tuple[GroupFormat, int, int], float] = {}
    for _ in range(_ROUNDS):
        for (form, k), matrix in matrices.items():
            for rows in ROWS:
                seconds = _product_s(matrix, rows) / rows
                best[form, k, rows] = min(seconds, best.get((form, k, rows), seconds))
    return tuple(_product_rate(best, form, rows) for form in forms for rows in ROWS)


def _product_rate(
    best: Mapping[tuple[GroupFormat, int, int], float], form: GroupFormat, rows: int
) -> ProductRate:
    few, many = _INPUTS
    # What few inputs cost more than many is what an output costs at all.
    short_s, long_s = best[form, few, rows], best[form, many, rows]
    output_s = max(0.0, short_s - long_s) / (_WEIGHTS // few - _WEIGHTS // many)
    weight_s = (long_s - output_s * (_WEIGHTS // many)) / _WEIGHTS
    return ProductRate(
        bits=form.bits,
        group_size=form.group_size,
        symmetric=form.symmetric,
        rows=rows,
        weight_s=max(weight_s, long_s / _WEIGHTS / 2),
        output_s=output_s,
    )


def _matrix(native: ModuleType, form: GroupFormat, n: int, k: int, *, threads: int) -> object:
    codes = np.full(n * form.n_groups(k) * form.group_size * form.bits // 8, 0x5A, dtype=np.uint8)
    scales = np.full((n, form.n_groups(k)), 0.01, dtype=np.float16).view(np.uint16)
    zeros = None if form.symmetric else np.zeros(form.zero_shape((n, k)), dtype=np.uint8)
    return native.Matrix(form.bits, form.group_size, n, k, codes, scales, zeros, threads=threads)


def _product_s(matrix: object, rows: int) -> float:
    return _usual_s(matrix, rows=rows, threads=1, for_s=_PRODUCT_S)


def _usual_s(matrix: object, *, rows: int, threads: int, for_s: float) -> float:
    """Return the seconds that a product usually takes."""
    first = min(matrix.time_products(rows, threads, 3))  # type: ignore[attr-defined]
    runs = int(np.clip(for_s / first, 5, 400))
    samples: list[float] = matrix.time_products(rows, threads, runs)  # type: ignore[attr-defined]
    return statistics.median(samples)


def measure_streams(
    native: ModuleType, threads: Sequence[int], *, most_bytes: int, own_bytes: int
) -> tuple[Stream, ...]:
    """Time reading weights by how many there are.

    Args:
        native: the native part.
        threads: numbers of threads; 1 comes first.
        most_bytes: at most.
        own_bytes: of the caches that no two cores share: what fits them is read by each thread as
            if it were alone.

    Returns:
        By threads, then by bytes.
    """
    # Codes of a byte are multiplied as they are: the least work for what is read.
    form = GroupFormat(bits=8, group_size=128)
    found: list[Stream] = []
    for n in threads:
        alone = [one for one in found if one.threads == 1]
        fits = [one for one in alone if n > 1 and one.working_bytes <= own_bytes]
        found += [
            Stream(
                threads=n,
                working_bytes=n * one.working_bytes,
                bytes_per_s=n * one.bytes_per_s,
            )
            for one in fits
        ]
        least = n * own_bytes if fits else 0
        for size in (size for size in _STREAM_BYTES if least < size <= most_bytes):
            rows = max(16, size // (1024 + 16) // 16 * 16)
            matrix = _matrix(native, form, rows, 1024, threads=n)
            seconds = _usual_s(matrix, rows=1, threads=n, for_s=_STREAM_S)
            n_bytes = float(matrix.n_bytes)  # type: ignore[attr-defined]
            found.append(Stream(threads=n, working_bytes=n_bytes, bytes_per_s=n_bytes / seconds))
    return tuple(undisturbed(found))


def undisturbed(streams: Sequence[Stream]) -> list[Stream]:
    """Return streams of which none that reads less is slower: disturbances only slow.

    Args:
        streams: by threads, then by bytes.
    """
    made: list[Stream] = []
    for one in reversed(streams):
        last = made[-1] if made and made[-1].threads == one.threads else one
        made.append(replace(one, bytes_per_s=max(one.bytes_per_s, last.bytes_per_s)))
    return made[::-1]


def own_cache_bytes(profile: DeviceProfile) -> int:
    """Return the bytes of a core's largest cache that it shares with no other core."""
    return max((one.size_bytes for one in profile.caches if one.shared_by == 1), default=2**19)


def measure_calibration(profile: DeviceProfile, *, progress: Progress | None = None) -> Calibration:
    """Measure this device's parts, in about half a minute.

    Args:
        profile: this device's.
        progress: told how far it is.

    Returns:
        The calibration.

    Raises:
        EngineUnavailable: if there is no native part.
        EngineError: if a measuring process fails.
    """
    module = native_part()
    shown = progress or Quiet()
    shown.start("measuring what parts of a step cost", 4)
    threads = profile.usable_threads
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < threads] + [threads]
    bare = _measure_parts(module, profile, counts)
    shown.advance(2)
    with tempfile.TemporaryDirectory(prefix="onhand-calibration-") as scratch:
        gauge = SpeedGauge(module, Path(scratch))
        bare = replace(bare, speed=gauge.best(_ROUNDS))
        steps, prompts = measure_answers(bare, Path(scratch), sorted({1, threads}))
        step, step_spread = fit_step_costs(steps)
        usual = gauge.usual(_USUAL_SPEEDS)
        large = _LARGE if profile.memory_bytes >= _LARGE_DEVICE_BYTES else None
        if large is not None:
            known = replace(bare, step=step).at_speed(usual)
            bare = bare.at_memory(large_ratios(known, large, Path(scratch), counts))
        shown.advance(1)
        start, memory = measure_starts(module, profile, Path(scratch), large=large)
        shown.advance(1)
        gauge.close()
    prompt, prompt_spread = fit_step_costs(prompts)
    made = replace(
        bare,
        step=step,
        prompt=prompt,
        start=start,
        memory=memory,
        spread=max(step_spread, prompt_spread),
    )
    # Parts were timed undisturbed; forecasts are of what is usual here.
    return made.at_speed(usual)


def _measure_parts(
    module: ModuleType, profile: DeviceProfile, counts: Sequence[int]
) -> Calibration:
    """Measure products and memory, of which steps are made."""
    most = max(2**20, profile.memory_bytes // 32)
    threads = profile.usable_threads
    products = (*measure_products(module), *_float_rates())
    # Memory's speed may change by the minute: what is compared is measured together.
    buffer = min(most, _BANDWIDTH_BYTES)
    before = [sample_read_bandwidth(n, buffer_bytes=buffer) for n in range(1, threads + 1)]
    streams = measure_streams(module, counts, most_bytes=most, own_bytes=own_cache_bytes(profile))
    after = [sample_read_bandwidth(n, buffer_bytes=buffer) for n in range(1, threads + 1)]
    return Calibration(
        device=profile.name,
        products=products,
        streams=streams,
        read_bandwidth=tuple(
            statistics.median([*first, *then]) for first, then in zip(before, after, strict=True)
        ),
        step=_NOTHING,
        prompt=_NOTHING,
        text_s=text_seconds(open_tokenizer(made_tokenizer(_PLAIN_TOKENS))),
        start=_NO_START,
        memory=_NO_MEMORY,
        speed=Speed(product_s=0.0, step_s=0.0),
        spread=0.0,
        estimated=False,
    )


def _float_rates() -> Iterator[ProductRate]:
    """Yield the rates of floats in ONNX Runtime, of one thread as far as they can be told."""
    shapes = [Shape(rows, 512, 512) for rows in ROWS]
    for rate in measure_rates(1, shapes=shapes, kinds=("fp32",)):
        yield ProductRate(
            bits=FLOAT_BITS,
            group_size=0,
            symmetric=True,
            rows=rate.rows,
            weight_s=2 / rate.rate,
            output_s=0.0,
        )
