"""LoRA adapters of networks in PEFT's layout, read for the constants of a graph."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.lora_config import MAX_CONFIG_BYTES, LoraConfig, parse_lora_config
from onhand.core.safetensors import open_safetensors, widen
from onhand.host.networks.graph import Graph, fresh_name
from onhand.host.networks.joining.growing import Growth
from onhand.host.networks.soup import LoraFactors

__all__ = ["read_factors", "with_factors"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_DOWN, _UP, _PREFIX = ".lora_A.weight", ".lora_B.weight", "base_model.model."


def read_factors(place: Path, graph: Graph) -> dict[str, LoraFactors]:
    """Read an adapter for a graph.

    Args:
        place: a folder with `adapter_config.json` and `adapter_model.safetensors`.
        graph: the network that it was trained for; a module's weight is the constant called
            "MODULE.weight", or the only one whose name ends so.

    Returns:
        Constant -> its change.

    Raises:
        InputError: if the adapter is damaged, asks for what is not supported, or does not fit.
    """
    config = _config(place / _CONFIG)
    try:
        file = open_safetensors(place / _WEIGHTS)
        arrays = {name: widen(np.array(file.view(name))) for name in file.tensors}
    except (BundleCorrupt, OSError) as error:
        raise InputError(f"adapter {place}: {_WEIGHTS} cannot be read: {error}") from error
    found: dict[str, LoraFactors] = {}
    for name, down in arrays.items():
        if name.endswith(_UP) and f"{name.removesuffix(_UP)}{_DOWN}" in arrays:
            continue
        module = name.removesuffix(_DOWN).removeprefix(_PREFIX)
        up = arrays.get(f"{name.removesuffix(_DOWN)}{_UP}")
        if not name.endswith(_DOWN) or up is None:
            raise InputError(f"adapter {place}: {name!r} is no pair of lora_A and lora_B")
        # Of a convolution: (R, C, ...) and (N, R, 1, ...).
        found[_constant(module, graph, place)] = LoraFactors(
            down=down.reshape(len(down), -1),
            up=up.reshape(len(up), -1),
            scale=config.scale_of(module),
        )
    if not found:
        raise InputError(f"adapter {place}: changes nothing")
    return found


def _config(path: Path) -> LoraConfig:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise InputError(f"adapter {path} cannot be read: {error.strerror}") from error
    return parse_lora_config(content, where=str(path))


def _constant(module: str, graph: Graph, place: Path) -> str:
    wanted = f"{module}.weight"
    if wanted in graph.constants:
        return wanted
    near = [name for name in graph.constants if name.endswith(f".{wanted}")]
    if len(near) != 1:
        how = "is no constant" if not near else f"are {len(near)} constants"
        raise InputError(f"adapter {place}: {wanted!r} {how} of the network")
    return near[0]


def with_factors(graph: Graph, merged: Graph, factors: Mapping[str, LoraFactors]) -> Graph:
    """Return a graph that adds the changes when it runs, to hold a merged one against.

    Args:
        graph: the network without the changes.
        merged: the same with them.
        factors: constant -> its change.

    Returns:
        The graph; it answers what `merged` should.
    """
    g = Growth(graph.names())
    constants = dict(graph.constants)
    for name, change in factors.items():
        weight = constants.pop(name)
        base = fresh_name(g.taken, f"{name}.base")
        constants[base] = weight
        product = g.op("MatMul", change.up.astype(np.float32), change.down.astype(np.float32))
        if _is_turned(graph, name):
            product = g.op("Transpose", product, perm=(1, 0))
        shaped = g.op("Reshape", product, np.array(merged.constants[name].shape))
        added = g.op("Mul", shaped, np.array(change.scale, dtype=np.float32))
        g.taken.discard(name)
        g.op("Add", base, g.cast(added, weight.dtype), called=name)
    nodes = (*g.nodes, *graph.nodes)
    return replace(graph, nodes=nodes, constants={**constants, **g.constants})


def _is_turned(graph: Graph, name: str) -> bool:
    """Say whether a constant is stored (K, N): of a product from the right."""
    return any(
        node.inputs[1:2] == (name,)
        and (node.op == "MatMul" or (node.op == "Gemm" and not node.whole("transB", 0)))
        for node in graph.nodes
    )
