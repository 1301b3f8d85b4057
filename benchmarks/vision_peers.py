"""A picture network quantised by others: ONNX Runtime's own tool, and NNCF for OpenVINO.

    python benchmarks/vision_peers.py onnxruntime|nncf MODEL.onnx EXAMPLES.npy OUT

Runs in the environment of the peer, which need not hold onhand. EXAMPLES.npy holds the arrays
that calibrate, (B, C, H, W); OUT is an ONNX file, or the .xml of OpenVINO. The seconds that it
took are the last line of what it prints.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main"]


def main() -> None:
    """Quantise one network in one way."""
    way, model, examples, out = sys.argv[1:]
    arrays = np.load(examples)
    started = time.perf_counter()
    if way == "onnxruntime":
        with_onnxruntime(Path(model), arrays, Path(out))
    else:
        with_nncf(Path(model), arrays, Path(out))
    print(time.perf_counter() - started)


def with_onnxruntime(model: Path, arrays: Any, out: Path) -> None:
    """Static int8 as its documentation advises for x86 with VNNI: U8S8, QDQ, per channel."""
    import onnxruntime as ort
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = ort.InferenceSession(str(model)).get_inputs()[0].name

    class Reader:
        """Yields one example after the other."""

        def __init__(self) -> None:
            self._left: Iterator[dict[str, Any]] = ({name: a[None]} for a in arrays)

        def get_next(self) -> dict[str, Any] | None:
            """Return the next example; None behind the last."""
            return next(self._left, None)

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared))
    quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


def with_nncf(model: Path, arrays: Any, out: Path) -> None:
    """Post-training quantisation with its defaults."""
    import nncf
    import openvino

    network = openvino.Core().read_model(model)
    network.reshape([1, *arrays.shape[1:]])
    made = nncf.quantize(network, nncf.Dataset([a[None] for a in arrays]), subset_size=len(arrays))
    openvino.save_model(made, out, compress_to_fp16=False)


if __name__ == "__main__":
    main()
