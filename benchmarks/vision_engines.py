"""One picture at a time through a network in a file: ONNX Runtime, OpenVINO, PyTorch and LiteRT."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onhand.host.networks.onnx_files import read_onnx

__all__ = ["SHAPE", "Floats", "Run", "opened"]

SHAPE = [1, 3, 224, 224]
Floats = NDArray[np.float32]
Run = Callable[[Floats], Floats]


def opened(engine: str, path: Path, threads: int) -> Run:
    """Open a network for one picture at a time."""
    if engine == "onnx":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda picture: np.asarray(session.run(None, {name: picture})[0], np.float32)
    if engine == "torch":
        return _eager(path, threads)
    if engine == "litert":
        return _litert(path, threads)
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(SHAPE)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        # Without it, rows of float32 would be computed in bfloat16 where a processor can.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda picture: np.array(request.infer([picture], share_inputs=True)[0], np.float32)


def _eager(path: Path, threads: int) -> Run:
    """Open a network in plain PyTorch, operator by operator."""
    import torch

    from onhand.host.networks.torch_graph import TorchGraph

    graph = read_onnx(path)
    module, fed, made = TorchGraph(graph).eval(), graph.inputs[0].name, graph.outputs[0].name

    def run(picture: Floats) -> Floats:
        torch.set_num_threads(threads)
        with torch.no_grad():
            scores: Floats = module({fed: torch.from_numpy(picture)})[made].numpy()
        return scores

    return run


def _litert(path: Path, threads: int) -> Run:
    """Open a network whose input is (1, H, W, 3) in integers; XNNPACK computes it."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (fed,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    (scale, zero), (out_scale, out_zero) = fed["quantization"], made["quantization"]
    limits = np.iinfo(fed["dtype"])
    last: tuple[Floats, NDArray[np.generic]] | None = None

    def run(picture: Floats) -> Floats:
        nonlocal last
        if last is None or last[0] is not picture:
            codes = np.rint(picture.transpose(0, 2, 3, 1) / scale + zero)
            last = picture, np.clip(codes, limits.min, limits.max).astype(fed["dtype"])
        interpreter.set_tensor(fed["index"], last[1])
        interpreter.invoke()
        scores: Floats = interpreter.get_tensor(made["index"]).astype(np.float32)
        shares: Floats = (scores - np.float32(out_zero)) * np.float32(out_scale)
        return shares

    return run
