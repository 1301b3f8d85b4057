"""What a search over a network's layers stands on: its bases, their costs and their damages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from onhand import __version__
from onhand.core.errors import InputError
from onhand.core.measurement import Measurement
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.device.networks.boxes import box_reader
from onhand.device.probe import current_profile
from onhand.host.costs.network_corners import CornerJob, measure_costs
from onhand.host.costs.network_derived import derived_costs
from onhand.host.costs.networks import NetworkCosts
from onhand.host.networks.build import PreparedNetwork, split_watched
from onhand.host.networks.graph import Graph
from onhand.host.networks.onnx_files import model_bytes, read_onnx
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.quantization.accuracy import OutputJudge
from onhand.host.networks.quantization.mixed import CHOICES, MixedWork
from onhand.host.networks.samples import Samples
from onhand.host.search.network_bases import PLAIN, Base, make_base
from onhand.host.search.network_damage import (
    Damages,
    LossCurve,
    Seen,
    measure_damages,
    reused_damages,
)
from onhand.host.search.network_front import Space
from onhand.host.search.store import SearchStore
from onhand.host.transfer import figures_for, is_same_device

__all__ = ["Ground", "Standing", "speed_scale"]

_MOST_RUNS: Final = 24  # layers that are run alone
_STATISTICS: Final = 512  # examples, as steps of a recipe have at most
_JUDGES: Final = 100  # examples that judge whole networks


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A base that is ready.

    Attributes:
        base: the base.
        work: makes graphs of choices.
        costs: of its layers.
        damages: likewise.
    """

    base: Base
    work: MixedWork
    costs: NetworkCosts
    damages: Damages

    def spaces(self) -> list[Space]:
        """Return the base in every engine that runs it."""
        made: list[Space] = []
        for engine in self.costs.engines:
            choices = {
                name: tuple(
                    c for c in self.costs.choices(name, engine) if c in self.damages.layers[name]
                )
                for name in self.work.layers
            }
            made.append(
                Space(
                    base=self.base.label,
                    engine=engine,
                    costs=self.costs,
                    damages=self.damages,
                    choices=choices,
                )
            )
        return made


