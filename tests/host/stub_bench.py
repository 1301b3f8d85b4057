"""Figures in the place of a benchmark's, and of trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onhand.core.bundle import read_bundle
from onhand.core.measurement import Measurement, Unit
from onhand.core.progress import Progress
from onhand.device.context_speed import ContextSpeed
from onhand.device.memory_series import MemorySeries
from onhand.device.networks.trials import NetworkTrial
from onhand.device.trials import Trial

__all__ = ["VALUES", "stub_bench", "stub_network_way", "stub_way"]

VALUES: Mapping[str, tuple[float, Unit]] = {
    "load_s": (0.01, "s"),
    "cold_start_s": (0.3, "s"),
    "time_to_first_token_s": (0.02, "s"),
    "prefill_tokens_per_s": (1000.0, "1/s"),
    "decode_tokens_per_s": (100.0, "1/s"),
    "peak_memory_bytes": (8e7, "byte"),
    "energy_j_per_token": (0.05, "joule"),
    "read_bandwidth": (1e10, "byte/s"),
}


def stub_bench(
    values: Mapping[str, tuple[float, Unit]],
    root: Path,
    *,
    variant: str,
    progress: Progress,
    **_: Any,
) -> dict[str, Measurement]:
    """Return the values as measurements, and the size as it is. See `onhand.device.bench`."""
    bundle = read_bundle(root)
    progress.start("measuring", 1)
    progress.advance(1)
    given = {**values, "size_bytes": (float(bundle.size_bytes(variant)), "byte")}
    return {
        name: Measurement(
            name=name,
            value=value,
            unit=unit,
            samples=1,
            spread=0.0,
            how="a test",
            estimated=name == "energy_j_per_token",
        )
        for name, (value, unit) in given.items()
    }


_MEMORY = MemorySeries(points=((0.1, 10**7), (0.2, 2 * 10**7)), phases=(("opening", 0.0),), how="x")


def _figure(name: str, value: float, unit: Unit) -> Measurement:
    return Measurement(name=name, value=value, unit=unit, samples=1, spread=0.0, how="a test")


def stub_way(root: Path, *, engine: str, threads: int, **_: Any) -> Trial:
    """Return the same figures for every way. See `onhand.device.trials.try_way`."""
    names = ("cold_first_token_s", "warm_first_token_s", "cold_answer_s", "warm_answer_s")
    figures = {name: _figure(name, 0.02, "s") for name in names}
    figures["answer_energy_j"] = _figure("answer_energy_j", 0.1, "joule")
    return Trial(
        engine=engine,
        threads=threads,
        figures=figures,
        contexts=(
            ContextSpeed(
                tokens=16,
                time_to_first_token_s=_figure("time_to_first_token_s", 0.02, "s"),
                decode_tokens_per_s=_figure("decode_tokens_per_s", 100.0, "1/s"),
            ),
        ),
        memory=_MEMORY,
    )


def stub_network_way(root: Path, **_: Any) -> NetworkTrial:
    """Return the same figures for every way. See `try_network_way`."""
    figures = {
        "latency_s": _figure("latency_s", 1e-3, "s"),
        "energy_j_per_run": _figure("energy_j_per_run", 0.01, "joule"),
    }
    return NetworkTrial(figures=figures, memory=_MEMORY)
