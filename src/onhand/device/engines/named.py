"""Engines by the names that users give them."""

from typing import cast

from onhand.core.errors import InputError
from onhand.core.plugins import ENGINES, load_plugin
from onhand.device.engines.base import Engine, InstructionsEngine

__all__ = ["named_engine"]


def named_engine(name: str) -> Engine:
    """Return an engine.

    Args:
        name: of a registered engine; with ":" and an instruction set behind it, as in
            "native:avx2", it uses that one and not the best that the processor has.

    Returns:
        The engine.

    Raises:
        InputError: if there is no such engine, it cannot be told what to use, or the processor
            does not have it.
    """
    plain, colon, instructions = name.partition(":")
    engine = cast(type[Engine], load_plugin(ENGINES, plain))()
    if not colon:
        return engine
    if not isinstance(engine, InstructionsEngine):
        raise InputError(f"engine {name!r}: {plain} cannot be told what instructions to use")
    return engine.using(instructions)
