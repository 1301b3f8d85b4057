"""An engine told which of the processor's instruction sets to use."""

import pytest
from tests.contract.conftest import Pack

from onhand import native
from onhand.core.errors import InputError
from onhand.device.engines.named import named_engine
from onhand.device.engines.native import NativeLoaded
from onhand.device.opening import open_engine

pytestmark = pytest.mark.skipif(native.module is None, reason=f"native: {native.missing}")


def test_each_set_that_the_processor_has_can_be_forced(pack: Pack) -> None:
    """By the engine's name, which it keeps."""
    bundle = pack(accuracy_level=4)

    for instructions in native.module.instruction_sets():  # type: ignore[union-attr]
        name = f"native:{instructions}"
        loaded, found, passed_over = open_engine(bundle, variant="small", engine=name, threads=1)
        assert isinstance(loaded, NativeLoaded)
        assert (loaded.inner.isa, found, passed_over) == (instructions, name, {})


def test_what_the_processor_lacks_is_refused() -> None:
    """With what it has; also an engine that has nothing to choose from."""
    with pytest.raises(InputError, match=r"there is no 'mmx' on this processor, but .*portable"):
        named_engine("native:mmx")
    with pytest.raises(InputError, match="there is no '' on this processor"):
        named_engine("native:")
    with pytest.raises(InputError, match="'reference:avx2': reference cannot be told"):
        named_engine("reference:avx2")
    with pytest.raises(InputError, match="nothing"):
        named_engine("nothing:avx2")
