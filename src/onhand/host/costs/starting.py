"""What a fresh process takes until its first token, and what memory: measured by small bundles."""

import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from onhand.core.profile import DeviceProfile, render_profile
from onhand.core.quantized import GroupFormat
from onhand.device.bench_child import Job
from onhand.device.measured import Events, job_text, run_measured
from onhand.host.costs.calibration import MemoryCosts, StartCosts
from onhand.host.costs.memory import running_memory
from onhand.host.costs.sizes import packed_bytes
from onhand.host.costs.synthetic import Sizes, make_bundle

__all__ = ["measure_starts"]

_PROMPT: Final = 16
_ANSWER: Final = 16
_RUNS: Final = 3
_KEPT_OF_PEAK: Final = 0.42
_BLOCK_BYTES: Final = 2**23


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    """What processes that ran one bundle showed."""

    tokens: int
    matrices: int
    load_s: float
    process_s: float
    memory_bytes: float  # beside what shapes say
    weight_bytes: float


def measure_starts(
    native: ModuleType, profile: DeviceProfile, scratch: Path, *, large: Sizes | None = None
) -> tuple[StartCosts, MemoryCosts]:
    """Measure starts of processes with small bundles that differ in one thing, and a large one.

    Args:
        native: the native part.
        profile: this device's.
        scratch: a folder for the bundles.
        large: a model whose weights take most of the time; None where there is no room for one.

    Returns:
        What starts cost, and what processes hold.

    Raises:
        EngineError: if a measuring process fails.
    """
    plain = _start(profile, Sizes(), 1024, scratch / "plain")
    worded = _start(profile, Sizes(), 32768, scratch / "worded")
    deep = _start(profile, Sizes(n_layers=24), 1024, scratch / "deep")
    more_tokens = worded.tokens - plain.tokens
    more_matrices = deep.matrices - plain.matrices
    token_s = max(0.0, worded.load_s - plain.load_s) / more_tokens
    matrix_s = max(0.0, deep.load_s - plain.load_s) / more_matrices
    token_peak = max(0.0, worded.memory_bytes - plain.memory_bytes) / more_tokens
    matrix_bytes = max(0.0, deep.memory_bytes - plain.memory_bytes) / more_matrices
    start = StartCosts(
        process_s=statistics.median([one.process_s for one in (plain, worded, deep)]),
        open_s=max(0.0, plain.load_s - plain.tokens * token_s - plain.matrices * matrix_s),
        matrix_s=matrix_s,
        hash_bytes_per_s=_hash_rate(),
        pack_bytes_per_s=_pack_rate(native),
        token_s=token_s,
    )
    if large is not None:
        whole = _start(profile, large, large.vocab_size, scratch / "large-start")
        start = _packing_as(start, whole)
    return (
        start,
        MemoryCosts(
            process_bytes=plain.memory_bytes
            - plain.tokens * token_peak
            - plain.matrices * matrix_bytes,
            token_bytes=_KEPT_OF_PEAK * token_peak,
            token_peak_bytes=token_peak,
            matrix_bytes=matrix_bytes,
        ),
    )


def _packing_as(start: StartCosts, large: _Started) -> StartCosts:
    """Return the costs with the packing that a large model shows: its pages are new as well."""
    rest_s = (
        large.load_s - start.open_s - large.tokens * start.token_s - large.matrices * start.matrix_s
    )
    rate = large.weight_bytes / max(rest_s, large.weight_bytes / start.pack_bytes_per_s)
    return replace(start, pack_bytes_per_s=rate)


def _start(profile: DeviceProfile, sizes: Sizes, tokens: int, place: Path) -> _Started:
    bundle = make_bundle(sizes, place, tokens=tokens)
    job = Job(
        work="start",
        root=str(place.absolute()),
        variant="sample",
        engine="native",
        threads=1,
        prompt=tuple(range(1, _PROMPT + 1)),
        generated_tokens=_ANSWER,
        runs=1,
        profile=render_profile(profile),
    )
    starts = [_run(job) for _ in range(_RUNS)]
    loads = [events.figures("start", "load_s")[0] for events in starts]
    spent = [events.first_s - load for events, load in zip(starts, loads, strict=True)]
    speed = _run(Job(**{**_fields(job), "work": "speed"}))
    held = running_memory(sizes.decoder, tokens=_PROMPT + _ANSWER, threads=1).bytes
    formats = bundle.manifest.variants["sample"].matrices
    matrices = sizes.decoder.matrices()
    weights = sum(packed_bytes(shape, formats[name]) for name, shape in matrices.items())
    return _Started(
        tokens=tokens,
        matrices=len(matrices),
        load_s=min(loads),  # undisturbed, as all parts are timed
        process_s=min(spent),
        memory_bytes=_peak(speed) - held - weights,
        weight_bytes=float(weights),
    )


def _fields(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in job.__slots__}


def _run(job: Job) -> Events:
    return run_measured(
        "onhand.device.bench_child",
        job_text(job),
        what="calibration: the measuring process",
        first="first-token",
    )


def _peak(events: Events) -> float:
    return events.figures("speed", "peak_memory_bytes")[0]


def _hash_rate() -> float:
    content = np.ones(_BLOCK_BYTES, dtype=np.uint8).tobytes()
    return _BLOCK_BYTES / _least_s(lambda: hashlib.sha256(content))


def _pack_rate(native: ModuleType) -> float:
    """Return the stored bytes of int4 that one thread puts into the engine's order in a second."""
    form = GroupFormat()
    n, k = 4096, 1024
    codes = np.full(form.code_shape((n, k)), 0x5A, dtype=np.uint8)
    scales = np.full((n, form.n_groups(k)), 0.01, dtype=np.float16).view(np.uint16)

    def pack() -> object:
        return native.Matrix(form.bits, form.group_size, n, k, codes, scales, None, threads=1)

    return form.size_bytes((n, k)) / _least_s(pack)


def _least_s(do: Callable[[], object]) -> float:
    spent = []
    for _ in range(_RUNS):
        begun = time.perf_counter()
        do()
        spent.append(time.perf_counter() - begun)
    return min(spent)
