"""Which variant of a bundle is opened: the quickest here of those that hold the bundle's budget."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from onhand.core.budget import AXES, Budget
from onhand.core.bundle import REPORT, Bundle
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.core.outside import parse_json
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress, Quiet
from onhand.device.networks.base import NetworkEngine, NetworkLoaded
from onhand.device.networks.choosing import Race, final_name, keep_race, race_name, recall_race
from onhand.device.networks.opening import OpenedNetwork, able_engines, open_adapted, threads_of_run
from onhand.device.networks.thread_races import ThreadRaces
from onhand.device.networks.timing import random_feeds, time_interleaved
from onhand.device.probe import current_profile
from onhand.device.report_data import parse_report
from onhand.device.report_records import Report

__all__ = ["Choice", "allowed_variants", "choose_quickest", "open_quickest", "recall_choice"]

_LOSS: Final = "quality_loss"
_MAX_REPORT_BYTES: Final = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A variant and the engine that runs it.

    Attributes:
        variant: a key of the bundle's variants.
        engine: name of a registered engine; "" where it is not known yet.
        variants: each other variant -> why it was not taken; empty where one was asked for.
        engines: each other engine -> why it was not taken for this variant.
        threads: of one run; 0 where it is not known yet.
    """

    variant: str
    engine: str
    threads: int = 0
    variants: Mapping[str, str] = field(default_factory=dict)
    engines: Mapping[str, str] = field(default_factory=dict)

    def sentence(self) -> str:
        """Say in one line what was chosen, and why no other variant was."""
        others = "".join(f"; {name} {reason}" for name, reason in self.variants.items())
        return f"variant {self.variant}{f' in {self.engine}' * bool(self.engine)}{others}"


def open_quickest(
    bundle: Bundle,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    home: Path | None = None,
    progress: Progress | None = None,
) -> tuple[NetworkLoaded, Choice]:
    """Open a network in the variant and the engine that are quickest here.

    Of several variants, those that `allowed_variants` names take part, each in the engine that
    `open_network` takes; they are timed in turn once, for about a second, and what they took is
    kept in the state folder. Variants within 5 % are alike: the default one is taken then.
    Without a state folder nothing is timed: the default variant is taken.

    Args:
        bundle: a verified bundle of a network.
        variant: one of its variants; None to choose.
        engine: name of a registered engine; None to choose.
        threads: threads of one run; None for what this process may use.
        home: the state folder; None for none.
        progress: told of what could not be kept there.

    Returns:
        The network, and what was chosen.

    Raises:
        InputError: if there is no such variant or engine, `threads` is below 1, or the bundle
            holds a language model.
        BundleCorrupt: if graph, weights and manifest do not match.
        EngineUnavailable: if no engine can run it here.
        EngineError: if every engine that should run it fails.
    """
    ways = _Ways(bundle=bundle, engine=engine, threads=threads, home=home, progress=progress)
    if variant is not None:
        return _chosen(ways.open(variant), variant, {})
    allowed, refused = allowed_variants(bundle)
    if home is None:
        untimed = dict.fromkeys(allowed[1:], "is not timed: there is no state folder")
        allowed, refused = allowed[:1], refused | untimed
    if home is None or len(allowed) == 1:
        return _chosen(ways.open(allowed[0]), allowed[0], refused)
    name, able, unable = _name_of_final(ways, allowed)
    done = recall_race(home, bundle, name, allowed)
    if done is None:
        done = _final(ways, tuple(able), unable)
        what = "the choice of a variant"
        keep_race(home, bundle, name, done, what=what, progress=progress or Quiet())
    winner = done.winner()
    return _chosen(ways.open(winner), winner, done.reasons() | refused)


def _chosen(
    opened: OpenedNetwork, variant: str, others: Mapping[str, str]
) -> tuple[NetworkLoaded, Choice]:
    return opened.loaded, Choice(
        variant=variant,
        engine=opened.engine,
        threads=opened.threads,
        variants=others,
        engines=opened.reasons,
    )


