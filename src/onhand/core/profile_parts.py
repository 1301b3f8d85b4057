"""What a device's profile lists: its caches, how fast it multiplies, and what else may compute."""

import math
from dataclasses import dataclass

from onhand.core.errors import InputError

__all__ = ["MATRIX_KINDS", "POWER_SOURCES", "CacheLevel", "MatrixRate", "Provider"]

MATRIX_KINDS = ("fp32", "int8", "int4")
POWER_SOURCES = ("mains", "battery", "unknown")


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
        package: "onnxruntime" or "openvino".
        is_usable: whether it computed a graph rightly when it was tried.
        note: the device's own name, or why it is of no use.
        falls_back: operators of those tried that it leaves to the processor.
    """

    name: str
    package: str
    is_usable: bool = False
    note: str = ""
    falls_back: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(isinstance(one, str) for one in self.falls_back):
            raise InputError(f"falls_back is {self.falls_back!r}, must be a list of texts")


def _check_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, must be a whole number above 0")
