"""A pass that gives each layer its own way to compute, as a search found them."""

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from onhand.core.errors import InputError
from onhand.host.networks.graph import Graph
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.passes.patterns import checked_patterns, pattern_of
from onhand.host.networks.quantization.mixed import FLOAT, MixedWork

__all__ = ["QuantizeMixed", "mixed_pass"]

_WAYS = ("none", "fast", "full")
_OF_FIELD = {
    "static": "static-8",
    "static_symmetric": "static-8-symmetric",
    "static_asymmetric": "static-8-asymmetric",
    "static_4": "static-4",
    "dynamic": "dynamic-8",
    "weights": "weights-8",
    "weights_4": "weights-4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeMixed:
    """Each layer on integers, with weights of few bits, or in float. See `NetworkPass`.

    Layers that no pattern names stay in float; of several patterns that name one, the first field
    counts. Tables that are looked up have 8 bits.

    Attributes:
        static: patterns of names of layers that compute on 8-bit integers of known ranges.
        static_symmetric: the same, with inputs as int8 around zero whatever `activations` says;
            where another layer reads the same values and asks for nothing, they stay as they are.
        static_asymmetric: likewise, with inputs as uint8 with a zero point.
        static_4: the same with weights of 4 bits.
        dynamic: layers whose ranges each run finds; products of matrices, in ONNX Runtime alone.
        weights: layers that store weights in 8 bits and compute in float.
        weights_4: the same with 4 bits.
        activations: of static layers: "asymmetric" or "symmetric".
        bias_correction: of static layers: "none", "fast" or "full".
    """

    name: ClassVar[str] = "quantize-mixed"

    static: tuple[str, ...] = ()
    static_symmetric: tuple[str, ...] = ()
    static_asymmetric: tuple[str, ...] = ()
    static_4: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    weights_4: tuple[str, ...] = ()
    activations: str = "asymmetric"
    bias_correction: str = "none"

    def __post_init__(self) -> None:
        for field in _OF_FIELD:
            checked_patterns(getattr(self, field))
        if self.activations not in {"asymmetric", "symmetric"}:
            raise InputError(
                f"activations is {self.activations!r}, must be one of asymmetric, symmetric"
            )
        if self.bias_correction not in _WAYS:
            raise InputError(
                f"bias_correction is {self.bias_correction!r}, must be one of {', '.join(_WAYS)}"
            )

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Quantise a graph.

        Args:
            graph: with batch normalisation folded, else it stays in float.
            bench: with examples, where a layer is static.

        Returns:
            The graph, what each layer became, and which stayed.

        Raises:
            InputError: if a pattern fits no layer, or there are no examples and some are needed.
            EngineError: if the graph cannot run.
        """
        work = MixedWork(
            graph,
            bench,
            symmetric=self.activations == "symmetric",
            bias_correction=self.bias_correction,
        )
        choices = self.choices(tuple(work.layers))
        return PassResult(
            graph=work.made(choices),
            changed={n: choice for n, choice in choices.items() if choice != FLOAT},
            kept={n: "no pattern names it" for n in work.layers if n not in choices},
        )

    def choices(self, names: tuple[str, ...]) -> Mapping[str, str]:
        """Return name of a layer -> its choice, for those that a pattern names.

        Args:
            names: of all layers.

        Raises:
            InputError: if a pattern fits none of them.
        """
        found: dict[str, str] = {}
        for field, choice in _OF_FIELD.items():
            patterns = tuple(getattr(self, field))
            for pattern in patterns:
                if not any(pattern_of(name, (pattern,)) for name in names):
                    raise InputError(f"{field}: {pattern!r} fits no layer of the network")
            for name in names:
                if pattern_of(name, patterns) is not None:
                    found.setdefault(name, choice)
        return found


def mixed_pass(
    choices: Mapping[str, str], *, activations: str, bias_correction: str
) -> QuantizeMixed:
    """Return the pass that gives layers their choices.

    Args:
        choices: name of a layer -> one of `CHOICES`.
        activations: as of the pass.
        bias_correction: as of the pass.
    """
    named = {
        field: tuple(glob.escape(name) for name, one in choices.items() if one == choice)
        for field, choice in _OF_FIELD.items()
    }
    return QuantizeMixed(
        static=named["static"],
        static_symmetric=named["static_symmetric"],
        static_asymmetric=named["static_asymmetric"],
        static_4=named["static_4"],
        dynamic=named["dynamic"],
        weights=named["weights"],
        weights_4=named["weights_4"],
        activations=activations,
        bias_correction=bias_correction,
    )
