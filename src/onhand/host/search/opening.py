"""From a model and its statistics to a planner: formats, sensitivity, costs, first corrections."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from onhand import __version__
from onhand.core.arrays import TokenArray
from onhand.core.budget import AXES, Budget
from onhand.core.errors import BudgetExceeded, InputError
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.host.calibrate import InputStatistics
from onhand.host.costs.decoders import FIGURES
from onhand.host.costs.kept import kept_calibration
from onhand.host.costs.models import costs_of_model
from onhand.host.model import Model
from onhand.host.search.choices import (
    Form,
    SearchSpace,
    able_forms,
    tie_names,
    usual_space,
)
from onhand.host.search.correction import Observation
from onhand.host.search.cost_table import Costs, CostTable, cost_table
from onhand.host.search.ground import Ground, stored_trial
from onhand.host.search.kept_losses import QUICK, THOROUGH, read_losses, table_name
from onhand.host.search.knapsack import Choice, Group, hull_front, tie_groups
from onhand.host.search.perturb import run_trials
from onhand.host.search.planner import Planner
from onhand.host.search.sensitivity import (
    FormLoss,
    first_tokens,
    measure_sensitivity,
)
from onhand.host.search.store import SearchStore
from onhand.host.search.treated_costs import with_treatments
from onhand.host.search.widening import least_rows, widen

__all__ = [
    "QUICK",
    "THOROUGH",
    "Basis",
    "Opened",
    "check_costs",
    "knows_losses",
    "open_planner",
]

_FORMAT = 3
_WHOLE_TOKENS = 2048
# Damages of the whole at which a small model is run as a whole, to correct the sum of its parts.
_WHOLE_DAMAGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a search starts from.

    Attributes:
        model: what is stored.
        statistics: of the calibration text.
        sequences: that text, (T,) int64 each.
        text_sha256: its hash.
        profile: of the device built for.
        budget: what must hold.
        space: what may be chosen.
        accuracy_level: of the bundle's graphs.
        threads: threads to use.
        home: the state folder.
        shaping: what made the model from its source: part of its identity.
    """

    model: Model
    statistics: InputStatistics
    sequences: Sequence[TokenArray]
    text_sha256: str
    profile: DeviceProfile
    budget: Budget
    space: SearchSpace
    accuracy_level: int
    threads: int
    home: Path
    shaping: Sequence[object] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A search that may begin.

    Attributes:
        planner: knows what to build.
        ground: model, text and store.
        losses: what each matrix loses in each format.
        engine: the engine that is to run the model.
        notes: what the user should know.
    """

    planner: Planner
    ground: Ground
    losses: Sequence[FormLoss]
    engine: str
    notes: tuple[str, ...]


def open_planner(basis: Basis, *, operations: float, progress: Progress) -> Opened:
    """Find out what each choice loses and costs.

    Args:
        basis: what there is.
        operations: that measuring what layers lose may take: `QUICK` or `THOROUGH`.
        progress: told how far it is.

    Returns:
        The planner, and what it stands on.

    Raises:
        InputError: if the budget limits what no forecast knows, or the space has no format that
            the engine can run.
    """
    decoder = basis.model.decoder
    _check_budget(basis.budget)
    space = usual_space(basis.space)
    forms = space.forms
    engine, able, reasons = able_forms(
        decoder, forms, basis.profile, accuracy_level=basis.accuracy_level
    )
    if barren := [name for name, own in able.items() if not own]:
        raise InputError(f"search: {engine} runs none of the formats for {barren[0]}")
    ground = Ground(
        model=basis.model,
        statistics=basis.statistics,
        sequences=basis.sequences,
        method=basis.space.method,
        scale_bits=space.scale_bits,
        store=SearchStore.at(basis.home, _content(basis)),
        threads=basis.threads,
    )
    losses, observations = _kept_losses(ground, able, space, operations, progress)
    costs = _cost_model(basis.model, basis.profile, threads=basis.threads, home=basis.home)
    shapes = decoder.matrices()
    table = with_treatments(cost_table(costs, able, FIGURES), costs, able, losses, shapes)
    groups, members = _groups(losses, table, basis.space.ties)
    sizes = {(row.matrix, row.form): row.size_bytes for row in losses}

    def label(choices: Mapping[str, str]) -> str:
        return _label(shapes, {name: sizes[name, text] for name, text in choices.items()})

    return Opened(
        planner=Planner(
            groups=groups,
            members=members,
            table=table,
            budget=basis.budget,
            observations=list(observations),
            label=label,
        ),
        ground=ground,
        losses=losses,
        engine=engine,
        notes=tuple(f"{form} is not tried: {_short(why)}" for form, why in reasons.items()),
    )


def knows_losses(basis: Basis, *, operations: float) -> bool:
    """Say whether what choices lose is kept from before, so that no statistics are needed.

    Args:
        basis: what there is; its statistics are not looked at.
        operations: as in `open_planner`.

    Raises:
        EngineUnavailable: if no engine runs the model.
    """
    space = usual_space(basis.space)
    _, able, _ = able_forms(
        basis.model.decoder, space.forms, basis.profile, accuracy_level=basis.accuracy_level
    )
    store = SearchStore.at(basis.home, _content(basis))
    return read_losses(store, able, space, operations) is not None


def check_costs(
    model: Model,
    budget: Budget,
    space: SearchSpace,
    profile: DeviceProfile,
    *,
    accuracy_level: int,
    threads: int,
    home: Path,
) -> None:
    """Refuse a budget whose limits but that of quality cannot hold, from shapes alone.

    How far ranks can go down shows only in the weights: here they may be the lowest there are, so
    that nothing is refused which a search could reach. What is nearest is said of plain formats.

    Args:
        model: the source; its weights are not read.
        budget: what must hold.
        space: what may be chosen.
        profile: of the device built for.
        accuracy_level: of the bundle's graphs.
        threads: threads to use.
        home: the state folder.

    Raises:
        BudgetExceeded: with the limit that binds, and the nearest point.
        InputError: if the budget limits what no forecast knows.
    """
    _check_budget(budget)
    space = usual_space(space)
    decoder = model.decoder
    _, able, _ = able_forms(decoder, space.forms, profile, accuracy_level=accuracy_level)
    costs = _cost_model(model, profile, threads=threads, home=home)
    table = cost_table(costs, able, FIGURES)
    asked = replace(budget, perplexity_increase=None)
    shapes = decoder.matrices()
    rows = least_rows(decoder, able, space)
    if (refusal := _planner_of_costs(table, rows, shapes, asked).refusal()) is None:
        return
    widest = with_treatments(table, costs, able, rows, shapes)
    if _planner_of_costs(widest, rows, shapes, asked).refusal() is not None:
        raise BudgetExceeded(refusal.sentence(asked.limits()))


def _planner_of_costs(
    table: CostTable,
    rows: Sequence[FormLoss],
    shapes: Mapping[str, tuple[int, int]],
    budget: Budget,
) -> Planner:
    """Return a planner for which no choice loses anything."""
    sizes = {(row.matrix, row.form): row.size_bytes for row in rows}
    groups = [
        Group(
            name,
            tuple(Choice(name=text, damage=0.0, costs=cost) for text, cost in own.items()),
        )
        for name, own in table.each.items()
    ]
    return Planner(
        groups=groups,
        members={name: [name] for name in table.each},
        table=table,
        budget=budget,
        observations=[],
        label=lambda choices: _label(
            shapes, {name: sizes[name, text] for name, text in choices.items()}
        ),
    )


def _check_budget(budget: Budget) -> None:
    """Refuse limits of what no forecast knows.

    Raises:
        InputError: if there is one.
    """
    for key in budget.limits():
        if AXES[key].measurement not in {*FIGURES, "perplexity_increase"}:
            raise InputError(f"budget: {key!r} is for networks that are no language models")


def _short(reason: str) -> str:
    """Return a reason without what it says of a bundle that was never written."""
    return re.sub(r"^.*? here: ", "", reason)


def _content(basis: Basis) -> dict[str, object]:
    """Return all that decides what is kept."""
    return {
        "adapter": basis.model.adapter_sha256,
        "format": _FORMAT,
        "method": basis.space.method,
        "scale_bits": usual_space(basis.space).scale_bits,
        "numpy": version("numpy"),
        "onhand": __version__,
        "shaping": list(basis.shaping),
        "source": basis.model.sha256,
        "text": basis.text_sha256,
        "threads": basis.threads,
    }


def _cost_model(model: Model, profile: DeviceProfile, *, threads: int, home: Path) -> Costs:
    """Return the cost model, with this device's calibration if there is one."""
    calibration = kept_calibration(home, profile)
    return costs_of_model(model, profile, threads=threads, calibration=calibration)


