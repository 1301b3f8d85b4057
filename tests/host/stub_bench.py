"""Figures in the place of a benchmark's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onhand.core.bundle import read_bundle
from onhand.core.measurement import Measurement, Unit
from onhand.core.progress import Progress

__all__ = ["VALUES", "stub_bench"]

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
