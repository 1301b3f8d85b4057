"""ONNX's operators in plain numpy: each takes its node and its inputs, None for one left out."""
