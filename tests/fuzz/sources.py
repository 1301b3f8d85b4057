"""Parsers of what people build from and learn from, on a host."""

import base64
from pathlib import Path

from tests.fuzz.targets import GRAPH, Target, as_json, folder, written

__all__ = ["TARGETS"]


def _documents(content: bytes) -> None:
    from onhand.host.documents import read_documents

    read_documents(written("documents.jsonl", content))


def _sweep(content: bytes) -> None:
    from onhand.host.scale.sweep import parse_sweep

    text = content.decode("utf-8", "replace")
    parse_sweep(text, {"bits": False}, folder=Path(folder()), where="sweep")


def _tflite(content: bytes) -> None:
    from onhand.host.networks.sources.tflite_file import read_tflite

    read_tflite(content, where="model.tflite")


def _onnx(content: bytes) -> None:
    from onhand.host.networks.onnx_files import read_onnx

    read_onnx(written("source.onnx", content))


TFLITE = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAA4AAAApAEAAAMAAAACAAAAJAAAAAwAAAAAAAYACAAEAAYAAA"
    "AEAAAACAAAAAAAgD8AAIA/hP7//wEAAAAQAAAADAAUABAADAAIAAQADAAAABAAAABcAAAAYAAAAGQAAAABAAAAFAAA"
    "AAAADgAWAAAAEAAMAAsABAAOAAAAGAAAAAAAAAsYAAAAHAAAAAAABgAIAAcABgAAAAAAAAEBAAAAAgAAAAIAAAAAAA"
    "AAAQAAAAEAAAACAAAAAQAAAAAAAAADAAAAfAAAAEAAAAAQAAAADAAMAAgAAAAAAAQADAAAAAgAAAAMAAAAAgAAAHQy"
    "AAACAAAAAQAAAAIAAAAMABAADAAAAAgABAAMAAAADAAAAAEAAAAMAAAAAgAAAHQxAAACAAAAAQAAAAIAAAAUABgAFA"
    "ATAAAADAAIAAAAAAAEABQAAAAUAAAAKAAAAEgAAAAAAAAJSAAAAAIAAAD/////AgAAAAwADAAAAAAACAAEAAwAAAAI"
    "AAAAFAAAAAEAAAADAAAAAAAAAAAAAAABAAAAAAAAPwIAAAB0MAAAAgAAAAEAAAACAAAAAQAAAAgAAAAEAAQABAAAAA"
    "=="
)
"""A LiteRT file: a sum."""
SWEEP = b"""format = 1
name = "two models"
[[source]]
name = "large"
from = "someone/large"
bits = 8
[[budget]]
name = "tight"
limits = "disk=1MB"
"""


TARGETS = (
    Target(
        name="documents",
        parse=_documents,
        samples=as_json({"text": "a"}, {"messages": [{"role": "user", "content": "b"}]}),
    ),
    Target(
        name="sweep",
        parse=_sweep,
        samples=(SWEEP,),
    ),
    Target(name="tflite", parse=_tflite, samples=(TFLITE,)),
    Target(name="source-onnx", parse=_onnx, samples=(GRAPH,), needs="onnx"),
)
