"""A few kills of a device that learns: nothing that was promised is lost."""

import sys
from pathlib import Path

import pytest
from benchmarks.learn_kill import kill_rounds


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_ten_kills_lose_nothing(tmp_path: Path) -> None:
    """Neither an accepted example, nor a step that was said, nor a version."""
    found = kill_rounds(tmp_path, rounds=10, seed=5)

    assert len(found.promised) > 10
    assert found.n_steps > 5
    assert (found.lost_examples, found.most_lost_steps, found.lost_versions) == (0, 0, 0)
    assert (found.corrupt_versions, found.corrupt_states, found.notes) == (0, 0, 0)
