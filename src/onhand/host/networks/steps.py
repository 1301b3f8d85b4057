"""The steps of a recipe, one after the other: measured, guarded, kept for a resumed build."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onhand.core.errors import BudgetExceeded
from onhand.core.progress import Progress
from onhand.core.recipe import Guard
from onhand.device.report_records import ReportStep
from onhand.host.array_files import read_arrays, write_arrays
from onhand.host.networks.costs import count_operations
from onhand.host.networks.graph import Graph
from onhand.host.networks.judge import Answers, answer_graph, compare_answers
from onhand.host.networks.onnx_files import model_bytes, read_onnx
from onhand.host.networks.passes.base import NetworkPass, PassResult, Workbench
from onhand.host.networks.samples import Samples
from onhand.host.passes.base import pass_options

__all__ = ["Finished", "Step", "apply_steps"]

_RECOVERS = "distil"
# Examples that settle ranges, means and moments; only training gains by more.
_STATISTICS = 512


@dataclass(frozen=True, slots=True)
class Step:
    """A pass and what it may lose."""

    transform: NetworkPass
    guard: Guard = field(default_factory=Guard)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What the steps of one variant gave.

    Attributes:
        graph: the last step's.
        steps: what each did.
        changed: name -> what became of it, of the last step that said so.
        kept: likewise, why it stayed.
        notes: sentences for the report.
    """

    graph: Graph
    steps: tuple[ReportStep, ...]
    changed: dict[str, str]
    kept: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watch:
    """Judges a graph on examples that no step sees."""

    samples: Samples
    answers: Answers | None
    bench: Workbench

    def lost(self, graph: Graph) -> float:
        """Return the share that a graph has lost against the original; 0 without examples."""
        if self.answers is None:
            return 0.0
        ours = answer_graph(
            graph,
            self.samples,
            threads=self.bench.threads,
            progress=self.bench.progress,
            what="judging the step",
        )
        figures = compare_answers(
            self.answers,
            ours,
            task=self.bench.task,
            labels=self.samples.labels,
            how="",
            reader=self.bench.reader,
            truths=self.samples.truths,
        )
        return figures["quality_loss"].value


def apply_steps(
    graph: Graph,
    steps: Sequence[Step],
    bench: Workbench,
    *,
    watch: Samples,
    most_loss: float | None,
    folder: Path,
    progress: Progress,
) -> Finished:
    """Run the steps of one variant.

    A step that loses more than its guard allows is undone, or ends the build; one that is followed
    by distillation is judged after that, and undone with it.

    Args:
        graph: the source's, cleaned.
        steps: in order.
        bench: what passes may use; its folder is set here.
        watch: examples that judge each step; passes do not see them. Empty: nothing is judged.
        most_loss: what a step without a guard of its own may lose; None for no limit.
        folder: where finished steps are kept: a resumed build goes on behind them.
        progress: told how far it is.

    Returns:
        The last graph, and what each step did.

    Raises:
        BudgetExceeded: if a step loses more than it may and is not to be undone.
    """
    answers = None
    if len(watch):
        answers = answer_graph(graph, watch, threads=bench.threads, progress=progress)
    watcher = _Watch(samples=watch, answers=answers, bench=bench)
    made = Finished(graph=graph, steps=(), changed={}, kept={}, notes=())
    safe = made  # before the step, or the pair of steps, that is judged next
    for i, step in enumerate(steps):
        place = folder / f"{i:02d}-{step.transform.name}"
        made = _run(made, step, place, watcher, progress)
        if i + 1 < len(steps) and steps[i + 1].transform.name == _RECOVERS:
            continue
        allowed = most_loss if step.guard.most_loss is None else step.guard.most_loss
        if allowed is not None and made.steps[-1].lost > allowed:
            made = _undone(made, safe, step, allowed)
        safe = made
    return made


def _run(
    before: Finished, step: Step, folder: Path, watcher: _Watch, progress: Progress
) -> Finished:
    """Apply one step, or take up what a build before this one finished."""
    done, figures = folder / "done.onnx", folder / "done.npz"
    if figures.is_file() and done.is_file():
        _, about = read_arrays(figures)
        result = PassResult(
            graph=read_onnx(done),
            changed=dict(about["changed"]),
            kept=dict(about["kept"]),
            notes=tuple(about["notes"]),
        )
        return _with(before, result, ReportStep(**about["step"]))
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    bench = replace(watcher.bench, folder=folder)
    if step.transform.name != _RECOVERS:
        few = range(min(len(bench.calibration), _STATISTICS))
        bench = replace(bench, calibration=bench.calibration.part(few))
    result = step.transform.apply(before.graph, bench)
    seconds = time.perf_counter() - begun
    if not result.changed and not result.notes:
        result = replace(result, notes=("changed nothing",))
    for note in result.notes:
        progress.note(f"{step.transform.name}: {note}")
    options = pass_options(step.transform)
    row = ReportStep(
        name=step.transform.name,
        options=", ".join(f"{key} {value}" for key, value in options.items() if key != "pass"),
        size_bytes=result.graph.size_bytes(),
        n_operations=count_operations(result.graph),
        lost=watcher.lost(result.graph),
        seconds=seconds,
    )
    done.write_bytes(model_bytes(result.graph))
    about = {
        "changed": result.changed,
        "kept": result.kept,
        "notes": list(result.notes),
        "step": {key: getattr(row, key) for key in ReportStep.__slots__},
    }
    write_arrays(figures, {}, about)
    return _with(before, result, row)


def _with(before: Finished, result: PassResult, row: ReportStep) -> Finished:
    return Finished(
        graph=result.graph,
        steps=(*before.steps, row),
        changed=before.changed | result.changed,
        kept=before.kept | result.kept,
        notes=(*before.notes, *(f"{row.name}: {note}" for note in result.notes)),
    )


def _undone(made: Finished, safe: Finished, step: Step, allowed: float) -> Finished:
    """Go back to before the steps that lose too much.

    Raises:
        BudgetExceeded: if they are not to be undone.
    """
    lost = made.steps[-1].lost
    rows = made.steps[len(safe.steps) :]
    names = " and ".join(row.name for row in rows)
    why = f"{names} lost {lost:.2%} of quality by its end, {allowed:.2%} allowed"
    if not step.guard.undo:
        raise BudgetExceeded(
            f"{why}; ask less of it, recover with a {_RECOVERS} step behind it, allow more with "
            "most_loss, or let it be undone with undo = true"
        )
    marked = tuple(replace(row, undone=why) for row in rows)
    return replace(safe, steps=(*safe.steps, *marked), notes=(*safe.notes, f"undone: {why}"))
