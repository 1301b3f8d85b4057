"""Engines by the names that users give them."""

from typing import cast

from onhand.core.errors import InputError
from onhand.core.plugins import ENGINES, load_plugin
from onhand.device.engines.base import Engine
from onhand.device.engines.ways_engine import WaysEngine

__all__ = ["named_engine"]


def named_engine(name: str) -> Engine:
    """Return an engine.

    Args:
        name: of a registered engine; with ":" and a way behind it, as in "native:avx2" or
            "onnx:cuda", it uses those instructions, or that accelerator, and nothing else.

    Returns:
        The engine.

    Raises:
        InputError: if there is no such engine, it cannot be told what to use, or that is not
            there.
    """
    plain, colon, way = name.partition(":")
    engine = cast(type[Engine], load_plugin(ENGINES, plain))()
    if not colon:
        return engine
    if not isinstance(engine, WaysEngine):
        raise InputError(f"engine {name!r}: {plain} cannot be told what to compute with")
    return engine.using(way)
