"""Constants added to a graph that is rewritten, codes of 4 bits among them."""

from dataclasses import replace
from typing import Final

import numpy as np

from onhand.host.networks.graph import Array, Graph, fresh_name
from onhand.host.networks.onnx_files import OPSET, graph_from_model, model_bytes
from onhand.host.networks.quantization.grid import WeightCodes

__all__ = ["Constants"]

_OPSET_OF_4_BITS: Final = 21


class Constants:
    """New names and constants of one graph; used once, by one thread."""

    def __init__(self, graph: Graph) -> None:
        self._taken = graph.names()
        self._constants: dict[str, Array] = dict(graph.constants)
        self._has_4_bits = False
        self._count = 0
        self.domains: dict[str, int] = dict(graph.domains)

    def name(self, wanted: str) -> str:
        """Return a name that nothing has yet."""
        return fresh_name(self._taken, wanted)

    def short(self, kind: str) -> str:
        """Return a short new name: each stands in the file several times."""
        self._count += 1
        return self.name(f"{kind}{self._count}")

    def add(self, wanted: str, array: Array) -> str:
        """Add a constant and return its name."""
        name = self.name(wanted)
        self._constants[name] = array
        return name

    def add_short(self, kind: str, array: Array) -> str:
        """Add a constant under a short new name and return it."""
        name = self.short(kind)
        self._constants[name] = array
        return name

    def add_codes(self, wanted: str, weight: WeightCodes) -> str:
        """Add a weight's codes, two in a byte where they have 4 bits, and return their name."""
        codes: Array = weight.codes
        if weight.bits <= 4:
            import onnx

            codes = codes.astype(onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.INT4))
            self._has_4_bits = True
        return self.add(wanted, codes)

    def finished(self, graph: Graph) -> Graph:
        """Return a graph with all constants that it needs, of an opset that knows their dtypes."""
        made = replace(graph, constants=self._constants, domains=self.domains).live()
        if not self._has_4_bits or made.opset >= _OPSET_OF_4_BITS:
            return made
        return _raised(made, _OPSET_OF_4_BITS)


def _raised(graph: Graph, opset: int) -> Graph:
    """Return the graph in a later version of ONNX's operators."""
    import onnx

    # The converter goes through old forms of some messages, which hold no 4-bit integers.
    packed = {n: a for n, a in graph.constants.items() if a.dtype.name == "int4"}
    plain = {n: a.astype(np.int8) for n, a in packed.items()}
    model = onnx.load_from_string(
        model_bytes(replace(graph, constants={**graph.constants, **plain}))
    )
    raised = graph_from_model(
        onnx.version_converter.convert_version(model, max(opset, OPSET)), where="the graph"
    )
    constants = {n: packed.get(n, a) for n, a in raised.constants.items()}
    return replace(raised, constants=constants)
