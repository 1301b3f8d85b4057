"""What a build is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from onhand.core.budget import Budget
from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile

if TYPE_CHECKING:
    from onhand.host.learning.wanted import Learnable
    from onhand.host.passes.base import Pass, ShapingStep
    from onhand.host.search.choices import SearchSpace

__all__ = ["ACCURACY_LEVELS", "MOST_VARIANTS", "BuildOptions"]

ACCURACY_LEVELS = (0, 1, 4)
MOST_VARIANTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Everything but the source and the place of the bundle.

    Attributes:
        transforms: variant name -> its pass; the first is the default variant.
        shaping: steps that change the model before its matrices are stored, in order.
        keep_codes: whether a source that is quantised already is stored as it is, in one variant
            "as-is", in place of `transforms`; see `choose_transforms`.
        budget: limits on the default variant.
        device: the device built for; None for this machine.
        calibrate: a text; its beginning calibrates, its end is held out. None takes the
            built-in sample, and says so.
        max_ram: memory ceiling of the build, in bytes; None for the machine's memory.
        accept_estimates: whether an estimated figure may satisfy a limit.
        accuracy_level: MatMulNBits setting: 4 multiplies in int8, 0 in float32.
        threads: threads to use; None for all usable ones.
        measure_original: whether to measure the original's speed and memory as well.
        try_ways: whether to try plainer ways of running the bundle, for the evaluations.
        ablate: whether to build without each technique too, and say what each brought.
        resume: whether to go on with an interrupted build of the same bundle.
        adapter: a LoRA adapter in PEFT's layout, merged into the source first; None for none.
        search: what a search for the best format of each matrix may choose from, in place of
            `transforms`; None for no search.
        n_variants: points of the front that a search puts into the bundle.
        merged: what of another bundle goes into this one, for its provenance; empty for nothing.
        learnable: what the default variant should be able to learn on a device; None for nothing.
    """

    transforms: "Mapping[str, Pass]"
    shaping: "Sequence[ShapingStep]" = ()
    keep_codes: bool = False
    budget: Budget = field(default_factory=Budget)
    device: DeviceProfile | None = None
    calibrate: Path | None = None
    max_ram: int | None = None
    accept_estimates: bool = False
    accuracy_level: int = 4
    threads: int | None = None
    measure_original: bool = True
    try_ways: bool = True
    ablate: bool = False
    resume: bool = False
    adapter: Path | None = None
    search: "SearchSpace | None" = None
    n_variants: int = 1
    merged: Mapping[str, object] = field(default_factory=dict)
    learnable: "Learnable | None" = None

    def __post_init__(self) -> None:
        if not self.transforms:
            raise InputError("a build needs at least one variant")
        if self.shaping and self.keep_codes:
            raise InputError("a model that is changed cannot keep its codes")
        if self.accuracy_level not in ACCURACY_LEVELS:
            raise InputError(f"accuracy level is {self.accuracy_level}, must be 0, 1 or 4")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}, must be 1 or more")
        if not 1 <= self.n_variants <= MOST_VARIANTS:
            raise InputError(f"{self.n_variants} variants, must be 1 to {MOST_VARIANTS}")
        if self.max_ram is not None and self.max_ram < 1:
            raise InputError(f"the memory ceiling is {self.max_ram} bytes, must be above 0")
