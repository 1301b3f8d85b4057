"""Tiny LiteRT files, written with the schema's own code, and run by LiteRT's interpreter."""

from collections.abc import Mapping, Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from onhand.host.networks.graph import Array

__all__ = ["TinyFile", "interpreted"]

_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int8": 9}


class TinyFile:
    """A file that grows tensor by tensor and operator by operator."""

    def __init__(self) -> None:
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []

    def value(
        self,
        shape: Sequence[int],
        *,
        dtype: str = "float32",
        data: Array | None = None,
        scale: Sequence[float] | NDArray[np.float64] = (),
        zero: Sequence[int] = (),
        axis: int = 0,
        signature: Sequence[int] | None = None,
    ) -> int:
        """Add a tensor; its index."""
        tensor = schema.TensorT()
        tensor.shape = np.asarray(shape, dtype=np.int32)
        tensor.type = _TYPES[dtype]
        tensor.name = f"t{len(self._graph.tensors)}"
        tensor.buffer = 0
        if signature is not None:
            tensor.shapeSignature = np.asarray(signature, dtype=np.int32)
        if len(scale):
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.asarray(scale, dtype=np.float32)
            tensor.quantization.zeroPoint = np.asarray(zero, dtype=np.int64)
            tensor.quantization.quantizedDimension = axis
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.astype(dtype).tobytes(), dtype=np.uint8)
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def shape(self, index: int) -> Array:
        """The sizes of a tensor."""
        found: Array = self._graph.tensors[index].shape
        return found

    def buffer_of(self, index: int) -> int:
        """The buffer of a tensor."""
        found: int = self._graph.tensors[index].buffer
        return found

    def share(self, index: int, buffer: int) -> None:
        """Let a tensor have its numbers in a buffer."""
        self._graph.tensors[index].buffer = buffer

    def constant(self, data: object, dtype: str = "float32") -> int:
        """Add a constant; its index."""
        array = np.asarray(data, dtype=dtype)
        return self.value(array.shape, dtype=dtype, data=array)

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        options: str = "",
        version: int = 1,
        custom: str = "",
        **fields: object,
    ) -> None:
        """Add an operator, with options by their names in the schema's code."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        code.customCode = custom or None
        made = schema.OperatorT()
        made.opcodeIndex = len(self._model.operatorCodes)
        made.inputs, made.outputs = list(inputs), list(outputs)
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, f"{options}T")()
            for key, value in fields.items():
                setattr(made.builtinOptions, key, value)
        self._model.operatorCodes.append(code)
        self._graph.operators.append(made)

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file's bytes."""
        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)
        self._model.subgraphs = [self._graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def interpreted(content: bytes, feeds: Mapping[int, Array]) -> list[NDArray[np.float32]]:
    """What LiteRT's own interpreter computes: fed by the index of the tensor."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for index, array in feeds.items():
        interpreter.set_tensor(index, array)
    interpreter.invoke()
    return [interpreter.get_tensor(entry["index"]) for entry in interpreter.get_output_details()]
