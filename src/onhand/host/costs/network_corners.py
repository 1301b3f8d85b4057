"""Costs of a network measured at its corners: all layers with one choice, in every engine.

The float graph, the one on integers, and those with few bits are packed, run in fresh processes and
timed in turns; each engine says how long each node took, and the sum is brought to what a run took.
A few mixed graphs then tell what a border between integers and float costs.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, InputError
from onhand.core.measurement import Measurement
from onhand.core.network import Network
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress
from onhand.device.networks.bench import bench_network
from onhand.device.networks.ranking import rank_networks
from onhand.device.networks.timing import random_feeds
from onhand.host.costs.networks import Border, EngineCosts, NetworkCosts, borders_of, is_static
from onhand.host.costs.node_times import OTHER, owners, time_layers
from onhand.host.networks.graph import Graph
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.pack import pack_network
from onhand.host.networks.quantization.mixed import FLOAT, MixedWork
from onhand.host.networks.quantization.plan import Layer

__all__ = ["CornerJob", "measure_costs", "mixes_of", "stored_bytes", "uniform"]

_BLOCKS: Final = 2
_EACH_S: Final = 0.6  # of timing for each graph in each engine
_MOST_MIXES: Final = 4
_REFERENCE: Final = "reference"
_OF_PROCESS: Final = ("peak_memory_bytes", "load_s", "cold_start_s")
_PRODUCTS: Final = {"Gemm", "MatMul"}
# What opens to the same arrays takes the same memory and time to open.
_OPENS_LIKE: Final = {
    "static-8-symmetric": "static-8",
    "static-8-asymmetric": "static-8",
    "static-4": "static-8",
    "weights-4": "weights-8",
}
# A choice for so few of the weights is not worth its measurement.
_LEAST_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CornerJob:
    """What is measured, and with what.

    Attributes:
        work: makes graphs of choices.
        model: the source.
        network: its description.
        profile: of this machine.
        threads: of one run.
        engine: the only engine; None for all that can run the network.
        choices: those looked at.
        progress: told how far it is.
    """

    work: MixedWork
    model: NetworkModel
    network: Network
    profile: DeviceProfile
    threads: int
    engine: str | None
    choices: tuple[str, ...]
    progress: Progress


def uniform(work: MixedWork, choice: str) -> dict[str, str]:
    """Return every layer's choice where all have the same, as far as they can; others are float."""
    return {name: choice if choice in work.choices(name) else FLOAT for name in work.layers}


