"""Pieces of work in this process and in several: the same results, in order, whatever dies."""

import multiprocessing
from pathlib import Path

import pytest
from tests.host.scale.pieces import die, die_if_named, die_once, double, refuse

from onhand.core.errors import InputError
from onhand.host.scale.executor import LocalExecutor, Lost
from onhand.host.scale.slots import slot


@pytest.mark.parametrize("at_once", [1, 2])
def test_results_come_in_the_order_of_the_items(at_once: int) -> None:
    """And each is told as it comes."""
    told: dict[int, object] = {}

    results = LocalExecutor(at_once=at_once).map(double, [3, 1, 2], on_done=told.__setitem__)

    assert results == [6, 2, 4]
    assert told == {0: 6, 1: 2, 2: 4}


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_the_work_raises_ends_the_whole(at_once: int) -> None:
    """A caller's error keeps its class."""
    with pytest.raises(InputError, match="is refused"):
        LocalExecutor(at_once=at_once).map(refuse, [1])


def test_a_piece_whose_process_dies_is_begun_anew(tmp_path: Path) -> None:
    """As often as is allowed."""
    items = [str(tmp_path / "a"), str(tmp_path / "bb")]

    assert LocalExecutor(at_once=2).map(die_once, items) == [1, 2]


def test_a_piece_that_dies_each_time_is_lost() -> None:
    """A result like others, with the reason."""
    assert LocalExecutor(at_once=2, retries=1).map(die, ["x"]) == [
        Lost("its process died 2 times: was there enough memory")
    ]


def test_a_deadly_piece_takes_no_other_with_it() -> None:
    """Which of those that ran was guilty is found out by running them alone."""
    items = ["deadly", "a", "b"]

    results = LocalExecutor(at_once=2, retries=2).map(die_if_named, items)

    assert isinstance(results[0], Lost)
    assert results[1:] == ["a", "b"]


def test_counts_below_the_least_are_refused() -> None:
    """Before anything is done."""
    with pytest.raises(InputError, match="0 at once"):
        LocalExecutor(at_once=0)


def test_a_machine_has_as_many_places_as_are_said(tmp_path: Path) -> None:
    """The next one waits until a place is given back."""
    waited: list[float] = []

    def give_back(seconds: float) -> None:
        waited.append(seconds)
        first.__exit__(None, None, None)

    first, second = slot(2, folder=tmp_path), slot(2, folder=tmp_path)
    taken = {first.__enter__(), second.__enter__()}
    with slot(2, folder=tmp_path, sleep=give_back) as third:
        assert taken == {0, 1}
        assert third == 0
        assert len(waited) == 1
    second.__exit__(None, None, None)


def _hold(folder: Path, begun: "multiprocessing.synchronize.Event") -> None:
    with slot(1, folder=folder):
        begun.set()
        multiprocessing.Event().wait(60)


def test_a_process_that_dies_gives_its_place_back(tmp_path: Path) -> None:
    """Nothing has to be cleaned up by hand."""
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, begun))
    holder.start()
    assert begun.wait(30)

    def end_it(_: float) -> None:
        holder.kill()
        holder.join()

    with slot(1, folder=tmp_path, sleep=end_it) as place:
        assert place == 0
    assert not holder.is_alive()
