"""The pass that puts several operators into one where the engine has it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from onhand.core.errors import InputError
from onhand.host.networks.fusing.activations import (
    MICROSOFT,
    fuse_gelu,
    fuse_hard_swish,
    fuse_silu,
)
from onhand.host.networks.fusing.attention import fuse_attention
from onhand.host.networks.fusing.norms import fuse_layer_norm, fuse_rms_norm
from onhand.host.networks.fusing.patterns import Rewritten
from onhand.host.networks.fusing.siblings import merge_convolutions, merge_products
from onhand.host.networks.graph import Graph
from onhand.host.networks.onnx_files import infer_shapes
from onhand.host.networks.passes.base import PassResult, Workbench

__all__ = ["Fuse"]

_OPERATORS: Final = ("standard", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuse:
    """Put groups of operators into one each; the function stays the same but for rounding.

    Attributes:
        operators: "standard" makes operators of ONNX alone, which every engine runs;
            "onnxruntime" those of ONNX Runtime as well.
        activations: Gelu, SiLU ("onnxruntime") and hard swish.
        norms: layer norm, and root-mean-square norm from opset 23 on.
        attention: attention without a mask ("onnxruntime"); it pays for long sequences.
        products: products of the same input side by side, as of queries, keys and values.
        convolutions: convolutions of the same input side by side.
    """

    name: ClassVar[str] = "fuse"
    operators: str = "standard"
    activations: bool = True
    norms: bool = True
    attention: bool = True
    products: bool = False
    convolutions: bool = False

    def __post_init__(self) -> None:
        if self.operators not in _OPERATORS:
            raise InputError(f"operators is {self.operators!r}, must be {' or '.join(_OPERATORS)}")

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Fuse what is there; see `NetworkPass`.

        Args:
            graph: the graph.
            bench: not used.

        Returns:
            The graph; each group that was found and not fused is kept, with the reason.
        """
        microsoft = self.operators == "onnxruntime"
        types = infer_shapes(graph)
        rules: list[Callable[[Graph], Rewritten]] = []
        if self.activations:
            rules += [lambda g: fuse_gelu(g, types, microsoft=microsoft), fuse_hard_swish]
            if microsoft:
                rules.append(lambda g: fuse_silu(g, types))
        if self.norms:
            rules += [lambda g: fuse_layer_norm(g, types), lambda g: fuse_rms_norm(g, types)]
        if self.attention and microsoft:
            rules.append(lambda g: fuse_attention(g, types))
        rules += [merge_products] if self.products else []
        rules += [merge_convolutions] if self.convolutions else []
        changed: dict[str, str] = {}
        kept: dict[str, str] = {}
        before = len(graph.nodes)
        for rule in rules:
            made = rule(graph)
            graph = made.graph
            changed |= made.changed
            kept |= made.kept
        if any(node.domain == MICROSOFT for node in graph.nodes):
            graph = replace(graph, domains={**graph.domains, MICROSOFT: 1})
        note = f"{before} operators became {len(graph.nodes)}"
        return PassResult(graph=graph, changed=changed, kept=kept, notes=(note,))
