"""The memory ceiling of a build."""

import numpy as np
import psutil
import pytest

from onhand.core.errors import ResourceError
from onhand.host.memory import MemoryGuard

BLOCK = 128 * 2**20


def test_what_was_taken_is_seen() -> None:
    """Memory that is held when a stage ends counts, and so does a child's."""
    with MemoryGuard(None) as guard:
        before = int(psutil.Process().memory_info().rss)
        held = np.ones(BLOCK, dtype=np.uint8)
        guard.check("holding")
        assert held.nbytes == BLOCK
        assert guard.peak_bytes >= before + 0.9 * BLOCK
        guard.check("a child", child_bytes=10 * BLOCK)

    assert guard.peak_bytes >= 10 * BLOCK


def test_the_ceiling_stops_the_build() -> None:
    """The sentence names the stage and both figures."""
    now = int(psutil.Process().memory_info().rss)
    with MemoryGuard(now + BLOCK) as guard:
        guard.check("little")
        with pytest.raises(ResourceError, match=r"quantizing took .*iB.*--max-ram allows"):
            guard.check("quantizing", child_bytes=2 * BLOCK)


def test_earlier_work_of_the_process_does_not_count() -> None:
    """A large array that is gone is no reason to refuse."""
    held = np.ones(2 * BLOCK, dtype=np.uint8)
    del held
    now = int(psutil.Process().memory_info().rss)
    with MemoryGuard(now + BLOCK) as guard:
        guard.check("little")

    assert guard.peak_bytes < now + BLOCK
