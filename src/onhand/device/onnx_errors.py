"""ONNX Runtime's errors turned into ours, in one place."""

from collections.abc import Iterator
from contextlib import contextmanager

from onhand.core.errors import EngineError

__all__ = ["onnx_errors"]


@contextmanager
def onnx_errors() -> Iterator[None]:
    """Turn ONNX Runtime's errors into ours; a run's is a plain RuntimeError, others are not.

    Yields:
        Nothing.

    Raises:
        EngineError: if the error came from ONNX Runtime.
    """
    try:
        yield
    except Exception as error:
        theirs = type(error).__module__.startswith("onnxruntime")
        if theirs or isinstance(error, RuntimeError):
            raise EngineError(f"onnxruntime: {error}") from error
        raise
