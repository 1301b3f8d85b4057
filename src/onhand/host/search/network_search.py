"""One search over a network's choices: what is built next, and what its builds teach."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from onhand.core.budget import AXES, Breach, Budget
from onhand.core.errors import BudgetExceeded
from onhand.core.measurement import Measurement, measurement_from_json
from onhand.device.networks.bench import bench_network
from onhand.device.networks.boxes import box_reader
from onhand.host.networks.judge import Answers, answer_bundle, answer_graph, compare_answers
from onhand.host.networks.pack import pack_network
from onhand.host.networks.steps import Step
from onhand.host.search.lesson_room import room_beside_network
from onhand.host.search.network_bases import bases_for, steps_of
from onhand.host.search.network_budget import next_candidate, refuse
from onhand.host.search.network_front import Candidate, candidates, dominated, picks_under
from onhand.host.search.network_ground import Ground, Standing, speed_scale
from onhand.host.search.network_report import label_of, points_json, sensitivity_json
from onhand.host.transfer import figures_for

__all__ = ["MOST_BUILDS", "NetworkPlan", "NetworkSearch"]

MOST_BUILDS: Final = 6
"""Points of a front that one search builds, at most."""
_BLOCKS: Final = 3
# How far above a ceiling a forecast may lie and still be worth a build.
_MOST_OVER: Final = 0.25
# Times are judged on their slow side: this much is put by until a build has told.
_FIRST_SCALES: Final = {"latency_s": 1.05}
_TIMED: Final = ("latency_s", "load_s", "cold_start_s")
_LEAST_SCALE, _MOST_SCALE = 0.25, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """A predicted front.

    Attributes:
        front: its points, by rising loss.
        refusal: why none is predicted to hold the budget; "" where one is.
        chosen: the point that would be built first; None where there is none.
        sensitivity: rows as `sensitivity_json` has them.
    """

    front: tuple[Candidate, ...]
    refusal: str
    chosen: Candidate | None
    sensitivity: list[dict[str, object]]

    def to_json(self) -> dict[str, object]:
        """Return a JSON object, with the front as reports have it."""
        return {
            "front": points_json(self.front, {}, self.chosen),
            "refusal": self.refusal or None,
            "sensitivity": self.sensitivity,
        }


class NetworkSearch:
    """One search; used by one thread."""

    def __init__(self, ground: Ground) -> None:
        """Look at all bases.

        Args:
            ground: what the search stands on.

        Raises:
            InputError: if the network has no layers with choices.
            EngineError: if a graph cannot run.
        """
        self._ground = ground
        self._budget = ground.options.budget
        self.standings: dict[str, Standing] = {}
        for base in bases_for(ground.options.task):
            if (standing := ground.stand(base)) is not None:
                self.standings[base.label] = standing
        self._budget = self._with_room()
        self.front = self._front()
        self.scales: dict[str, float] = dict(_FIRST_SCALES)
        self.measured: dict[int, dict[str, Measurement]] = {}
        self._original: Answers | None = None

    def _with_room(self) -> Budget:
        """Return the budget without what the bundle's lesson takes."""
        ground, standing = self._ground, next(iter(self.standings.values()), None)
        if standing is None or ground.options.learnable is None or self._budget.size_bytes is None:
            return self._budget
        # The point that loses most has most operators of rounding.
        one = max(candidates(standing.spaces()[0]), key=lambda made: made.damage)
        return room_beside_network(
            self._budget,
            ground.ready,
            standing.work.made(one.choices),
            ground.options.learnable,
            progress=ground.progress,
        )

    def _front(self) -> list[Candidate]:
        scale = speed_scale(self._ground.ready.profile, self._ground.here)
        limits = self._budget
        found: list[Candidate] = []
        for standing in self.standings.values():
            for space in standing.spaces():
                found += candidates(space)
                found += picks_under(
                    space,
                    size_bytes=limits.size_bytes,
                    latency_s=None if limits.latency_s is None else limits.latency_s / scale,
                    memory=limits.peak_memory_bytes,
                )
        if scale != 1.0:
            found = [_slower(one, scale) for one in found]
        distinct = {
            (one.space.base, one.space.engine, tuple(one.choices.values())): one for one in found
        }
        every = list(distinct.values())
        best = [one for one in every if not any(dominated(one, other) for other in every)]
        return sorted(best, key=lambda one: (one.damage, label_of(one)))

    def plan(self) -> NetworkPlan:
        """Return the predicted front, and whether it holds the budget."""
        refusal = refuse(self.front, self._budget)
        return NetworkPlan(
            front=tuple(self.front),
            refusal="" if refusal is None else refusal.sentence(label_of(refusal.nearest)),
            chosen=self._next() if refusal is None else None,
            sensitivity=self.sensitivity(),
        )

    def sensitivity(self) -> list[dict[str, object]]:
        """Return rows for the report."""
        return sensitivity_json(next(iter(self.standings.values())).spaces()[0])

    def find(self, most_builds: int = MOST_BUILDS) -> Candidate:
        """Build and measure points near the budget until one holds it.

        Args:
            most_builds: how many, at most; those kept from before count as well.

        Returns:
            The best point that holds every ceiling.

        Raises:
            BudgetExceeded: if none does: with the ceiling that binds, and the nearest point.
            EngineError: if a bundle does not run.
        """
        refusal = refuse(self.front, self._budget, scales=dict.fromkeys(_TIMED, 1 - _MOST_OVER))
        if refusal is not None:
            raise BudgetExceeded(refusal.sentence(label_of(refusal.nearest)))
        tried: list[tuple[Candidate, list[Breach]]] = []
        while len(tried) < most_builds and (one := self._next()) is not None:
            breaches = self.try_one(one)
            if not breaches:
                return one
            tried.append((one, breaches))
        raise BudgetExceeded(_refused(tried, self.front, self._budget.limits()))

    def try_one(self, one: Candidate) -> list[Breach]:
        """Build a point, measure it, and learn from it.

        Args:
            one: of the front.

        Returns:
            The ceilings that it does not hold.

        Raises:
            EngineError: if the bundle does not run.
        """
        figures = self.measure(one)
        self.measured[self._place(one)] = figures
        for name, figure in figures.items():
            wanted = one.predicted.get(name)
            if wanted and figure.value > 0:
                slow = figure.value + (figure.spread if name in _TIMED else 0.0)
                ratio = min(max(slow / wanted, _LEAST_SCALE), _MOST_SCALE)
                self.scales[name] = ratio
        return self._budget.breaches(
            figures.values(), accept_estimates=self._ground.options.accept_estimates
        )

    def others(self, chosen: Candidate, n: int) -> list[Candidate]:
        """Return more points of the front for a bundle: smaller or faster ones, and finer ones.

        Args:
            chosen: the answer.
            n: how many.
        """
        same = [one for one in self.front if one.space.engine == chosen.space.engine]
        coarser = sorted((o for o in same if o.damage > chosen.damage), key=lambda o: o.damage)
        finer = sorted((o for o in same if o.damage < chosen.damage), key=lambda o: -o.damage)
        coarser = [o for o in coarser if _costs_less(o, chosen)]
        found: list[Candidate] = []
        n_coarser = min(len(coarser), (n + 1) // 2)
        for part, wanted in ((coarser, n_coarser), (finer, n - n_coarser)):
            found += [part[len(part) * (i + 1) // (wanted + 1)] for i in range(wanted) if part]
        return list({id(one): one for one in found if one is not chosen}.values())

    def together(self, chosen: Candidate, n: int) -> list[Candidate]:
        """Return points for one bundle: the answer, and others as far as the disk allows.

        Args:
            chosen: the answer.
            n: how many in all.
        """
        points, room = [chosen], self._budget.size_bytes
        for one in self.others(chosen, n - 1):
            taken = sum(point.predicted["size_bytes"] for point in (*points, one))
            if room is None or taken <= room:
                points.append(one)
        return points

    def steps(self, one: Candidate) -> tuple[Step, ...]:
        """Return the recipe of a point."""
        standing = self.standings[one.space.base]
        return steps_of(standing.base, one.choices, bias_correction=standing.work.bias_correction)

    def findings(self, chosen: Candidate) -> dict[str, object]:
        """Return what the report says of the search."""
        built = {place: figures for place, figures in self.measured.items() if figures}
        return {
            "front": points_json(self.front, built, chosen),
            "sensitivity": self.sensitivity(),
            "notes": [
                f"chosen by a search: {label_of(chosen)}; {len(self.front)} points predicted, "
                f"{len(built)} built and measured"
            ],
        }

    def measure(self, one: Candidate) -> dict[str, Measurement]:
        """Build a point and measure it in fresh processes, or recall what was measured before.

        Args:
            one: of the front.

        Raises:
            EngineError: if the bundle does not run.
        """
        ground, ready = self._ground, self._ground.ready
        key = {"base": one.space.base, "choices": dict(one.choices), "engine": one.space.engine}
        name = f"built-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]}"
        kept = ground.store.read(name)
        if kept is not None:
            return {n: measurement_from_json(figure) for n, figure in kept.items()}
        standing = self.standings[one.space.base]
        with tempfile.TemporaryDirectory(prefix="onhand-search-") as folder:
            root = Path(folder) / "built"
            root.mkdir()
            graph = standing.work.made(one.choices)
            pack_network(ready.model, ready.network, {"mixed": graph}, root, provenance={})
            figures, engine = bench_network(
                root,
                engine=one.space.engine,
                threads=ready.threads,
                runs=_BLOCKS,
                profile=ground.here,
                progress=ground.progress,
            )
            figures = figures_for(ready.profile, ground.here, figures)
            if len(ready.data.heldout):
                figures |= self._quality(root, engine)
        ground.store.write(name, {n: figure.to_json() for n, figure in figures.items()})
        return figures

    def _quality(self, root: Path, engine: str) -> dict[str, Measurement]:
        ready, heldout = self._ground.ready, self._ground.ready.data.heldout
        progress = self._ground.progress
        if self._original is None:
            self._original = answer_graph(
                ready.graph, heldout, threads=ready.threads, progress=progress
            )
        ours = answer_bundle(
            root,
            heldout,
            variant="mixed",
            engine=engine,
            threads=ready.threads,
            progress=progress,
        )
        return compare_answers(
            self._original,
            ours,
            task=self._ground.options.task,
            labels=heldout.labels,
            reader=box_reader(ready.network),
            truths=heldout.truths,
            how="onhand build --budget",
        )

    def _next(self) -> Candidate | None:
        return next_candidate(
            self.front,
            self._budget,
            scales=self.scales,
            tried=[self.front[place] for place in self.measured],
            most_over=_MOST_OVER,
        )

    def _place(self, one: Candidate) -> int:
        return next(i for i, other in enumerate(self.front) if other is one)


def _slower(one: Candidate, scale: float) -> Candidate:
    timed = {name: one.predicted[name] * scale for name in _TIMED if name in one.predicted}
    return replace(one, predicted={**one.predicted, **timed})


def _costs_less(one: Candidate, other: Candidate) -> bool:
    return any(
        one.predicted[axis] < 0.98 * other.predicted[axis] for axis in ("size_bytes", "latency_s")
    )


def _refused(
    tried: Sequence[tuple[Candidate, list[Breach]]],
    front: Sequence[Candidate],
    limits: Mapping[str, float],
) -> str:
    """Return why no build held: the one that came nearest, and what it missed."""

    def over(breaches: Sequence[Breach]) -> float:
        shares = [
            (one.found / one.ceiling - 1) if one.found is not None and one.ceiling > 0 else 1e9
            for one in breaches
        ]
        return max(shares, default=0.0)

    if not tried:
        return f"no point of the front of {len(front)} is near {', '.join(limits)}"
    nearest, breaches = min(tried, key=lambda pair: over(pair[1]))
    worst = max(breaches, key=lambda one: over([one]))
    shown = (
        "" if worst.found is None else f": allow {worst.key}={AXES[worst.key].show(worst.found)}"
    )
    said = "; ".join(f"{one.key} {one.why}" for one in breaches)
    return (
        f"{len(tried)} points of the front were built and none holds the budget; {worst.key} "
        f"binds{shown}; the nearest is {label_of(nearest)}: {said}"
    )
