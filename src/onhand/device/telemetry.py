"""Libraries that would tell their maker what runs here are told not to."""

import os

__all__ = ["refuse_telemetry"]


def refuse_telemetry() -> None:
    """Ask ONNX Runtime to send nothing home; called before each import of it.

    From 1.31 on its packages for Linux and macOS upload events of process, session and model,
    and keep an identifier of the device and a database in the user's cache, unless this is set
    before it starts. A user's own setting stands. One who imports `onnxruntime` before any model
    is opened sets `ORT_DISABLE_TELEMETRY=1` likewise.

    Source:
        https://github.com/microsoft/onnxruntime/pull/27379
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
