"""Passes that change a model before its matrices are stored: planned, run, and each one judged."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.budget import Budget
from onhand.core.decoder import Decoder
from onhand.core.errors import BudgetExceeded, InputError, ResourceError
from onhand.core.measurement import Measurement, measurement_from_json
from onhand.core.progress import Progress
from onhand.core.recipe import Guard
from onhand.device.report_records import ReportStep
from onhand.host.array_files import damage
from onhand.host.calibrate import head_logits, run_original
from onhand.host.compare import compare_states, quality_figures
from onhand.host.model import Model
from onhand.host.passes.base import (
    ShapeReport,
    ShapeWork,
    ShapingPass,
    ShapingStep,
    pass_options,
)
from onhand.host.plan import BuildPlan, matmul_rate
from onhand.host.stored_model import has_model, read_model, write_model
from onhand.host.texts import Texts

__all__ = ["ShapePlan", "Shaped", "ShapedStep", "add_to_forecast", "plan_shaping", "shape_model"]

# Pruned by more than this and not trained again, a decoder is of little use.
_MOST_UNTRAINED = 0.15
_FIGURES = "figures.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapePlan:
    """What all shaping passes would do, from shapes alone.

    Attributes:
        decoder: the model that is stored then.
        reports: of each pass.
        training_tokens: most tokens of text that one of them trains on; 0 for none.
        notes: what the user should know.
    """

    decoder: Decoder
    reports: tuple[ShapeReport, ...] = ()
    training_tokens: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapedStep:
    """What one pass gave.

    Attributes:
        options: the pass and its options, as a recipe has them.
        n_parameters: weights of the model afterwards.
        figures: beside the original on held-out text: see `quality_figures`.
        seconds: that it took, since it was last taken up.
        undone: why it was undone, so that the model before it went on; "" where it was not.
    """

    options: Mapping[str, object]
    n_parameters: int
    figures: Mapping[str, Measurement]
    seconds: float = 0.0
    undone: str = ""

    def to_json(self) -> dict[str, object]:
        """Return what a report says of it."""
        return {
            "options": dict(self.options),
            "n_parameters": self.n_parameters,
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
            "seconds": self.seconds,
            "undone": self.undone,
        }

    def row(self, weight_bits: int) -> ReportStep:
        """Return what a report's table of steps says of it.

        Args:
            weight_bits: of one weight of the source.
        """
        options = (f"{key} {value}" for key, value in self.options.items() if key != "pass")
        return ReportStep(
            name=str(self.options["pass"]),
            options=", ".join(options),
            size_bytes=self.n_parameters * weight_bits // 8,
            n_operations=0,
            lost=self.figures["perplexity_increase"].value,
            seconds=self.seconds,
            undone=self.undone,
        )

    def sentence(self) -> str:
        """Say it in one sentence."""
        figure = {name: found.value for name, found in self.figures.items()}
        undone = ", which is undone" if self.undone else ""
        return (
            f"after {self.options['pass']}{undone}: {self.n_parameters:,} parameters; held-out "
            f"text: {figure['kl_divergence']:.4f} nat from the original, the same likeliest token "
            f"in {figure['top1_agreement']:.2%}, {figure['perplexity_increase']:+.2%} perplexity"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """A shaped model.

    Attributes:
        model: what is stored; the source itself if there was nothing to do.
        steps: what each pass gave.
        hidden: the original's inputs of its head for each held-out sequence; empty if there was
            nothing to do.
    """

    model: Model
    steps: tuple[ShapedStep, ...] = ()
    hidden: Sequence[FloatArray] = field(default_factory=list)


def plan_shaping(decoder: Decoder, steps: Sequence[ShapingStep], *, tokens: int) -> ShapePlan:
    """Say what the passes would give, and refuse what cannot end well.

    Args:
        decoder: the source.
        steps: in the order in which they are run.
        tokens: tokens of the calibration text.

    Returns:
        The plan.

    Raises:
        InputError: if the options do not fit the model, or much is taken out and nothing makes
            good for it.
    """
    reports: list[ShapeReport] = []
    notes: list[str] = []
    for number, step in enumerate(steps):
        name = step.transform.name
        report = step.transform.plan_shape(decoder, tokens=tokens)
        gone = 1 - report.decoder.n_parameters / decoder.n_parameters
        trained = any(
            later.transform.plan_shape(report.decoder, tokens=tokens).trains
            for later in steps[number + 1 :]
        )
        if gone > _MOST_UNTRAINED and step.guard.most_loss is None and not trained:
            raise InputError(
                f"{name} takes out {gone:.0%} of the parameters and nothing trains the rest "
                f'again: add a [[step]] with pass = "distil" behind it, or say with most_loss what '
                "it may lose"
            )
        notes += [f"{name}: {part} stays: {why}" for part, why in report.kept.items()]
        reports.append(report)
        decoder = report.decoder
    return ShapePlan(
        decoder=decoder,
        reports=tuple(reports),
        training_tokens=max((report.training_tokens for report in reports), default=0),
        notes=tuple(notes),
    )


def add_to_forecast(forecast: BuildPlan, source: Decoder, plan: ShapePlan) -> BuildPlan:
    """Add what shaping takes to the forecast of what comes after it.

    Args:
        forecast: of building from the shaped model.
        source: the source.
        plan: of the shaping.

    Returns:
        The forecast of the whole.
    """
    if not plan.reports:
        return forecast
    # Each step is judged on the held-out text, which the original runs over once more.
    judging = 2 * 1.3 * source.n_parameters * forecast.n_tokens * (len(plan.reports) + 1)
    operations = judging + sum(report.operations for report in plan.reports)
    memory = max(report.memory_bytes for report in plan.reports)
    stored = sum(4 * report.decoder.n_parameters for report in plan.reports)
    training = max(12 * r.decoder.n_parameters if r.trains else 0 for r in plan.reports)
    return replace(
        forecast,
        n_parameters=source.n_parameters,
        minutes=forecast.minutes + operations / matmul_rate() / 60,
        build_memory_bytes=max(forecast.build_memory_bytes, memory),
        build_disk_bytes=forecast.build_disk_bytes + stored + training,
        notes=(*forecast.notes, *plan.notes),
    )


def shape_model(
    model: Model,
    steps: Sequence[ShapingStep],
    texts: Texts,
    *,
    budget: Budget,
    folder: Path,
    threads: int,
    progress: Progress,
) -> Shaped:
    """Run the passes, one after the other, and judge each.

    Args:
        model: the source.
        steps: in order.
        texts: what calibrates, trains and judges.
        budget: its limit of quality holds after the last pass: storing the weights gives nothing
            back.
        folder: keeps what each pass gave, for a build that goes on from there.
        threads: threads to use.
        progress: told how far it is.

    Returns:
        The shaped model, and what each pass lost.

    Raises:
        BudgetExceeded: if a pass lost more than it may.
        SourceError: if a weight is not finite.
    """
    if not steps:
        return Shaped(model=model)
    heldout = texts.heldout.sequences
    hidden = _hidden(model, heldout, folder / "original", threads, progress)
    original, done, safe = model, list[ShapedStep](), model
    for number, step in enumerate(steps):
        own = folder / f"{number + 1}-{step.transform.name}"
        own.mkdir(parents=True, exist_ok=True)
        if (own / _FIGURES).is_file():
            made, changed = _read_figures(own), read_model(own, original)
        else:
            begun = time.perf_counter()
            changed = _run(step.transform, model, original, texts, own, threads, progress)
            figures = _judge(original, changed, heldout, hidden, threads, progress)
            made = ShapedStep(
                options=pass_options(step.transform),
                n_parameters=changed.decoder.n_parameters,
                figures=figures,
                seconds=time.perf_counter() - begun,
            )
            progress.note(made.sentence())
            limit = budget if number + 1 == len(steps) else Budget()
            made = _judged(_guard(steps, number, changed.decoder), made, limit, progress)
            _write_figures(own, made)
        done.append(made)
        model = safe if made.undone else changed
        if made.undone and number and _is_trained(steps, number - 1, changed.decoder):
            done[-2] = replace(done[-2], undone=made.undone)
        if not _is_trained(steps, number, changed.decoder):
            safe = model
    return Shaped(model=model, steps=tuple(done), hidden=hidden)


def _is_trained(steps: Sequence[ShapingStep], number: int, decoder: Decoder) -> bool:
    """Say whether the next step makes good for what this one loses."""
    after = steps[number + 1 : number + 2]
    return any(step.transform.plan_shape(decoder, tokens=0).trains for step in after)


def _guard(steps: Sequence[ShapingStep], number: int, decoder: Decoder) -> Guard:
    """Return what a step may lose: nothing is asked before the training behind it."""
    if _is_trained(steps, number, decoder):
        return Guard()
    own = steps[number].guard
    if own.most_loss is None and number and _is_trained(steps, number - 1, decoder):
        return steps[number - 1].guard
    return own


def _run(
    transform: ShapingPass,
    model: Model,
    original: Model,
    texts: Texts,
    folder: Path,
    threads: int,
    progress: Progress,
) -> Model:
    """Run one pass, unless it is finished already; what it gave lies in its folder then."""
    if has_model(folder):
        return read_model(folder, original)
    work = ShapeWork(
        original=original,
        calibration=texts.calibration.sequences,
        training=() if texts.training is None else texts.training.sequences,
        folder=folder,
        threads=threads,
        progress=progress,
    )
    made = transform.shape(model, work)
    if has_model(folder):
        return made
    # It changed nothing, or keeps its weights elsewhere.
    progress.start(f"keeping what {transform.name} gave", made.decoder.n_parameters)
    return write_model(folder, made, advance=progress.advance)


def _hidden(
    model: Model,
    heldout: Sequence[TokenArray],
    folder: Path | None,
    threads: int,
    progress: Progress,
) -> list[FloatArray]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    run = run_original(
        model, calibration=(), heldout=heldout, threads=threads, progress=progress, folder=folder
    )
    return run.hidden


def _judge(
    original: Model,
    model: Model,
    heldout: Sequence[TokenArray],
    hidden: Sequence[FloatArray],
    threads: int,
    progress: Progress,
) -> dict[str, Measurement]:
    """Compare a shaped model with the original, both in float32."""
    ours = _hidden(model, heldout, None, threads, progress)
    figures = compare_states(
        heldout, (hidden, head_logits(original)), (ours, head_logits(model)), progress=progress
    )
    return quality_figures(figures, how="onhand build, before weights are stored as codes")


def _judged(guard: Guard, made: ShapedStep, budget: Budget, progress: Progress) -> ShapedStep:
    """Hold a step to what it may lose.

    Raises:
        BudgetExceeded: if it lost more, and is not to be undone.
    """
    lost, most = made.figures["perplexity_increase"].value, guard.most_loss
    # Not a number is no pass either.
    if most is not None and not lost <= most:
        if guard.undo:
            why = f"{lost:+.2%} perplexity, most_loss allows {most:+.2%}"
            progress.note(f"{made.options['pass']} is undone: {why}")
            return replace(made, undone=why)
        raise BudgetExceeded(
            f"{made.sentence()}; most_loss allows {most:+.2%}: take out less, train longer or on "
            "more text, or allow more"
        )
    limit = budget.perplexity_increase
    if limit is not None and not lost <= limit:
        raise BudgetExceeded(
            f"quality: {made.sentence()}; at most {limit:+.2%} allowed, and storing the weights as "
            "codes gives nothing back: take out less, or train longer or on more text"
        )
    return made


def _write_figures(folder: Path, step: ShapedStep) -> None:
    beside = folder / f"{_FIGURES}.new"
    beside.write_text(json.dumps(step.to_json()), encoding="utf-8")
    beside.replace(folder / _FIGURES)


def _read_figures(folder: Path) -> ShapedStep:
    """Read what `_write_figures` wrote.

    Raises:
        ResourceError: if the file is damaged.
    """
    place = folder / _FIGURES
    try:
        table = json.loads(place.read_text(encoding="utf-8"))
        return ShapedStep(
            options=table["options"],
            n_parameters=int(table["n_parameters"]),
            figures={k: measurement_from_json(v) for k, v in table["figures"].items()},
            seconds=float(table["seconds"]),
            undone=str(table["undone"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise ResourceError(damage(place)) from error
