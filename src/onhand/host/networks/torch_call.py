"""What an operator in torch is given: a node, its inputs, and the mode. It brings torch."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from onhand.core.errors import InputError
from onhand.host.networks.graph import Node

__all__ = ["Call", "Operator", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One node at work.

    Attributes:
        node: the operator and its attributes.
        inputs: its tensors; None for one that is left out.
        opset: version of ONNX's operators.
        is_training: whether Dropout drops.
        batch_statistics: whether BatchNormalization takes its statistics from the batch, and
            updates the running ones.
    """

    node: Node
    inputs: tuple[Tensor | None, ...]
    opset: int
    is_training: bool = False
    batch_statistics: bool = False

    def tensor(self, index: int) -> Tensor:
        """Return an input that must be there.

        Raises:
            InputError: if it is not.
        """
        found = self.maybe(index)
        if found is None:
            raise InputError(f"{self.node.op} {self.node.name!r}: input {index} is missing")
        return found

    def maybe(self, index: int) -> Tensor | None:
        """Return an input, or None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensors(self) -> list[Tensor]:
        """Return all inputs; each must be there.

        Raises:
            InputError: if one is not.
        """
        return [self.tensor(i) for i in range(len(self.inputs))]

    def wholes(self, index: int) -> tuple[int, ...] | None:
        """Return the values of an input of whole numbers, or None where it is left out."""
        found = self.maybe(index)
        return None if found is None else tuple(int(x) for x in found.detach().flatten().tolist())

    def axes(self, index: int) -> tuple[int, ...] | None:
        """Return axes from the attribute of old opsets or from an input; None if there are none.

        Raises:
            InputError: if the attribute is no list of whole numbers.
        """
        return self.node.wholes("axes") or self.wholes(index) or None


Operator = Callable[[Call], Tensor | tuple[Tensor, ...]]


def refuse(call: Call, what: str) -> InputError:
    """Return the error that says what of an operator cannot be computed here."""
    return InputError(f"{call.node.op} {call.node.name!r}: {what} is not supported in torch")
