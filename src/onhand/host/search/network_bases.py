"""What may be done to a network before its layers get their choices: pruned, or factorised."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from onhand.core.errors import InputError
from onhand.core.recipe import Guard
from onhand.host.networks.graph import Graph
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.factorize import Factorize
from onhand.host.networks.passes.fuse import Fuse
from onhand.host.networks.passes.prune_channels import PruneChannels
from onhand.host.networks.passes.quantize_mixed import mixed_pass
from onhand.host.networks.passes.smooth import Smooth
from onhand.host.networks.steps import Step

__all__ = ["PLAIN", "Base", "bases_for", "make_base", "steps_of"]

PLAIN: Final = "whole"
# What a search decides is judged by the search: steps do not stop a build.
_FREE: Final = Guard(most_loss=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """Passes before the choices of layers.

    Attributes:
        label: for people.
        steps: the passes.
        activations: how integers of static layers lie: see `QuantizeMixed`.
    """

    label: str
    steps: tuple[Step, ...]
    activations: str


def bases_for(task: str) -> list[Base]:
    """Return the bases that a search tries; the first leaves all channels and layers.

    Args:
        task: of the network. Encoders of texts: queries, keys and values go into one product, and
            outliers of activations are smoothed.
    """
    is_text = task.startswith("text")
    before: tuple[Step, ...] = ()
    if is_text:
        joined = Fuse(products=True, activations=False, norms=False)
        before = (Step(joined, _FREE), Step(Smooth(), _FREE))
    activations = "symmetric" if is_text else "asymmetric"
    outer: dict[str, tuple[Step, ...]] = {
        PLAIN: (),
        "10 % pruned": (Step(PruneChannels(ratio=0.1), _FREE),),
        "25 % pruned": (Step(PruneChannels(ratio=0.25), _FREE),),
        "20 % factorised": (Step(Factorize(ratio=0.2), _FREE),),
    }
    return [
        Base(label=label, steps=(*steps, *before), activations=activations)
        for label, steps in outer.items()
    ]


def make_base(base: Base, graph: Graph, bench: Workbench) -> tuple[Graph | None, str]:
    """Apply a base's passes.

    Args:
        base: the base.
        graph: the source's, cleaned.
        bench: with the examples that passes may see.

    Returns:
        The graph, and a sentence on what was done; None where nothing could be: the sentence says
        why.
    """
    changed: dict[str, str] = {}
    try:
        for step in base.steps:
            result = step.transform.apply(graph, bench)
            graph, changed = result.graph, changed | result.changed
    except InputError as error:
        return None, f"{base.label}: {error}"
    if base.label != PLAIN and not changed:
        return None, f"{base.label}: nothing could go"
    return graph, f"{base.label}: {len(changed)} tensors changed"


def steps_of(base: Base, choices: Mapping[str, str], *, bias_correction: str) -> tuple[Step, ...]:
    """Return the recipe of a base and choices of layers.

    Args:
        base: the base.
        choices: layer -> choice.
        bias_correction: of static layers.
    """
    made = mixed_pass(choices, activations=base.activations, bias_correction=bias_correction)
    return (*base.steps, Step(made, _FREE))
