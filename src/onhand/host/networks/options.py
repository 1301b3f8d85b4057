"""What a build of a network is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from onhand.core.budget import Budget
from onhand.core.errors import InputError
from onhand.core.network import TASKS
from onhand.core.profile import DeviceProfile
from onhand.host.learning.wanted import Learnable
from onhand.host.networks.steps import Step

__all__ = ["LIMITS", "NetworkOptions"]

LIMITS: Final = ("disk", "ram", "loss", "latency", "load", "cold-start")
"""Keys of a budget that are measured of a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Everything but the source and the place of the bundle.

    Attributes:
        task: one of `onhand.core.network.TASKS`.
        variants: variant name -> its steps, none for the network as it is; the first is the
            default variant.
        data: examples; see `onhand.host.networks.data.read_data`. None for none: then nothing is
            calibrated, and nothing judged.
        heldout: examples that judge, and no step sees; None for those of `data` that are not
            drawn for calibration.
        feed: how inputs are made, over what the source says.
        labels: a file with the names of the classes, over the source's.
        n_calibration: examples that steps may see; the others judge.
        budget: limits on the default variant.
        device: the device built for; None for this machine.
        engine: that measures and judges; None for the fastest.
        accept_estimates: whether an estimated figure may satisfy a limit.
        threads: threads to use; None for all usable ones.
        measure_original: whether to measure the original's speed and memory as well.
        try_ways: whether to try plainer ways of running the bundle, for the evaluations.
        ablate: whether to build without each technique too, and say what each brought.
        resume: whether to go on with an interrupted build of the same bundle.
        learnable: what the default variant should be able to learn on a device; None for nothing.
        merged: what of another bundle goes into this one, for its provenance; empty for nothing.
    """

    task: str
    variants: Mapping[str, tuple[Step, ...]]
    data: Path | None = None
    heldout: Path | None = None
    feed: str | None = None
    labels: Path | None = None
    n_calibration: int = 100
    budget: Budget = field(default_factory=Budget)
    device: DeviceProfile | None = None
    engine: str | None = None
    accept_estimates: bool = False
    threads: int | None = None
    measure_original: bool = True
    try_ways: bool = True
    ablate: bool = False
    resume: bool = False
    learnable: Learnable | None = None
    merged: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"task is {self.task!r}, must be one of {', '.join(TASKS)}")
        if not self.variants:
            raise InputError("a build needs at least one variant")
        if self.heldout is not None and self.data is None:
            raise InputError("held-out examples judge what others made: give those as --data")
        places = {path.resolve() for path in (self.data, self.heldout) if path is not None}
        if self.heldout is not None and len(places) == 1:
            raise InputError(f"{self.heldout}: held-out examples must not be those of --data")
        limits = self.budget.limits()
        if odd := [key for key in limits if key not in LIMITS]:
            raise InputError(
                f"budget: {odd[0]!r} is for language models; a network has {', '.join(LIMITS)}"
            )
        if "loss" in limits and self.data is None:
            raise InputError("budget: 'loss' is judged on examples: give them as --data")
        if self.n_calibration < 1:
            raise InputError(f"{self.n_calibration} calibration examples: must be 1 or more")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}, must be 1 or more")