class Ground:
    """Measures what a search needs, once for the same content; used by one thread."""

    def __init__(
        self,
        ready: PreparedNetwork,
        options: NetworkOptions,
        *,
        home: Path,
        progress: Progress,
    ) -> None:
        """Take what a build begins with.

        Args:
            ready: source and examples.
            options: what is asked for.
            home: the builder's state folder, where results are kept by their content.
            progress: told how far it is.

        Raises:
            InputError: if there are no examples.
        """
        if not len(ready.data.calibration):
            raise InputError("a search is judged on examples: give them as --data")
        self.ready, self.options, self.progress = ready, options, progress
        here = current_profile()
        self.here = ready.profile if is_same_device(ready.profile, here) else here
        self.calibration, self._watch = split_watched(ready.data.calibration)
        self.store = SearchStore.at(home, _content(ready, options, self.here))
        self._plain: Standing | None = None
        self._judge: OutputJudge | None = None

    def stand(self, base: Base) -> Standing | None:
        """Make a base ready; the plain one comes first.

        Args:
            base: the base.

        Returns:
            It; None where nothing could be done to the network, which progress is told.

        Raises:
            InputError: if the network has no layers with choices.
            EngineError: if a graph cannot run.
        """
        bench = self._bench(_few(self.calibration))
        graph = self._graph(base, bench)
        if graph is None:
            return None
        work = MixedWork(
            graph, bench, symmetric=base.activations == "symmetric", bias_correction="none"
        )
        if not work.layers:
            raise InputError("nothing to choose: no Conv, Gemm or MatMul with float32 weights")
        if self._plain is None:
            made = self._measured(base, work)
            self._plain = made
            return made
        work.bias_correction = self._plain.work.bias_correction
        return self._derived(base, work, self._plain)

    def _bench(self, calibration: Samples) -> Workbench:
        return Workbench(
            original=self.ready.graph,
            calibration=calibration,
            task=self.options.task,
            threads=self.ready.threads,
            profile=self.ready.profile,
            progress=self.progress,
            reader=box_reader(self.ready.network),
        )

    def _graph(self, base: Base, bench: Workbench) -> Graph | None:
        if not base.steps:
            return self.ready.graph
        place = self.store.root / f"base-{base.label.replace(' ', '-').replace('%', 'percent')}"
        kept = self.store.read(place.name)
        if kept is not None:
            return read_onnx(place.with_suffix(".onnx")) if kept["made"] else None
        graph, said = make_base(base, self.ready.graph, bench)
        if graph is None:
            self.progress.note(said)
        else:
            self.store.root.mkdir(parents=True, exist_ok=True)
            place.with_suffix(".onnx").write_bytes(model_bytes(graph))
        self.store.write(place.name, {"made": graph is not None, "said": said})
        return graph

    def _measured(self, base: Base, work: MixedWork) -> Standing:
        kept = self.store.read("plain")
        if kept is not None:
            work.bias_correction = str(kept["bias_correction"])
            return Standing(
                base=base,
                work=work,
                costs=NetworkCosts.from_json(_table(kept["costs"])),
                damages=_damages(_table(kept["damages"])),
            )
        way, note = work.best_correction()
        work.bias_correction = way
        self.progress.note(note)
        costs = measure_costs(self._job(work))
        choices = [c for c in CHOICES if any(c in one.layers_s for one in costs.engines.values())]
        damages = measure_damages(
            work,
            self.ready.graph,
            self._judging(),
            task=self.options.task,
            threads=self.ready.threads,
            most_runs=_MOST_RUNS,
            choices=choices,
            reader=box_reader(self.ready.network),
            progress=self.progress,
        )
        table = {"bias_correction": way, "costs": costs.to_json(), "damages": asdict(damages)}
        self.store.write("plain", table)
        # Read again, so that a search is the same whether it measured or recalled.
        return self._measured(base, work)

    def _derived(self, base: Base, work: MixedWork, plain: Standing) -> Standing:
        if self._judge is None:
            self._judge = OutputJudge(
                self.ready.graph,
                self._judging(),
                task=self.options.task,
                threads=self.ready.threads,
                reader=box_reader(self.ready.network),
            )
        name = f"damages-{base.label.replace(' ', '-').replace('%', 'percent')}"
        kept = self.store.read(name)
        if kept is None:
            choices = sorted(plain.damages.corrections)
            damages = reused_damages(
                work, plain.damages, self._judge, choices=["float32", *choices]
            )
            self.store.write(name, asdict(damages))
            return self._derived(base, work, plain)
        damages = _damages(kept)
        costs = derived_costs(plain.costs, plain.work, work)
        return Standing(base=base, work=work, costs=costs, damages=damages)

    def _job(self, work: MixedWork) -> CornerJob:
        return CornerJob(
            work=work,
            model=self.ready.model,
            network=self.ready.network,
            profile=self.here,
            threads=self.ready.threads,
            engine=self.options.engine,
            choices=CHOICES,
            progress=self.progress,
        )

    def _judging(self) -> Samples:
        """Return examples that no range was counted with, and others where those are few."""
        watched = self._watch
        if len(watched) >= _JUDGES // 4:
            return watched.part(range(min(len(watched), _JUDGES)))
        every = self.ready.data.calibration
        return every.part(range(min(len(every), _JUDGES)))


def speed_scale(device: DeviceProfile, here: DeviceProfile) -> float:
    """Return what a time on this machine is multiplied with for a device.

    Args:
        device: the device built for.
        here: this machine.
    """
    one = Measurement(name="latency_s", value=1.0, unit="s", samples=1, spread=0.0, how="")
    return figures_for(device, here, {"latency_s": one})["latency_s"].value


def _few(samples: Samples) -> Samples:
    return samples.part(range(min(len(samples), _STATISTICS)))


def _content(
    ready: PreparedNetwork, options: NetworkOptions, here: DeviceProfile
) -> dict[str, object]:
    return {
        "choices": list(CHOICES),
        "kind": "network",
        "data": ready.data.sha256,
        "engine": options.engine,
        "feed": ready.network.to_json()["feed"],
        "n_calibration": options.n_calibration,
        "packages": [_version(name) for name in ("numpy", "onnxruntime", "openvino")],
        "processor": [here.processor, *here.instruction_sets],
        "source": ready.model.sha256,
        "task": options.task,
        "threads": ready.threads,
        "version": __version__,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError("what a search kept is damaged: remove the folder 'search' in ONHAND_HOME")
    return value


def _damages(table: Mapping[str, Any]) -> Damages:
    return Damages(
        layers=table["layers"],
        gains=table["gains"],
        measured=table["measured"],
        corrections=table["corrections"],
        base=table["base"],
        seen=tuple(Seen(**one) for one in table["seen"]),
        curve=LossCurve(**table["curve"]),
    )


def is_plain(base: Base) -> bool:
    """Say whether a base leaves all channels and layers."""
    return base.label == PLAIN
