"""One tensor of a checkpoint, under whatever name its file gives it."""

from dataclasses import dataclass

import numpy as np

from onhand.core.safetensors import SafetensorsFile, TensorSpec

__all__ = ["StoredTensor"]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor and the name that its file gives it."""

    file: SafetensorsFile
    name: str

    @property
    def spec(self) -> TensorSpec:
        """Its dtype, shape and place."""
        return self.file.tensors[self.name]

    def view(self) -> np.ndarray:
        """Its numbers, mapped from the file."""
        return self.file.view(self.name)
