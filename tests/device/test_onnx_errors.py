"""What ONNX Runtime says becomes an error of ours; what others say stays."""

import onnxruntime as ort
import pytest

from onhand.core.errors import EngineError
from onhand.device.onnx_errors import onnx_errors


def test_its_own_errors_are_engine_errors() -> None:
    """Those of its package, and the plain RuntimeError of a run; the original is kept."""
    with pytest.raises(EngineError, match="onnxruntime: ") as caught, onnx_errors():
        ort.InferenceSession(b"no model", providers=["CPUExecutionProvider"])
    assert caught.value.__cause__ is not None
    with pytest.raises(EngineError, match="onnxruntime: full"), onnx_errors():
        raise RuntimeError("full")


def test_errors_of_others_pass() -> None:
    """A fault of ours must not look like the engine's."""
    with pytest.raises(KeyError), onnx_errors():
        raise KeyError("ours")