def _kept_losses(
    ground: Ground,
    able: Mapping[str, Sequence[Form]],
    space: SearchSpace,
    operations: float,
    progress: Progress,
) -> tuple[list[FormLoss], list[Observation]]:
    """Return the table and the first observations: those that are kept, or measured now."""
    kept = read_losses(ground.store, able, space, operations)
    if kept is not None:
        return kept
    losses = measure_sensitivity(ground, able, operations=operations, progress=progress)
    losses = _in_order([
        *losses,
        *widen(ground, losses, space, operations=operations / 2, progress=progress),
    ])
    whole = _run_whole(ground, losses, progress) if ground.is_small else []
    table = {
        "rows": [row.to_json() for row in losses],
        "whole": [asdict(one) for one in whole],
    }
    ground.store.write(table_name(able, space, operations), table)
    return losses, whole


def _in_order(losses: Sequence[FormLoss]) -> list[FormLoss]:
    """Return the rows of each matrix together, matrices in the order in which they came."""
    names = dict.fromkeys(row.matrix for row in losses)
    return [row for name in names for row in losses if row.matrix == name]


def _run_whole(ground: Ground, losses: Sequence[FormLoss], progress: Progress) -> list[Observation]:
    """Run a small model as a whole at a few places of the front."""
    groups = [
        Group(
            name,
            tuple(
                Choice(name=row.form, damage=row.damage, costs=(float(row.size_bytes),))
                for row in losses
                if row.matrix == name
            ),
        )
        for name in dict.fromkeys(row.matrix for row in losses)
    ]
    front = hull_front(groups)
    wanted = {
        min(range(len(front)), key=lambda i: (abs(front[i].damage / damage - 1), i)): None
        for damage in _WHOLE_DAMAGES
    }
    picks = [front[i] for i in wanted if front[i].damage > 0]
    trials = [stored_trial(ground, pick.choices) for pick in picks]
    found = run_trials(
        ground.model,
        trials,
        first_tokens(ground.sequences, _WHOLE_TOKENS),
        threads=ground.threads,
        progress=progress,
        what="running a few points of the front",
    )
    return [
        Observation(
            damage=pick.damage,
            divergence=loss.divergence,
            loss_increase=loss.loss_increase,
            is_real=False,
        )
        for pick, loss in zip(picks, found, strict=True)
    ]


def _groups(
    losses: Sequence[FormLoss], table: CostTable, ties: Sequence[str]
) -> tuple[list[Group], dict[str, Sequence[str]]]:
    """Return the groups that a knapsack chooses for, and the matrices of each."""
    names = list(dict.fromkeys(row.matrix for row in losses))
    groups = [
        Group(
            name,
            tuple(
                Choice(name=row.form, damage=row.damage, costs=table.each[name][row.form])
                for row in losses
                if row.matrix == name
            ),
        )
        for name in names
    ]
    tied = [group for group in tie_names(names, ties) if len(group) > 1]
    members: dict[str, Sequence[str]] = {" + ".join(group): group for group in tied}
    inside = {name for group in tied for name in group}
    members |= {name: [name] for name in names if name not in inside}
    return tie_groups(groups, tied), members


def _label(shapes: Mapping[str, tuple[int, int]], sizes: Mapping[str, int]) -> str:
    """Return a name that says how large a point is: the mean bits of a weight."""
    bits = 8 * sum(sizes.values())
    return f"mixed-{bits / sum(n * k for n, k in shapes.values()):.2f}bit"
