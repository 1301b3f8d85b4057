"""The cost model of a source: its shapes, its other files, and its own tokenizer."""

from onhand.core.profile import DeviceProfile
from onhand.device.bench_child import TOKENIZER
from onhand.host.costs.calibration import Calibration
from onhand.host.costs.decoders import DecoderCosts
from onhand.host.costs.text import text_ratio
from onhand.host.model import Model

__all__ = ["costs_of_model", "other_bytes"]


def costs_of_model(
    model: Model,
    device: DeviceProfile,
    *,
    threads: int,
    calibration: Calibration | None,
    accuracy_level: int = 4,
) -> DecoderCosts:
    """Return what a model's choices cost on a device.

    Args:
        model: the source; its tokenizer is opened and timed, in a fraction of a second.
        device: what it is built for.
        threads: of a step; no more than the device can use.
        calibration: of the device; None to estimate times from its profile.
        accuracy_level: as it will be built.
    """
    tokenizer = model.files.get(TOKENIZER)
    return DecoderCosts(
        model.decoder,
        device,
        other_bytes=other_bytes(model),
        threads=min(threads, device.usable_threads),
        calibration=calibration,
        text_ratio=1.0 if tokenizer is None else text_ratio(tokenizer),
        accuracy_level=accuracy_level,
    )


def other_bytes(model: Model) -> int:
    """Return the bytes of a bundle's files beside weights and graph; its manifest is not counted.

    Args:
        model: the source.
    """
    return sum(len(content) for content in model.files.values())
