"""Work that takes too long is given up, and does not pile up."""

import threading

import pytest

from onhand.core.errors import EngineBusy, InputError
from onhand.device.time_limit import TimeLimit


def test_what_ends_in_time_is_returned() -> None:
    """Or raises what it raised, a timeout of its own too."""
    limit = TimeLimit("grammar", most_s=20)

    def fail() -> None:
        raise TimeoutError("its own")

    assert limit.run(lambda: 7) == 7
    with pytest.raises(TimeoutError, match="its own"):
        limit.run(fail)


def test_attack_work_that_does_not_end() -> None:
    """It is given up; while two such pieces run, no other begins; then all is as before."""
    limit = TimeLimit("grammar", most_s=0.01)
    may_end = threading.Event()
    before = threading.active_count()
    for _ in range(2):
        with pytest.raises(InputError, match=r"grammar: takes over 0\.01 seconds"):
            limit.run(lambda: may_end.wait(20))

    with pytest.raises(EngineBusy, match="2 that took too long"):
        limit.run(lambda: True)
    may_end.set()
    while threading.active_count() > before:
        may_end.wait(0.001)

    assert TimeLimit("grammar", most_s=20).run(lambda: True)
    with pytest.raises(InputError):
        limit.run(lambda: threading.Event().wait(0.2))
