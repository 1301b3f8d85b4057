"""What a profile lists: caches, energy counters, how fast it multiplies, what else may compute."""

import math
from dataclasses import dataclass

from onhand.core.errors import InputError

__all__ = [
    "COUNTER_UNITS",
    "MATRIX_KINDS",
    "POWER_SOURCES",
    "CacheLevel",
    "EnergyCounter",
    "MatrixRate",
    "Provider",
]

MATRIX_KINDS = ("fp32", "int8", "int4")
POWER_SOURCES = ("mains", "battery", "unknown")
# Joules or watts in one of what is read; a battery's product of microamperes and microvolts is
# in picowatts.
COUNTER_UNITS = {
    "microjoule": 1e-6,
    "microwatt-hour": 3600e-6,
    "watt": 1.0,
    "milliwatt": 1e-3,
    "microwatt": 1e-6,
    "picowatt": 1e-12,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLevel:
    """One level of a processor's caches for data.

    Attributes:
        level: 1 is nearest to the core.
        size_bytes: of one of its kind.
        shared_by: threads that share one.
    """

    level: int
    size_bytes: int
    shared_by: int = 1

    def __post_init__(self) -> None:
        for name in ("level", "size_bytes", "shared_by"):
            _check_whole(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyCounter:
    """Something that counts energy or tells power, whether or not this process may read it.

    Attributes:
        name: as the system calls it: "package-0", "VDD_IN", "BAT0".
        path: the file, or two with " x " between them whose numbers are multiplied, or a command.
        unit: of the number that is read, one of `COUNTER_UNITS`.
        is_readable: whether a number was read.
        note: what it counts, or why it cannot be read and what would help.
    """

    name: str
    path: str
    unit: str
    is_readable: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        if self.unit not in COUNTER_UNITS:
            raise InputError(f"unit is {self.unit!r}, must be one of {', '.join(COUNTER_UNITS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRate:
    """How fast matrices of one kind and shape are multiplied.

    Attributes:
        kind: of the weights, one of `MATRIX_KINDS`.
        rows: of the activations: 1 for a decoded token, more for a prompt.
        inputs: of the weights.
        outputs: of the weights.
        threads: that multiplied.
        rate: operations per second; a product has 2 x rows x inputs x outputs of them.
        engine: what multiplied.
    """

    kind: str
    rows: int
    inputs: int
    outputs: int
    threads: int
    rate: float
    engine: str

    def __post_init__(self) -> None:
        if self.kind not in MATRIX_KINDS:
            raise InputError(f"kind is {self.kind!r}, must be one of {', '.join(MATRIX_KINDS)}")
        for name in ("rows", "inputs", "outputs", "threads"):
            _check_whole(name, getattr(self, name))
        if isinstance(self.rate, bool) or not isinstance(self.rate, int | float):
            raise InputError(f"rate is {self.rate!r}, must be a number above 0")
        if not 0 < self.rate < math.inf:
            raise InputError(f"rate is {self.rate!r}, must be a number above 0")
        object.__setattr__(self, "rate", float(self.rate))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Something that can run a network's graph: an execution provider on one device.

    Attributes:
        name: as its package calls it: "CUDAExecutionProvider", "GPU.0".
        package: what has it, or would have it: "onnxruntime", "openvino", "onnxruntime-gpu".
        is_usable: whether it computed a graph rightly when it was tried.
        note: the device's own name, or why it is of no use.
        falls_back: operators of those tried that it leaves to the processor.
        is_present: whether what is installed has it; one that is not was not tried.
    """

    name: str
    package: str
    is_usable: bool = False
    note: str = ""
    falls_back: tuple[str, ...] = ()
    is_present: bool = True

    def __post_init__(self) -> None:
        if not all(isinstance(one, str) for one in self.falls_back):
            raise InputError(f"falls_back is {self.falls_back!r}, must be a list of texts")


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, must be a whole number above 0")
