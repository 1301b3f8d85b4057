"""A made-up device, for tests of what forecasts make of its parts."""

from dataclasses import replace

from onhand.core.profile import DeviceProfile
from onhand.core.profile_parts import CacheLevel
from onhand.core.quantized import GroupFormat
from onhand.host.costs.calibration import (
    Calibration,
    MemoryCosts,
    ProductRate,
    Speed,
    StartCosts,
    StepCosts,
    Stream,
)

__all__ = ["CALIBRATION", "FORMS", "PROFILE"]

FORMS = [
    GroupFormat(bits=bits, group_size=group, symmetric=symmetric)
    for bits in GroupFormat.BITS
    for group in GroupFormat.GROUP_SIZES
    for symmetric in (True, False)
]
PROFILE = DeviceProfile(
    name="board",
    system="linux",
    machine="x86_64",
    processor="made up",
    physical_cores=2,
    usable_threads=2,
    instruction_sets=("avx2",),
    memory_bytes=2**32,
    read_bandwidth=(8e9, 10e9),
    watts=10.0,
    watts_source="made up",
    caches=(CacheLevel(level=2, size_bytes=2**20),),
)
_PARTS = StepCosts(
    step_s=1e-5,
    layer_s=1e-6,
    value_s=1e-9,
    score_s=1e-10,
    pair_s=1e-9,
    meet_s=1e-6,
    byte_s=1e-11,
)
_CODED = tuple(
    ProductRate(
        bits=form.bits,
        group_size=form.group_size,
        symmetric=form.symmetric,
        rows=rows,
        weight_s=2e-11 if rows == 1 else 1e-11,
        output_s=0.0,
    )
    for form in FORMS
    for rows in (1, 256)
)
_FLOATS = ProductRate(bits=32, group_size=0, symmetric=True, rows=1, weight_s=1e-10, output_s=0.0)
CALIBRATION = Calibration(
    device="board",
    products=(*_CODED, _FLOATS),
    streams=(
        Stream(threads=1, working_bytes=2**20, bytes_per_s=80e9),
        Stream(threads=1, working_bytes=2**24, bytes_per_s=8e9),
        Stream(threads=2, working_bytes=2**20, bytes_per_s=160e9),
        Stream(threads=2, working_bytes=2**24, bytes_per_s=10e9),
    ),
    read_bandwidth=(8e9, 10e9),
    step=_PARTS,
    prompt=replace(_PARTS, step_s=2e-5),
    text_s=1e-6,
    start=StartCosts(
        process_s=0.5,
        open_s=0.1,
        matrix_s=1e-3,
        hash_bytes_per_s=1e9,
        pack_bytes_per_s=2e9,
        token_s=1e-6,
    ),
    memory=MemoryCosts(
        process_bytes=5e7, token_bytes=300.0, token_peak_bytes=700.0, matrix_bytes=100.0
    ),
    speed=Speed(product_s=2e-6, step_s=1e-5),
    spread=0.1,
    estimated=False,
)
