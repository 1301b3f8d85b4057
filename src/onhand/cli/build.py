"""`onhand build`: a model becomes a bundle that holds its budget, with the proof in it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import typer

from onhand.cli import build_options as given
from onhand.cli import networks, search_network
from onhand.cli.build_network import NETWORK_SUFFIXES, read_recipe, read_variants
from onhand.cli.host_extra import host_extra
from onhand.cli.learnable import wanted_learnable
from onhand.cli.options import AsJson, Threads
from onhand.cli.output import say, write_json
from onhand.cli.plan_table import check_plan, write_plan
from onhand.cli.progress import shown_progress
from onhand.cli.settings import Settings
from onhand.cli.transforms import (
    QuantizeOptions,
    read_decoder_recipe,
    read_shaping,
    read_transforms,
)
from onhand.core.budget import Budget, parse_budget
from onhand.core.errors import BudgetExceeded, InputError
from onhand.core.network import TASKS
from onhand.core.progress import Progress
from onhand.core.recipe import Recipe
from onhand.core.units import parse_bytes
from onhand.device.known_devices import read_device

if TYPE_CHECKING:
    from onhand.host.build import BuildResult
    from onhand.host.learning.wanted import Learnable
    from onhand.host.networks.options import NetworkOptions
    from onhand.host.options import BuildOptions
    from onhand.host.passes.base import Pass, ShapingStep
    from onhand.host.search.choices import SearchSpace

__all__ = ["command"]


class _Steps(TypedDict):
    budget: Budget
    transforms: "Mapping[str, Pass]"
    shaping: "Sequence[ShapingStep]"
    keep_codes: bool
    search: "SearchSpace | None"
    n_variants: int


_FORMAT = ("preset", "method", "group", "asymmetric", "embed_bits", "scale_bits")
_OF_DECODERS = ("adapter", "calibrate", *_FORMAT, "max_ram", "accuracy_level")
_ROUNDING = ("bits", *_FORMAT, "variants")
_OF_NETWORKS = ("recover", "data", "heldout", "calibration_examples", "feed", "labels")


def command(
    context: typer.Context,
    source: given.Source,
    *,
    output: given.Output = None,
    device: given.Device = None,
    budget: given.BudgetLimits = None,
    adapter: given.Adapter = None,
    calibrate: given.Calibrate = None,
    recipe: given.RecipeFile = None,
    bits: given.Bits = None,
    preset: given.Preset = None,
    method: given.Method = None,
    group: given.Group = None,
    asymmetric: given.Asymmetric = False,
    embed_bits: given.EmbedBits = None,
    scale_bits: given.ScaleBits = None,
    variants: given.Variants = None,
    recover: given.Recover = False,
    task: given.Task = None,
    data: given.Data = None,
    heldout: given.Heldout = None,
    calibration_examples: given.CalibrationExamples = None,
    feed: given.Feed = None,
    labels: given.Labels = None,
    accuracy_level: given.AccuracyLevel = 4,
    learnable: given.Learn = None,
    max_ram: given.MaxRam = None,
    plan: given.Plan = False,
    resume: given.Resume = False,
    accept_estimates: given.AcceptEstimates = False,
    threads: Threads = None,
    no_original: given.NoOriginal = False,
    ablate: given.Ablate = False,
    as_json: AsJson = False,
) -> None:
    """Compress a model into a bundle that holds a budget, and prove it."""
    _check_place(output, plan=plan, ablate=ablate)
    if _is_network(context, source, task):
        _network(context, output)
        return
    with host_extra("building"):
        from onhand.host.options import BuildOptions

        work = BuildOptions(
            **_steps(context, recipe, Budget() if budget is None else parse_budget(budget)),
            device=None if device is None else read_device(device),
            calibrate=calibrate,
            max_ram=None if max_ram is None else _size(max_ram),
            accuracy_level=accuracy_level,
            threads=threads,
            accept_estimates=accept_estimates,
            measure_original=not no_original,
            ablate=ablate,
            resume=resume,
            adapter=adapter,
            learnable=_learnable(context.params, read_decoder_recipe),
        )
        _run(context, source, work, None if plan else output, as_json=as_json)


def _check_place(output: Path | None, *, plan: bool, ablate: bool) -> None:
    """Refuse a build that goes nowhere, and a plan that would build.

    Raises:
        InputError: if there is no place for it, and it is no plan; or if a plan is to leave out.
    """
    if plan and ablate:
        raise InputError("--plan builds nothing: leave --ablate out")
    if output is None and not plan:
        raise InputError("where to? give -o NAME, or --plan to see what it would take")


def _steps(context: typer.Context, recipe: Path | None, budget: Budget) -> "_Steps":
    """Return what is done with a language model: what was said, or what a search finds.

    Raises:
        InputError: if points of a front are asked for where nothing is searched.
    """
    options = QuantizeOptions(**{key: context.params[key] for key in _ROUNDING})
    found: _Steps = {
        "budget": budget,
        "transforms": read_transforms(recipe, options.by_name()),
        "shaping": read_shaping(recipe),
        "keep_codes": recipe is None and options.leave_codes(),
        "search": None,
        "n_variants": 1,
    }
    if recipe is None and options.leave_formats() and budget != Budget():
        from onhand.host.search.choices import SearchSpace

        return found | {
            "keep_codes": True,
            "search": SearchSpace(),
            "n_variants": 1 if (points := options.n_points()) is None else points,
        }
    if options.n_points() is not None:
        raise InputError(
            "--variants N takes N points of the front that a search finds: give --budget, and no "
            "other option of how to compress; or name the variants, as in int8,int4"
        )
    return found


def _is_network(context: typer.Context, source: str, task: str | None) -> bool:
    """Say whether the source is a network that is no language model, and check its options.

    Raises:
        InputError: if an option of the other kind is given, or the task is missing.
    """
    if task is not None:
        networks.refuse(context, *_OF_DECODERS, why="language models")
        return True
    if Path(source).suffix.lower() in NETWORK_SUFFIXES:
        raise InputError(f"{source}: what is it for? give --task, one of {', '.join(TASKS)}")
    networks.refuse(context, *_OF_NETWORKS, why="networks: say with --task what this one is for")
    return False


def _network(context: typer.Context, output: Path | None) -> None:
    """Build a network from the command's options, or search for how."""
    asked = context.params
    searched = search_network.is_search(asked)
    with host_extra("building"):
        from onhand.host.networks.options import NetworkOptions

        budget, device = asked["budget"], asked["device"]
        n_examples = asked["calibration_examples"]
        work = NetworkOptions(
            task=asked["task"],
            variants={"mixed": ()}
            if searched
            else read_variants(
                asked["recipe"],
                bits=asked["bits"],
                variants=asked["variants"],
                task=asked["task"],
                recover=asked["recover"],
            ),
            data=asked["data"],
            heldout=asked["heldout"],
            feed=asked["feed"],
            labels=asked["labels"],
            n_calibration=100 if n_examples is None else n_examples,
            budget=Budget() if budget is None else parse_budget(budget),
            device=None if device is None else read_device(device),
            accept_estimates=asked["accept_estimates"],
            threads=asked["threads"],
            measure_original=not asked["no_original"],
            ablate=asked["ablate"],
            resume=asked["resume"],
            learnable=_learnable(asked, read_recipe),
        )
        settings: Settings = context.obj
        source, home, as_json = asked["source"], settings.home(), asked["as_json"]
        if asked["plan"]:
            search_network.plan(source, work, home=home, as_json=as_json)
        elif output is not None and searched:
            n_variants = search_network.wanted_variants(asked) or 1
            _search(source, work, output, n_variants=n_variants, home=home, as_json=as_json)
        elif output is not None:
            _build_network(source, work, output, home=home, as_json=as_json)


