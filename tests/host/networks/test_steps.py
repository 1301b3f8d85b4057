"""Steps of a recipe: in order, judged, guarded, resumed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from onhand.core.errors import BudgetExceeded
from onhand.core.progress import Quiet
from onhand.core.recipe import Guard
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.samples import Samples
from onhand.host.networks.steps import Finished, Step, apply_steps

FLOAT = np.dtype(np.float32)
RAN: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    """No pass has run yet."""
    RAN.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Blunt:
    """Add noise to the weights."""

    name: ClassVar[str] = "blunt"
    by: float = 0.0

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """See `NetworkPass`."""
        RAN.append(self.name)
        noise = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
        weights = {"w": graph.constants["w"] + np.float32(self.by) * noise}
        made = replace(graph, constants=weights)
        return PassResult(graph=made, changed={"w": "blunt"}, notes=("a note",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Give the weights of the original back, as perfect distillation would."""

    name: ClassVar[str] = "distil"

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """See `NetworkPass`."""
        RAN.append(self.name)
        assert bench.folder is not None
        assert bench.folder.is_dir()
        return PassResult(graph=bench.original)


def linear() -> Graph:
    """(B, 4) -> (B, 3)."""
    weights = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    return Graph(
        nodes=(Node(op="MatMul", inputs=("x", "w"), outputs=("y",)),),
        constants={"w": weights},
        inputs=(Value(name="x", dtype=FLOAT, shape=("B", 4)),),
        outputs=(Value(name="y", dtype=FLOAT, shape=("B", 3)),),
        opset=17,
    )


def examples(n: int) -> Samples:
    """Random ones."""
    numbers = np.random.default_rng(2).standard_normal((n, 1, 4)).astype(np.float32)
    return Samples(feeds=[{"x": one} for one in numbers])


def run(folder: Path, *steps: Step, most_loss: float | None = None, n: int = 40) -> Finished:
    """Apply steps to the linear graph."""
    graph = linear()
    bench = Workbench(
        original=graph, calibration=examples(4), task="image-classification", threads=1
    )
    return apply_steps(
        graph,
        steps,
        bench,
        watch=examples(n),
        most_loss=most_loss,
        folder=folder,
        progress=Quiet(),
    )


def test_each_step_is_measured(tmp_path: Path) -> None:
    """Bytes, operations and what was lost by its end."""
    made = run(tmp_path, Step(Blunt()), Step(Blunt(by=9.0)))

    first, second = made.steps
    assert (first.name, first.options, first.size_bytes) == ("blunt", "by 0.0", 48)
    assert first.n_operations == 12
    assert first.lost == 0 < second.lost
    assert made.notes == ("blunt: a note", "blunt: a note")


def test_a_step_that_does_nothing_says_so(tmp_path: Path) -> None:
    """A reader of the report would take it for done."""
    assert run(tmp_path, Step(Restore())).notes == ("distil: changed nothing",)


def test_a_step_that_loses_too_much_ends_the_build(tmp_path: Path) -> None:
    """With what it lost and what to do; the whole budget is the guard where it has none."""
    with pytest.raises(BudgetExceeded, match=r"blunt lost .*, 1.00% allowed; ask less of it"):
        run(tmp_path, Step(Blunt(by=9.0)), most_loss=0.01)


def test_a_step_may_be_undone(tmp_path: Path) -> None:
    """The graph is as before it, and the report says so."""
    made = run(
        tmp_path,
        Step(Blunt()),
        Step(Blunt(by=9.0), Guard(most_loss=0.01, undo=True)),
        Step(Blunt()),
    )

    np.testing.assert_array_equal(made.graph.constants["w"], linear().constants["w"])
    assert [bool(step.undone) for step in made.steps] == [False, True, False]
    assert made.notes[1].startswith("undone: blunt lost")


def test_what_distillation_recovers_is_judged_after_it(tmp_path: Path) -> None:
    """The step before may lose anything, if it comes back."""
    made = run(tmp_path, Step(Blunt(by=9.0)), Step(Restore()), most_loss=0.0)

    assert made.steps[0].lost > made.steps[1].lost == 0


def test_a_pair_is_undone_together(tmp_path: Path) -> None:
    """A step that recovers nothing goes with the one that it should have recovered."""
    bad = Step(Blunt(by=9.0))

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Idle(Blunt):
        name: ClassVar[str] = "distil"

    made = run(tmp_path, bad, Step(Idle(), Guard(most_loss=0.0, undo=True)))

    assert [bool(step.undone) for step in made.steps] == [True, True]
    np.testing.assert_array_equal(made.graph.constants["w"], linear().constants["w"])


def test_finished_steps_are_not_run_again(tmp_path: Path) -> None:
    """A resumed build takes them up: same graph, same rows."""
    steps = (Step(Blunt(by=0.1)), Step(Blunt(by=0.2)))
    first = run(tmp_path, *steps)
    RAN.clear()

    again = run(tmp_path, *steps)

    assert RAN == []
    assert again.steps == first.steps
    assert again.notes == first.notes
    np.testing.assert_array_equal(again.graph.constants["w"], first.graph.constants["w"])


def test_without_examples_nothing_is_judged(tmp_path: Path) -> None:
    """No figure is made up, and no guard holds a step back."""
    made = run(tmp_path, Step(Blunt(by=9.0)), most_loss=0.0, n=0)

    assert made.steps[0].lost == 0
