"""The native part for those that time its products, or the reason why there is none."""

from types import ModuleType

from onhand import native
from onhand.core.errors import EngineUnavailable

__all__ = ["native_part"]


def native_part() -> ModuleType:
    """Return the native part.

    Raises:
        EngineUnavailable: if it was not built, or does not run here.
    """
    if native.module is None:
        raise EngineUnavailable(f"native: {native.missing}")
    return native.module