def choose_quickest(
    bundle: Bundle,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    home: Path | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Return what `open_quickest` would open; arguments and errors are the same."""
    loaded, choice = open_quickest(
        bundle, variant=variant, engine=engine, threads=threads, home=home, progress=progress
    )
    loaded.close()
    return choice


def recall_choice(bundle: Bundle, *, home: Path) -> Choice | None:
    """Return what opening takes, where that was timed before; nothing is opened.

    Args:
        bundle: of a network; its files need not be verified.
        home: the state folder.

    Returns:
        The choice; None where variants were not timed yet, or only one may be taken.

    Raises:
        EngineUnavailable: if no engine can run any variant here.
    """
    allowed, refused = allowed_variants(bundle)
    ways = _Ways(bundle=bundle, engine=None, threads=None, home=home, progress=None)
    if len(allowed) == 1:
        return None
    name, _, _ = _name_of_final(ways, allowed)
    done = recall_race(home, bundle, name, allowed)
    if done is None:
        return None
    winner, profile = done.winner(), current_profile()
    engines, reasons = able_engines(bundle, profile, variant=winner)
    most = threads_of_run(None, profile)
    place = race_name(winner, engines, profile, threads=most)
    between = recall_race(home, bundle, place) if len(engines) > 1 else None
    known = next(iter(engines)) if len(engines) == 1 else ""
    engine = known if between is None else between.winner()
    races = ThreadRaces(bundle=bundle, variant=winner, profile=profile, most=most, home=home)
    return Choice(
        variant=winner,
        engine=engine,
        threads=races.known(engine) if engine else 0,
        variants=done.reasons() | refused,
        engines=reasons if between is None else reasons | between.reasons(),
    )


def allowed_variants(bundle: Bundle) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the variants that may be taken for their speed.

    The default variant always may: the budget has judged it. Another one may where the bundle's
    report shows that it holds the same limits of size, memory and loss, and, where no loss is
    allowed for, that it loses no more than the default one, or is the source as it was. Limits of
    time are for the device that the bundle was built for; here, times are measured.

    Args:
        bundle: of a network.

    Returns:
        Their names, the default one first; and why each other one may not.
    """
    default = bundle.manifest.default_variant
    others = sorted(set(bundle.manifest.variants) - {default})
    if not others:
        return (default,), {}
    report = _read_report(bundle)
    refused = {name: why for name in others if (why := _why_refused(bundle, report, name))}
    return (default, *(name for name in others if name not in refused)), refused


def _why_refused(bundle: Bundle, report: Report | str, name: str) -> str | None:
    if isinstance(report, str):
        return f"is not taken unasked: {report}"
    if name not in report.variants or report.default_variant not in report.variants:
        return "is not taken unasked: the report says nothing of it"
    figures = report.variants[name].figures
    limits = {AXES[key].measurement: value for key, value in report.limits.items()
              if not AXES[key].timed}  # fmt: skip
    breaches = Budget(**limits).breaches(figures.values(), accept_estimates=True)
    if breaches:
        said = "; ".join(f"{one.key} {one.why}" for one in breaches)
        return f"is over the budget: {said}"
    recipe = bundle.manifest.provenance.get("recipe")
    if _LOSS in limits or (isinstance(recipe, dict) and recipe.get(name) == []):
        return None
    ours, theirs = figures.get(_LOSS), report.variants[report.default_variant].figures.get(_LOSS)
    if ours is None or theirs is None:
        return "is not taken unasked: nobody measured what it loses"
    if ours.value > max(theirs.value, 0.0):
        return (
            f"is not taken unasked: it loses {ours.value:.2%}, {report.default_variant} "
            f"{theirs.value:.2%}, and no budget allows for a loss"
        )
    return None


def _read_report(bundle: Bundle) -> Report | str:
    """Return the bundle's report, or why there is none to go by."""
    path = bundle.root / REPORT
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_REPORT_BYTES + 1)
        table = parse_json(content) if len(content) <= _MAX_REPORT_BYTES else None
        report = parse_report(table) if isinstance(table, dict) else None
    except FileNotFoundError:
        return "no report says what it loses"
    except (OSError, InputError) as error:
        return f"the report cannot be read: {error}"
    if report is None:
        return "the report cannot be read"
    if report.manifest_sha256 != bundle.manifest_sha256:
        return "the report is that of another bundle"
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ways:
    """A bundle and how its variants are opened."""

    bundle: Bundle
    engine: str | None
    threads: int | None
    home: Path | None
    progress: Progress | None

    def open(self, variant: str) -> OpenedNetwork:
        return open_adapted(
            self.bundle,
            variant=variant,
            engine=self.engine,
            threads=self.threads,
            home=self.home,
            progress=self.progress,
        )


def _name_of_final(
    ways: _Ways, variants: tuple[str, ...]
) -> tuple[str, dict[str, dict[str, NetworkEngine]], dict[str, EngineError]]:
    """Return the name to remember by, variant -> its engines, and variants that none can run.

    Raises:
        EngineUnavailable: if that are all.
    """
    profile: DeviceProfile = current_profile()
    able: dict[str, dict[str, NetworkEngine]] = {}
    unable: dict[str, EngineError] = {}
    for name in variants:
        try:
            able[name], _ = able_engines(ways.bundle, profile, variant=name, wanted=ways.engine)
        except EngineUnavailable as error:
            unable[name] = error
    if not able:
        raise unable[variants[0]]
    name = final_name(able, profile, threads=threads_of_run(ways.threads, profile))
    return name, able, unable


def _final(ways: _Ways, variants: tuple[str, ...], unable: Mapping[str, EngineError]) -> Race:
    """Time variants in turn, each in its quickest engine.

    Raises:
        EngineError: if none can be opened and run.
    """
    feeds = random_feeds(ways.bundle.manifest.network)
    failed: dict[str, EngineError] = dict(unable)
    runs: dict[str, Callable[[], object]] = {}
    with ExitStack() as opened:
        for name in variants:
            try:
                loaded = ways.open(name).loaded
                opened.callback(loaded.close)
                loaded.run(feeds)
            except EngineError as error:
                failed[name] = error
            else:
                runs[name] = partial(loaded.run, feeds)
        if not runs:
            raise failed[variants[0]]
        times = time_interleaved(runs)
    return Race(
        latency_s={name: median(taken) for name, taken in times.items()},
        failed={name: str(error) for name, error in failed.items()},
    )
