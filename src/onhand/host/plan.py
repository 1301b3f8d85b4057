"""What a build will give and take, said before any work: size, memory, minutes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.profile import DeviceProfile
from onhand.host.calibrate import InputStatistics
from onhand.host.costs.calibration import Calibration
from onhand.host.costs.decoders import Forecast
from onhand.host.costs.memory import USUAL_MEMORY, peak_memory_bytes
from onhand.host.costs.models import costs_of_model, other_bytes
from onhand.host.costs.sizes import variant_sizes
from onhand.host.costs.synthetic import random_model
from onhand.host.model import Model
from onhand.host.pack import VariantPlan
from onhand.host.passes.base import Pass
from onhand.host.weight_files import StoredVariant

__all__ = [
    "BuildPlan",
    "calibration_tokens",
    "make_plan",
    "matmul_rate",
    "predict_running_memory",
    "predict_sizes",
    "text_tokens",
]

# Measured on Linux, x86-64: a process with Python, numpy and ONNX Runtime before any model.
_PROCESS_BYTES = 75 * 2**20
_TOKENS_RUN = 640  # prompt and answer of a benchmark run
_SAMPLE_INPUTS = 768  # mean width of the matrices that a pass is timed on
# Operations for each weight and each input of its row: errors made good, and three sweeps.
_OPERATIONS_PER_PAIR = 18
_RUNS = 12  # processes and runs that the proof takes, in benchmark runs


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """A forecast; every figure is a prediction, sizes are exact but for a few kilobytes.

    Attributes:
        n_parameters: weights of the source.
        original_bytes: size of the source's weight files.
        size_bytes: variant -> bytes of its files on disk.
        running_memory_bytes: variant -> peak memory of a process that runs it.
        forecasts: variant -> what it costs on the device; its size is that of a bundle of its own.
        build_memory_bytes: peak memory of the build.
        build_disk_bytes: disk that the build takes besides the bundle, until it ends.
        minutes: time of the build, proof included.
        n_tokens: tokens of the calibration and held-out texts.
        notes: what the user should know.
    """

    n_parameters: int
    original_bytes: int
    size_bytes: Mapping[str, int]
    running_memory_bytes: Mapping[str, int]
    forecasts: Mapping[str, Forecast]
    build_memory_bytes: int
    build_disk_bytes: int
    minutes: float
    n_tokens: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return {
            "build_disk_bytes": self.build_disk_bytes,
            "build_memory_bytes": self.build_memory_bytes,
            "estimated": True,
            "forecasts": {name: one.to_json() for name, one in self.forecasts.items()},
            "minutes": self.minutes,
            "n_parameters": self.n_parameters,
            "n_tokens": self.n_tokens,
            "notes": list(self.notes),
            "original_bytes": self.original_bytes,
            "running_memory_bytes": dict(self.running_memory_bytes),
            "size_bytes": dict(self.size_bytes),
        }


def text_tokens(decoder: Decoder) -> int:
    """Return how many tokens calibration and proof take each: fewer for larger models.

    About half a minute of matrix products on two cores, but enough for a narrow interval.
    """
    return int(np.clip(6e12 / (2 * decoder.n_parameters), 4096, 65536))


def calibration_tokens(decoder: Decoder, plans: list[VariantPlan]) -> int:
    """Return how many tokens calibrate: more where all pairs of inputs are looked at."""
    if not any(plan.report.whole_moments for plan in plans):
        return text_tokens(decoder)
    return int(np.clip(3e13 / (2 * decoder.n_parameters), 16384, 65536))


def predict_sizes(model: Model, plans: list[VariantPlan], *, accuracy_level: int) -> dict[str, int]:
    """Return variant -> bytes of its files, from shapes alone.

    Args:
        model: the source.
        plans: the variants.
        accuracy_level: as it will be built.

    Returns:
        The sizes, without the manifest.
    """
    sizes = variant_sizes(
        model.decoder,
        {
            plan.name: (
                StoredVariant(formats=plan.report.formats, own=plan.own),
                plan.report.scale_bits,
            )
            for plan in plans
        },
        other_bytes=other_bytes(model),
        accuracy_level=accuracy_level,
    )
    return {plan.name: size for plan, size in zip(plans, sizes, strict=True)}


def predict_running_memory(decoder: Decoder, plan: VariantPlan) -> int:
    """Return the predicted peak memory of a process that runs one variant, in bytes."""
    return peak_memory_bytes(
        decoder,
        plan.report.formats,
        USUAL_MEMORY,
        tokens=min(_TOKENS_RUN, decoder.context),
        threads=1,
    )


def make_plan(
    model: Model,
    plans: list[VariantPlan],
    *,
    accuracy_level: int,
    threads: int,
    calibration_tokens: int,
    heldout_tokens: int,
    device: DeviceProfile,
    calibration: Calibration | None = None,
    notes: tuple[str, ...] = (),
) -> BuildPlan:
    """Predict a build; takes a fraction of a second of measurements on small arrays.

    Args:
        model: the source.
        plans: the variants.
        accuracy_level: as it will be built.
        threads: threads to use.
        calibration_tokens: tokens of the text that calibrates.
        heldout_tokens: tokens of the text that judges.
        device: what it is built for.
        calibration: of that device; None to estimate times from its profile.
        notes: what the user should know already.

    Returns:
        The forecast.
    """
    decoder = model.decoder
    forecasts = _forecasts(model, plans, device, calibration, threads, accuracy_level)
    n_tokens = calibration_tokens + heldout_tokens
    return BuildPlan(
        n_parameters=decoder.n_parameters,
        original_bytes=model.source_bytes,
        size_bytes=predict_sizes(model, plans, accuracy_level=accuracy_level),
        running_memory_bytes={name: int(one.peak_memory_bytes) for name, one in forecasts.items()},
        forecasts=forecasts,
        build_memory_bytes=_build_memory(decoder, plans, n_tokens, threads),
        build_disk_bytes=_build_disk(decoder, plans, n_tokens),
        minutes=_seconds(decoder, plans, calibration_tokens, heldout_tokens, threads) / 60,
        n_tokens=n_tokens,
        notes=notes,
    )


def _forecasts(
    model: Model,
    plans: list[VariantPlan],
    device: DeviceProfile,
    calibration: Calibration | None,
    threads: int,
    accuracy_level: int,
) -> dict[str, Forecast]:
    """Return variant -> what it costs on the device, with as many threads as that can use."""
    costs = costs_of_model(
        model, device, threads=threads, calibration=calibration, accuracy_level=accuracy_level
    )
    return {plan.name: costs.whole(plan.report.formats) for plan in plans}


def _build_memory(decoder: Decoder, plans: list[VariantPlan], tokens: int, threads: int) -> int:
    """Return the largest of the stages, each of which frees its memory."""
    shapes = decoder.matrices()
    layers = [
        sum(n * k for name, (n, k) in shapes.items() if name.startswith(f"layers.{i}."))
        for i in range(len(decoder.layers))
    ]
    streams = tokens * decoder.width  # both texts, float32 below
    moments = 128 * sum(k for _, k in shapes.values())
    widest = max(4 * layer.mlp_width + 3 * layer.query_width for layer in decoder.layers)
    whole = any(plan.report.whole_moments for plan in plans)
    most_inputs = max(k for _, k in shapes.values())
    if whole:
        # A layer's at a time; the rest lies on disk.
        moments = 4 * most_inputs**2
    calibrating = 4 * (max(layers) + streams + 512 * widest + moments)
    # A finished matrix, its pieces, and each thread's block with the candidates of the search.
    stored = [
        4 * n * k if form is None else form.size_bytes((n, k))
        for plan in plans
        for name, form in plan.report.formats.items()
        for n, k in [shapes[name]]
    ]
    largest = max(stored)
    rounding = 2 * largest + threads * 2**18 * 4 * 16 + 4 * (streams + moments)
    if whole:
        # The second moments are factorised in float64; and each thread's rows, column by column.
        rounding += 36 * most_inputs**2 + threads * 2**22 * 4 * 8
    running = max(predict_running_memory(decoder, plan) for plan in plans)
    proving = running + 4 * (6 * 128 * decoder.vocab_size + tokens * decoder.width)
    proving += 4 * 16384 * decoder.width
    return _PROCESS_BYTES + max(calibrating, rounding, proving)


def _build_disk(decoder: Decoder, plans: list[VariantPlan], tokens: int) -> int:
    """Return what is kept so that the build can be resumed: moments, states, matrices."""
    shapes = decoder.matrices()
    whole = any(plan.report.whole_moments for plan in plans)
    moments = sum(4 * k * (k if whole else 128) for _, k in shapes.values())
    states = 2 * 4 * tokens * decoder.width  # the last ones until the next ones are written
    matrices = sum(
        form.size_bytes(shapes[name]) * (2 if plan.report.rounds else 1)
        for plan in plans
        for name in plan.own
        if (form := plan.report.formats[name]) is not None
    )
    return moments + states + matrices


def _seconds(
    decoder: Decoder,
    plans: list[VariantPlan],
    calibration_tokens: int,
    heldout_tokens: int,
    threads: int,
) -> float:
    weights, rate = decoder.n_parameters, matmul_rate()
    tokens = calibration_tokens + heldout_tokens
    products = 2 * weights / rate  # one token through the whole model
    forward = tokens * products * 1.3
    rounding = sum(_rounding(decoder, plan, threads, rate) for plan in plans)
    if any(plan.report.whole_moments for plan in plans):
        pairs = sum(k * k for _, k in decoder.matrices().values())
        forward += 2 * calibration_tokens * pairs / rate
    # A round of training is the original, the copy, and twice the copy for its gradient.
    training = sum(plan.report.rounds for plan in plans) * calibration_tokens * products * 4.5
    judging = len(plans) * heldout_tokens * products
    # A benchmark run is a prompt, and an answer that reads every weight for every token.
    answer = _RUNS * (512 * products + 128 * (weights / 20e9 + 2e-4) + 1.0)
    return float(forward + rounding + training + judging + (len(plans) + 2) * answer)


def _rounding(decoder: Decoder, plan: VariantPlan, threads: int, rate: float) -> float:
    """Return the seconds that a pass takes for a variant's own matrices."""
    shapes = [decoder.matrices()[name] for name in plan.own if name not in plan.report.kept]
    seconds = _rounding_seconds(plan.transform, threads) * sum(n * k for n, k in shapes)
    if plan.report.whole_moments:
        # What grows with the inputs: products with the moments, and factorising these.
        seconds += sum(
            (_OPERATIONS_PER_PAIR * n * max(k - _SAMPLE_INPUTS, 0) * k + 10 * k**3) / rate
            for n, k in shapes
        )
    return seconds


def matmul_rate() -> float:
    """Measure float32 matrix products: operations per second."""
    left, right = np.ones((256, 1024), np.float32), np.ones((1024, 1024), np.float32)
    best = 1e9
    for _ in range(4):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return float(2 * left.size * right.shape[1] / best)


def _rounding_seconds(transform: Pass, threads: int) -> float:
    """Measure a pass on a small random matrix: seconds for one weight."""
    layer = DecoderLayer(n_heads=1, n_kv_heads=1, head_dim=64, mlp_width=1024)
    decoder = Decoder(
        vocab_size=64, width=512, context=64, norm_epsilon=1e-6, layers=(layer,), tied=True
    )
    sample = random_model(decoder)
    statistics = InputStatistics(n_tokens=1, whole=True)
    names = ["layers.0.down", "layers.0.gate_up"]
    for name in names:
        statistics.observe(name, np.ones((1, decoder.matrices()[name][1]), dtype=np.float32))
    start = time.perf_counter()
    for _ in transform.apply(
        sample, statistics, names=names, threads=threads, advance=lambda _: None
    ):
        pass
    n_weights = sum(int(np.prod(decoder.matrices()[name])) for name in names)
    return (time.perf_counter() - start) / n_weights
