"""What a network costs whose layers each have a choice: size, memory, time, energy, from parts.

A cost is a sum over layers, so that a knapsack can use it, and one thing more: where a layer on
integers meets one in float, values are rounded or unpacked, and that takes time of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

from onhand.host.networks.graph import Graph
from onhand.host.networks.onnx_files import infer_shapes
from onhand.host.networks.quantization.mixed import CHOICES, TURNED

__all__ = [
    "AXES_OF_NETWORKS",
    "Border",
    "EngineCosts",
    "LayerCost",
    "NetworkCosts",
    "borders_of",
    "is_static",
    "lies_as",
]

AXES_OF_NETWORKS: Final = (
    "size_bytes",
    "latency_s",
    "peak_memory_bytes",
    "energy_j_per_run",
    "load_s",
    "cold_start_s",
)
"""What is forecast of a whole network, named as what is measured."""
_INTERPOLATED: Final = ("peak_memory_bytes", "load_s", "cold_start_s")


def is_static(choice: str) -> bool:
    """Say whether a choice has 8-bit integers between layers."""
    return choice.startswith("static")


def lies_as(choice: str) -> int:
    """Return what a choice has between layers: 0 for float, 1 for integers, 2 for turned ones.

    Where two layers differ there is a border: engines compute on integers of one sign at once.
    """
    return is_static(choice) + (choice in TURNED.values())


@dataclass(frozen=True, slots=True)
class Border:
    """Values that one layer gives and another takes.

    Attributes:
        before: name of the layer that gives them, or "" where they are fed.
        after: name of the layer that takes them.
        n_values: how many there are in one run.
    """

    before: str
    after: str
    n_values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """What one layer's choice adds to the whole.

    Attributes:
        size_bytes: of its codes, scales and biases, and its nodes in the graph's file.
        latency_s: of its nodes, and of the nodes that go with it.
        peak_memory_bytes: its share of the process's memory.
    """

    size_bytes: float
    latency_s: float
    peak_memory_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCosts:
    """What an engine takes for a network.

    Attributes:
        layers_s: choice -> layer -> seconds of one run where all layers have that choice.
        fixed_s: choice -> seconds of one run that go with no layer.
        whole: choice -> figures of the whole network, all layers having it: those of
            `AXES_OF_NETWORKS` that lie between such corners.
        border_s: seconds of one border, whatever its size.
        value_s: seconds for each value at a border.
        watts: joules of one second of running.
        is_estimated: whether the joules are an estimate.
    """

    layers_s: Mapping[str, Mapping[str, float]]
    fixed_s: Mapping[str, float]
    whole: Mapping[str, Mapping[str, float]]
    border_s: float
    value_s: float
    watts: float
    is_estimated: bool


@dataclass(frozen=True, kw_only=True)
class NetworkCosts:
    """Costs of every layer and choice, in every engine that can run them.

    Attributes:
        shares: layer -> its share of all weights.
        sizes: layer -> choice -> bytes.
        fixed_bytes: what is there whatever is chosen.
        borders: between layers.
        engines: name -> what it takes.
    """

    shares: Mapping[str, float]
    sizes: Mapping[str, Mapping[str, float]]
    fixed_bytes: float
    borders: tuple[Border, ...]
    engines: Mapping[str, EngineCosts]

    def choices(self, layer: str, engine: str) -> tuple[str, ...]:
        """Return the choices of a layer that are known in an engine."""
        known = self.engines[engine].layers_s
        sizes = self.sizes[layer]
        return tuple(choice for choice in CHOICES if choice in sizes and choice in known)

    def layer(self, name: str, choice: str, engine: str) -> LayerCost:
        """Return what a layer adds to the whole.

        Args:
            name: of the layer.
            choice: one of `choices`.
            engine: one of `engines`.

        Returns:
            Its costs, without borders.
        """
        known = self.engines[engine]
        share = self.shares[name]
        memory = known.whole[choice].get("peak_memory_bytes", 0.0)
        return LayerCost(
            size_bytes=self.sizes[name][choice],
            latency_s=known.layers_s[choice].get(name, 0.0)
            + known.fixed_s[choice] / max(len(self.shares), 1),
            peak_memory_bytes=share * memory,
        )

    def whole(self, choices: Mapping[str, str], engine: str) -> dict[str, float]:
        """Forecast a network.

        Args:
            choices: layer -> choice, for every layer.
            engine: that runs it.

        Returns:
            Figures named as in `AXES_OF_NETWORKS`, in SI units.
        """
        known = self.engines[engine]
        costs = [self.layer(name, choice, engine) for name, choice in choices.items()]
        latency_s = sum(cost.latency_s for cost in costs) + self.border_s(choices, engine)
        found = {
            "size_bytes": self.fixed_bytes + sum(cost.size_bytes for cost in costs),
            "latency_s": latency_s,
            "energy_j_per_run": latency_s * known.watts,
        }
        for axis in _INTERPOLATED:
            parts = [
                self.shares[name] * known.whole[choice][axis]
                for name, choice in choices.items()
                if axis in known.whole[choice]
            ]
            if len(parts) == len(choices):
                found[axis] = sum(parts)
        return found

    def border_s(self, choices: Mapping[str, str], engine: str) -> float:
        """Return the seconds at borders between integers and float."""
        known = self.engines[engine]
        seconds = 0.0
        for place in self.crossed(choices):
            seconds += known.border_s + known.value_s * place.n_values
        return seconds

    def crossed(self, choices: Mapping[str, str]) -> list[Border]:
        """Return the borders between integers and float, and between integers of two kinds."""
        return [
            place
            for place in self.borders
            if place.before and lies_as(choices[place.before]) != lies_as(choices[place.after])
        ]

    @cached_property
    def borders_of_layer(self) -> Mapping[str, tuple[Border, ...]]:
        """Return layer -> the borders that it has a side of."""
        found: dict[str, list[Border]] = {name: [] for name in self.shares}
        for place in self.borders:
            for name in {place.before, place.after} & found.keys():
                found[name].append(place)
        return {name: tuple(places) for name, places in found.items()}

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return asdict(self)

    @staticmethod
    def from_json(table: Mapping[str, Any]) -> "NetworkCosts":
        """Undo `to_json`."""
        return NetworkCosts(
            shares=table["shares"],
            sizes=table["sizes"],
            fixed_bytes=table["fixed_bytes"],
            borders=tuple(Border(**place) for place in table["borders"]),
            engines={name: EngineCosts(**one) for name, one in table["engines"].items()},
        )


def borders_of(graph: Graph, layers: Sequence[str]) -> tuple[Border, ...]:
    """Return where layers meet.

    Args:
        graph: the graph.
        layers: names of its layers.

    Returns:
        For each layer the layers whose values reach it without another between, and how many
        values it takes.
    """
    producers, shapes, known = graph.producers(), infer_shapes(graph), set(layers)
    reached: dict[str, tuple[str, ...]] = {}

    def sources(name: str) -> tuple[str, ...]:
        node = producers.get(name)
        if node is None:
            return () if name in graph.constants else ("",)
        return (node.name,) if node.name in known else reached[node.name]

    found: list[Border] = []
    for node in graph.nodes:
        before = tuple(dict.fromkeys(s for name in node.reads() for s in sources(name)))
        reached[node.name] = before
        if node.name in known:
            n_values = _count(shapes.get(node.inputs[0]))
            taken = sources(node.inputs[0])
            found += [Border(name, node.name, n_values) for name in taken]
    return tuple(found)


def _count(value: Any) -> int:
    n = 1
    for size in () if value is None else value.shape:
        n *= size if isinstance(size, int) else 1
    return n
