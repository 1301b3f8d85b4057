"""Encoders by other people's tools, beside ours: made from the same graph and the same texts."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onhand.device.networks.base import Array

__all__ = ["OnnxPeer", "OpenvinoPeer", "make_dynamic", "make_nncf"]

_SCRIPT = Path(__file__).with_name("nncf_peer.py")


def make_dynamic(source: Path, out: Path) -> Path:
    """Quantise as ONNX Runtime's own tool does without examples, weights for each channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        out,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    return out


def make_nncf(
    source: Path, out: Path, examples: Sequence[Mapping[str, Array]], python: Path
) -> Path:
    """Quantise with NNCF in its own environment.

    Args:
        source: an ONNX file.
        out: the file to write, `.xml`.
        examples: that calibrate it.
        python: the interpreter of an environment that has nncf.

    Returns:
        The file.
    """
    arrays = {f"{i}/{name}": a for i, feeds in enumerate(examples) for name, a in feeds.items()}
    place = out.with_suffix(".npz")
    np.savez(place, **arrays)  # type: ignore[arg-type]  # any names
    subprocess.run(
        [str(python), str(_SCRIPT), str(source), str(place), str(out)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return out


class OnnxPeer:
    """An ONNX file in ONNX Runtime; see `NetworkLoaded`."""

    def __init__(self, path: Path, threads: int) -> None:
        """Open it."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs."""
        return dict(zip(self._names, self._session.run(None, dict(feeds)), strict=True))

    def close(self) -> None:
        """Nothing is held but memory."""


class OpenvinoPeer:
    """A model in OpenVINO, in float32 where it is in float; see `NetworkLoaded`."""

    def __init__(self, path: Path, threads: int) -> None:
        """Compile it, with the settings of our own engine."""
        import openvino

        core = openvino.Core()
        settings = {
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = core.compile_model(core.read_model(path), "CPU", settings)
        self._request = compiled.create_infer_request()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the one output."""
        return {"embedding": np.array(self._request.infer(dict(feeds))[0])}

    def close(self) -> None:
        """Nothing is held but memory."""
