"""The small parts of a device that nobody measured: from its profile, and called estimated."""

from typing import Final

from onhand.core.profile import DeviceProfile
from onhand.core.quantized import GroupFormat
from onhand.host.costs.calibration import (
    FLOAT_BITS,
    ROWS,
    Calibration,
    ProductRate,
    Speed,
    StartCosts,
    StepCosts,
    Stream,
)
from onhand.host.costs.memory import USUAL_MEMORY

__all__ = ["estimate_calibration"]

# Products of int8 in a second and core, and of floats: what one core at 3 GHz reaches, about, of
# what its instructions allow. The first set that a processor has counts.
_RATES: Final = (
    ("amx_int8", 180e9, 30e9),
    ("avx512_vnni", 170e9, 45e9),
    ("avx_vnni", 90e9, 25e9),
    ("avx2", 45e9, 25e9),
    ("i8mm", 50e9, 12e9),
    ("asimddp", 25e9, 8e9),
    ("neon", 6e9, 6e9),
)
_SLOWEST: Final = (2e9, 2e9)
# A processor with AVX-512, at which the parts below were measured.
_REFERENCE_RATE: Final = 170e9
_STEP: Final = StepCosts(
    step_s=6e-6,
    layer_s=1e-7,
    value_s=2e-10,
    score_s=8e-11,
    pair_s=1.4e-9,
    meet_s=6e-7,
    byte_s=7e-12,
)
_PROMPT: Final = StepCosts(
    step_s=2e-5,
    layer_s=7e-7,
    value_s=5.9e-10,
    score_s=2.6e-11,
    pair_s=8.9e-10,
    meet_s=1e-6,
    byte_s=0.0,
)
_TEXT_S: Final = 8e-7
_START: Final = StartCosts(
    process_s=0.25,
    open_s=0.02,
    matrix_s=1e-4,
    hash_bytes_per_s=1.5e9,
    pack_bytes_per_s=4e9,
    token_s=2e-6,
)
_ONE_TOKEN_SHARE: Final = 0.55  # of the rate of many rows that one reaches
_BANDWIDTH_A_THREAD: Final = 8e9  # where a profile has none
_SPREAD: Final = 0.5
_DEFAULT_CACHE: Final = 2**20


def estimate_calibration(profile: DeviceProfile) -> Calibration:
    """Return what a device's parts may cost, from its profile alone.

    Bandwidth and rates are the profile's where it has them, else those of its instruction sets;
    the rest is that of a processor with AVX-512, slower as the device multiplies slower.

    Args:
        profile: of any device.

    Returns:
        The calibration, marked as estimated.
    """
    whole, floats = _core_rates(profile)
    slower = max(1.0, (_REFERENCE_RATE / whole) ** 0.5)
    return Calibration(
        device=profile.name,
        products=(*_products(whole), *_float_products(floats)),
        streams=_streams(profile),
        read_bandwidth=profile.read_bandwidth,
        step=_slowed(_STEP, slower),
        prompt=_slowed(_PROMPT, slower),
        text_s=_TEXT_S * slower,
        start=StartCosts(
            process_s=_START.process_s * slower,
            open_s=_START.open_s * slower,
            matrix_s=_START.matrix_s * slower,
            hash_bytes_per_s=_START.hash_bytes_per_s / slower,
            pack_bytes_per_s=_START.pack_bytes_per_s / slower,
            token_s=_START.token_s * slower,
        ),
        memory=USUAL_MEMORY,
        speed=Speed(product_s=0.0, step_s=0.0),
        spread=_SPREAD,
        estimated=True,
    )


def _core_rates(profile: DeviceProfile) -> tuple[float, float]:
    """Return products in a second of one core: of whole numbers, and of floats."""
    whole, floats = next(
        ((a, b) for name, a, b in _RATES if name in profile.instruction_sets), _SLOWEST
    )
    measured = {
        kind: max(
            (
                rate.rate / 2 / rate.threads
                for rate in profile.matrix_rates
                if rate.kind == kind and rate.rows >= ROWS[1]
            ),
            default=0.0,
        )
        for kind in ("int4", "fp32")
    }
    return measured["int4"] or whole, measured["fp32"] or floats


def _products(rate: float) -> tuple[ProductRate, ...]:
    forms = [
        GroupFormat(bits=bits, group_size=group, symmetric=symmetric)
        for bits in GroupFormat.BITS
        for group in GroupFormat.GROUP_SIZES
        for symmetric in (True, False)
    ]
    return tuple(
        ProductRate(
            bits=form.bits,
            group_size=form.group_size,
            symmetric=form.symmetric,
            rows=rows,
            weight_s=1 / (rate * (_ONE_TOKEN_SHARE if rows == 1 else 1.0)),
            output_s=0.0,
        )
        for form in forms
        for rows in ROWS
    )


def _float_products(rate: float) -> tuple[ProductRate, ...]:
    return tuple(
        ProductRate(
            bits=FLOAT_BITS,
            group_size=0,
            symmetric=True,
            rows=rows,
            weight_s=1 / (rate * (_ONE_TOKEN_SHARE if rows == 1 else 1.0)),
            output_s=0.0,
        )
        for rows in ROWS
    )


def _streams(profile: DeviceProfile) -> tuple[Stream, ...]:
    """Return the bandwidth of memory, and four times that of what the last cache holds."""
    cache = max((one.size_bytes for one in profile.caches), default=_DEFAULT_CACHE)
    known = profile.read_bandwidth
    found = []
    for n in range(1, max(profile.usable_threads, 1) + 1):
        memory = known[min(n, len(known)) - 1] if known else n * _BANDWIDTH_A_THREAD
        found += [
            Stream(threads=n, working_bytes=cache * 0.7, bytes_per_s=4 * memory),
            Stream(threads=n, working_bytes=cache * 2.0, bytes_per_s=memory),
        ]
    return tuple(found)


def _slowed(costs: StepCosts, by: float) -> StepCosts:
    return StepCosts(
        step_s=costs.step_s * by,
        layer_s=costs.layer_s * by,
        value_s=costs.value_s * by,
        score_s=costs.score_s * by,
        pair_s=costs.pair_s * by,
        meet_s=costs.meet_s * by,
        byte_s=costs.byte_s * by,
    )