def _learnable(asked: Mapping[str, Any], read: Callable[[Path], Recipe]) -> "Learnable | None":
    recipe: Path | None = asked["recipe"]
    said = "" if recipe is None else read(recipe).learnable
    return wanted_learnable(asked["learnable"], said, recipe)


def _run(
    context: typer.Context,
    source: str,
    work: "BuildOptions",
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    """Build, or only plan where there is no place for the bundle."""
    settings: Settings = context.obj
    if output is None:
        _plan(source, work, home=settings.home(), as_json=as_json)
    else:
        _build(source, work, output, home=settings.home(), as_json=as_json)


def _plan_search(source: str, work: "BuildOptions", *, home: Path, as_json: bool) -> None:
    """Show the front that a search would find.

    Raises:
        BudgetExceeded: if no point of it can hold the budget.
    """
    from onhand.cli.search_table import write_search_plan
    from onhand.host.search.planning import plan_searched

    with shown_progress() as progress:
        made = plan_searched(source, work, home=home, progress=progress)
    if as_json:
        write_json(made.to_json())
    else:
        write_search_plan(made)
    if made.refusal is not None:
        raise BudgetExceeded(made.refusal.sentence(made.limits))


def _plan(source: str, work: "BuildOptions", *, home: Path, as_json: bool) -> None:
    if work.search is not None:
        _plan_search(source, work, home=home, as_json=as_json)
        return
    from onhand.host.build import plan_build

    with shown_progress() as progress:
        made = plan_build(source, work, home=home, progress=progress)
    if as_json:
        write_json(made.to_json())
    else:
        write_plan(made)
    check_plan(made, work.budget)


def _build(source: str, work: "BuildOptions", output: Path, *, home: Path, as_json: bool) -> None:
    from onhand.host.build import build_bundle

    def build(progress: Progress) -> "BuildResult":
        return build_bundle(source, output, work, home=home, progress=progress)

    _built(build, output, as_json=as_json)


def _build_network(
    source: str, work: "NetworkOptions", output: Path, *, home: Path, as_json: bool
) -> None:
    from onhand.host.networks.build import build_network

    def build(progress: Progress) -> "BuildResult":
        return build_network(source, output, work, home=home, progress=progress)

    _built(build, output, as_json=as_json)


def _search(
    source: str,
    work: "NetworkOptions",
    output: Path,
    *,
    n_variants: int,
    home: Path,
    as_json: bool,
) -> None:
    def build(progress: Progress) -> "BuildResult":
        return search_network.search(
            source, output, work, n_variants=n_variants, home=home, progress=progress
        )

    _built(build, output, as_json=as_json)


def _built(build: Callable[[Progress], "BuildResult"], output: Path, *, as_json: bool) -> None:
    """Build, and show the report.

    Raises:
        KeyboardInterrupt: as it came; what is kept has been said.
    """
    from onhand.host.work import work_folder

    try:
        with shown_progress() as progress:
            made = build(progress)
    except KeyboardInterrupt:
        if (kept := work_folder(output)).exists():
            say(f"note: what is finished is kept in {kept}: go on with --resume, or remove it")
        raise
    if as_json:
        write_json(made.report)
    else:
        from onhand.cli.report_table import write_report_table
        from onhand.device.report_data import parse_report

        write_report_table(parse_report(made.report))
    say(f"note: the bundle is {made.root}; its report as a page: {made.root / 'report.html'}")


def _size(text: str) -> int:
    try:
        size = parse_bytes(text)
    except InputError as error:
        raise InputError(f"--max-ram: {error}") from error
    if size < 1:
        raise InputError(f"--max-ram is {text!r}, must be above 0")
    return size
