"""Costs of a network that came of a measured one: fewer channels, or a layer in two.

Nothing is run: a layer's time goes with its operations, its bytes with its numbers.
"""

from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Final

from onhand.host.costs.network_corners import stored_bytes
from onhand.host.costs.networks import EngineCosts, NetworkCosts, borders_of
from onhand.host.networks.costs import operations_by_node
from onhand.host.networks.quantization.mixed import MixedWork

__all__ = ["derived_costs"]

_IN_MEMORY: Final = {
    "static-8": 1.0,
    "static-8-symmetric": 1.0,
    "static-8-asymmetric": 1.0,
    "static-4": 1.0,
    "dynamic-8": 1.0,
}
_FLOAT_BYTES: Final = 4.0


def derived_costs(known: NetworkCosts, before: MixedWork, after: MixedWork) -> NetworkCosts:
    """Return the costs of a network from those of the one that it came of.

    Args:
        known: measured of the network before.
        before: that network.
        after: what became of it; layers that are left keep their names.

    Returns:
        Its costs.
    """
    was, now = (operations_by_node(work.graph) for work in (before, after))
    weights = {n: float(one.weight_of(after.graph).size) for n, one in after.layers.items()}
    total = sum(weights.values())
    lost = sum(float(one.weight_of(before.graph).size) for one in before.layers.values()) - total
    return NetworkCosts(
        shares={name: n / total for name, n in weights.items()},
        sizes=_sizes(known, before, after),
        fixed_bytes=known.fixed_bytes,
        borders=borders_of(after.graph, list(after.layers)),
        engines={
            name: _engine(one, was, now, list(after.layers), lost)
            for name, one in known.engines.items()
        },
    )


def _sizes(known: NetworkCosts, before: MixedWork, after: MixedWork) -> dict[str, dict[str, float]]:
    over: dict[str, float] = {}
    for choice in {one for sizes in known.sizes.values() for one in sizes}:
        over[choice] = median(
            sizes[choice] - stored_bytes(before.layers[name], before, choice)
            for name, sizes in known.sizes.items()
            if choice in sizes
        )
    return {
        name: {
            choice: stored_bytes(layer, after, choice) + over[choice]
            for choice in after.choices(name)
            if choice in over
        }
        for name, layer in after.layers.items()
    }


def _engine(
    known: EngineCosts,
    was: Mapping[str, int],
    now: Mapping[str, int],
    layers: list[str],
    lost: float,
) -> EngineCosts:
    layers_s: dict[str, dict[str, float]] = {}
    for choice, taken in known.layers_s.items():
        rate = sum(taken.values()) / max(sum(was.get(name, 0) for name in taken), 1)
        layers_s[choice] = {
            name: taken[name] * now[name] / was[name]
            if name in taken and was.get(name)
            else rate * now.get(name, 0)
            for name in layers
        }
    whole = {
        choice: dict(figures)
        | {
            "peak_memory_bytes": figures["peak_memory_bytes"]
            - lost * _IN_MEMORY.get(choice, _FLOAT_BYTES)
        }
        for choice, figures in known.whole.items()
    }
    return replace(known, layers_s=layers_s, whole=whole)
