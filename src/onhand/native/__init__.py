"""The native part: kernels in C++, one set for each instruction set; absent where none was built.

`module` is the compiled module, or None; `missing` then says why.
"""

import importlib
from types import ModuleType

__all__ = ["missing", "module"]

module: ModuleType | None
missing: str
try:
    module, missing = importlib.import_module("onhand.native._native"), ""
except ImportError as error:
    module = None
    missing = (
        f"its native part is not there ({error}); install onhand again where a C++ compiler is"
    )