def mixes_of(names: Sequence[str], choice: str) -> list[dict[str, str]]:
    """Return graphs that are partly float, with many borders and with few.

    Args:
        names: of the layers, in order.
        choice: of the others.
    """
    n = len(names)
    patterns = [
        [i % 2 == 0 for i in range(n)],
        [(i * 8 // n) % 2 == 0 for i in range(n)],
        [i < n // 2 for i in range(n)],
        [i >= n // 2 for i in range(n)],
    ]
    distinct = list(dict.fromkeys(tuple(p) for p in patterns if any(p) and not all(p)))
    return [
        {name: choice if on else FLOAT for name, on in zip(names, pattern, strict=True)}
        for pattern in distinct[:_MOST_MIXES]
    ]


def measure_costs(job: CornerJob) -> NetworkCosts:
    """Measure the corners of a network's choices on this machine.

    Args:
        job: what is measured.

    Returns:
        The costs of every layer and choice.

    Raises:
        InputError: if the network has no layer with a choice.
        EngineError: if no engine runs one of its forms.
    """
    work = job.work
    if not work.layers:
        raise InputError("nothing to choose: no Conv, Gemm or MatMul with float32 weights")
    names = list(work.layers)
    corners = {choice: uniform(work, choice) for choice in job.choices}
    corners = {c: made for c, made in corners.items() if c == FLOAT or _pays(work, c, made)}
    static = next((choice for choice in corners if is_static(choice)), None)
    mixes = [] if static is None else mixes_of(names, static)
    graphs = {choice: work.made(made) for choice, made in corners.items()}
    graphs |= {f"mix-{i}": work.made(made) for i, made in enumerate(mixes)}
    with tempfile.TemporaryDirectory(prefix="onhand-corners-") as folder:
        bundles = {name: _pack(job, name, g, Path(folder) / name) for name, g in graphs.items()}
        job.progress.start("timing the corners of the choices", 1)
        ranked, _ = rank_networks(
            {name: (bundle, name) for name, bundle in bundles.items()},
            engine=job.engine,
            threads=job.threads,
            budget_s=_EACH_S,
        )
        job.progress.advance(1)
        walls: dict[str, dict[str, float]] = {}
        for one in ranked:
            walls.setdefault(one.engine, {})[one.variant] = one.latency_s.value
        walls = {e: found for e, found in walls.items() if {FLOAT} <= found.keys()}
        sizes = {name: float(bundles[name].size_bytes(name)) for name in corners}
        per_layer, fixed = _sizes(work, corners, sizes)
        borders = borders_of(work.graph, names)
        engines = {
            engine: _engine(job, engine, found, graphs, bundles, corners, mixes, borders)
            for engine, found in walls.items()
            if engine != _REFERENCE or len(walls) == 1
        }
    if not engines:
        raise EngineError("no engine runs the network in float on this machine")
    weights = {name: float(layer.weight_of(work.graph).size) for name, layer in work.layers.items()}
    total = sum(weights.values())
    return NetworkCosts(
        shares={name: n / total for name, n in weights.items()},
        sizes=per_layer,
        fixed_bytes=fixed,
        borders=borders,
        engines=engines,
    )


def _pack(job: CornerJob, name: str, graph: Graph, place: Path) -> Bundle:
    place.mkdir()
    return pack_network(job.model, job.network, {name: graph}, place, provenance={})


def _engine(
    job: CornerJob,
    engine: str,
    walls: Mapping[str, float],
    graphs: Mapping[str, Graph],
    bundles: Mapping[str, Bundle],
    corners: Mapping[str, Mapping[str, str]],
    mixes: Sequence[Mapping[str, str]],
    borders: Sequence[Border],
) -> EngineCosts:
    """Return what one engine takes."""
    able = [choice for choice in corners if choice in walls]
    owned = owners(job.work.graph, list(job.work.layers))
    feeds = random_feeds(job.network)
    layers_s: dict[str, dict[str, float]] = {}
    fixed_s: dict[str, float] = {}
    whole: dict[str, dict[str, float]] = {}
    watts: list[float] = []
    is_estimated = True
    job.progress.start(f"measuring {len(able)} forms in {engine}", len(able))
    for choice in able:
        taken = time_layers(graphs[choice], owned, feeds, engine=engine, threads=job.threads)
        if not sum(taken.values()):
            taken = _by_operations(job.work)
        scale = walls[choice] / sum(taken.values())
        fixed_s[choice] = taken.pop(OTHER, 0.0) * scale
        layers_s[choice] = {name: seconds * scale for name, seconds in taken.items()}
        like = _OPENS_LIKE.get(choice, "")
        if like in whole and not _multiplies_few_bits(job.work, choice):
            whole[choice] = whole[like]
        else:
            figures = _benched(job, bundles[choice], engine)
            whole[choice] = {axis: figures[axis].value for axis in _OF_PROCESS}
            energy = figures["energy_j_per_run"]
            watts.append(energy.value / figures["latency_s"].value)
            is_estimated = energy.estimated
        job.progress.advance(1)
    made = EngineCosts(
        layers_s=layers_s,
        fixed_s=fixed_s,
        whole=whole,
        border_s=0.0,
        value_s=0.0,
        watts=median(watts),
        is_estimated=is_estimated,
    )
    return _with_borders(made, walls, mixes, borders)


def _benched(job: CornerJob, bundle: Bundle, engine: str) -> Mapping[str, Measurement]:
    figures, _ = bench_network(
        bundle.root, engine=engine, threads=job.threads, runs=_BLOCKS, profile=job.profile
    )
    return figures


def _multiplies_few_bits(work: MixedWork, choice: str) -> bool:
    """Whether weights of 4 bits are multiplied as they are: those of products of matrices."""
    return choice == "weights-4" and any(
        layer.node.op in _PRODUCTS for layer in work.layers.values()
    )


def _pays(work: MixedWork, choice: str, made: Mapping[str, str]) -> bool:
    weights = {n: float(layer.weight_of(work.graph).size) for n, layer in work.layers.items()}
    chosen = sum(weights[name] for name, one in made.items() if one == choice)
    return chosen >= _LEAST_SHARE * sum(weights.values())


def _with_borders(
    made: EngineCosts,
    walls: Mapping[str, float],
    mixes: Sequence[Mapping[str, str]],
    borders: Sequence[Border],
) -> EngineCosts:
    """Fit what a border costs to what mixed graphs took beyond their layers."""
    from scipy.optimize import nnls

    rows, rest = [], []
    names = list(next(iter(made.layers_s.values())))
    plain = NetworkCosts(
        shares=dict.fromkeys(names, 1 / len(names)),
        sizes={},
        fixed_bytes=0.0,
        borders=tuple(borders),
        engines={"": made},
    )
    for i, mix in enumerate(mixes):
        wall = walls.get(f"mix-{i}")
        if wall is None or any(choice not in made.layers_s for choice in mix.values()):
            continue
        crossed = plain.crossed(mix)
        parts = sum(
            made.layers_s[c].get(name, 0.0) + made.fixed_s[c] / len(mix) for name, c in mix.items()
        )
        # Shares of the whole, so that each mix counts alike.
        rows.append([len(crossed) / wall, sum(one.n_values for one in crossed) * 1e-6 / wall])
        rest.append((wall - parts) / wall)
    if not rows:
        return made
    found, _ = nnls(np.asarray(rows), np.asarray(rest))
    return replace(made, border_s=float(found[0]), value_s=float(found[1]) * 1e-6)


def _by_operations(work: MixedWork) -> dict[str, float]:
    """Return what each layer would take if time went with its weights: engines that do not tell."""
    return {n: float(layer.weight_of(work.graph).size) for n, layer in work.layers.items()}


def _sizes(
    work: MixedWork, corners: Mapping[str, Mapping[str, str]], packed: Mapping[str, float]
) -> tuple[dict[str, dict[str, float]], float]:
    """Return layer -> choice -> bytes, which add up to what was packed at every corner."""
    told = {
        choice: {name: stored_bytes(layer, work, choice) for name, layer in work.layers.items()}
        for choice in corners
    }
    fixed = packed[FLOAT] - sum(told[FLOAT].values())
    found: dict[str, dict[str, float]] = {name: {} for name in work.layers}
    for choice, made in corners.items():
        chosen = [name for name, one in made.items() if one == choice]
        others = sum(told[FLOAT][name] for name in made if made[name] != choice)
        # What nodes and their names take in the graph's file, each layer's alike.
        over = packed[choice] - fixed - others - sum(told[choice][name] for name in chosen)
        for name in chosen:
            found[name][choice] = told[choice][name] + over / len(chosen)
    return found, fixed


def stored_bytes(layer: Layer, work: MixedWork, choice: str) -> float:
    """Return the bytes of a layer's numbers, without what the graph's file says of them.

    Args:
        layer: of the network.
        work: that has it.
        choice: of the layer.
    """
    weight = layer.weight_of(work.graph)
    n, channels = int(weight.size), int(weight.shape[layer.axis])
    bias = 4 * channels * bool(layer.bias)
    if choice == FLOAT:
        return 4 * n + bias
    if choice == "weights-4" and layer.node.op in _PRODUCTS:
        return n / 2 + 2 * n / 32 + bias
    codes = n / 2 if choice.endswith("-4") else n
    if is_static(choice):
        # Codes, scales, zero points; a bias with a scale for each channel.
        return codes + 5 * channels + 8 * channels * bool(layer.bias)
    return codes + (5 if choice == "dynamic-8" else 4) * channels + bias
