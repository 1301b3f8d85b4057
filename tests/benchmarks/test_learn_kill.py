"""A few kills of a device that learns: nothing that was promised is lost."""

import sys
from pathlib import Path

import pytest
from benchmarks.learn_kill import Found, keep_found, kill_rounds, recall_found


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_ten_kills_lose_nothing(tmp_path: Path) -> None:
    """Neither an accepted example, nor a step that was said, nor a version."""
    found = kill_rounds(tmp_path, rounds=10, seed=5)

    assert len(found.promised) > 10
    assert found.n_steps > 5
    assert (found.lost_examples, found.most_lost_steps, found.lost_versions) == (0, 0, 0)
    assert (found.corrupt_versions, found.corrupt_states, found.notes) == (0, 0, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_was_ended_goes_on(tmp_path: Path) -> None:
    """On the same device, with all that was promised before."""
    settings = {"seed": 5}
    first = kill_rounds(tmp_path, rounds=4, seed=5)
    keep_found(tmp_path, first, settings)
    n_before = len(first.promised)

    found = kill_rounds(tmp_path, rounds=8, seed=5, found=recall_found(tmp_path, settings))

    assert found.kills == len(found.lived_s) == 8
    assert len(found.promised) > n_before
    assert (found.lost_examples, found.most_lost_steps, found.lost_versions) == (0, 0, 0)


def test_what_was_found_comes_back_whole(tmp_path: Path) -> None:
    """Of the same settings; of others it is refused, and of nothing there is nothing."""
    found = Found(kills=3, promised=["a"], said={7: 2}, lived_s=[0.5])
    assert recall_found(tmp_path, {"seed": 1}) is None
    keep_found(tmp_path, found, {"seed": 1})

    assert recall_found(tmp_path, {"seed": 1}) == found
    with pytest.raises(SystemExit, match="take another folder"):
        recall_found(tmp_path, {"seed": 2})
