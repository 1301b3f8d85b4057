"""Networks from PyTorch: a module in Python, or a saved `ExportedProgram` (`.pt2`)."""

import hashlib
import importlib.util
import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onhand.core.errors import InputError, SourceError
from onhand.core.feed import Feed
from onhand.host.networks.clean import clean
from onhand.host.networks.graph import Array, Graph, Value
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.onnx_files import graph_from_model, model_bytes
from onhand.host.networks.sources.identity import (
    bundle_name,
    existing_file,
    files_sha256,
    head_of,
    name_of,
    widest_share,
)
from onhand.host.networks.sources.layout import BATCH
from onhand.host.networks.sources.torch_archive import check_archive
from onhand.host.networks.sources.torch_attention import plain_attention, plain_transposes

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

__all__ = ["TorchSource", "model_from_torch"]

# The oldest one that torch's own exporter writes.
_OPSET = 18


class TorchSource:
    """Reads `.pt2`, an `ExportedProgram` of ATen's operators and plain tensors."""

    name: ClassVar[str] = "torch"

    def why_not(self, location: str) -> str | None:
        """Return None for an archive called `.pt2`, else a reason."""
        path = Path(location)
        if not path.is_file():
            return f"{path} is no file"
        if path.suffix.lower() != ".pt2" or head_of(path, 4) != b"PK\x03\x04":
            return (
                f"{path} is no .pt2 archive: weights alone (.pt, .pth) hold no network; save "
                "torch.export.export(module, example_inputs) with torch.export.save"
            )
        return None

    def load(self, location: str, *, task: str) -> NetworkModel:
        """Read a file.

        Loading such a file can run code that it names; this refuses what needs any (see
        `torch_archive`), and is still no reason to load files of strangers.

        Args:
            location: the `.pt2` file.
            task: what it is for; the file itself does not say.

        Returns:
            The model; sizes are open where they were when it was exported.

        Raises:
            SourceError: if it is damaged, would run code, or cannot be written as ONNX.
            InputError: if a package is missing.
        """
        path = existing_file(location)
        _require(str(path))
        import torch

        with _quiet():
            check_archive(path)
            try:
                program = torch.export.load(path)
            except (RuntimeError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
                raise SourceError(f"{path}: torch cannot load it: {_first(error)}") from error
            graph, notes = _exported(program, str(path), (), ())
        return NetworkModel(
            name=name_of(path),
            family="torch",
            graph=graph,
            sha256=files_sha256([path], root=path.parent),
            source_bytes=_n_bytes(program.state_dict),
            weight_bits=_bits(program.state_dict),
            notes=notes,
        )


def model_from_torch(
    module: "torch.nn.Module",
    example_inputs: "Sequence[torch.Tensor]",
    *,
    name: str,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    open_axes: Sequence[Sequence[int]] | None = None,
    feed: Feed | None = None,
    labels: Sequence[str] = (),
) -> NetworkModel:
    """Return the model of a module in this process; the module is not changed.

    Args:
        module: what computes; run as in evaluation.
        example_inputs: what it is called with, in order; the batch is the first size of each.
        name: for the bundle.
        input_names: of the graph's inputs; () for those of `forward`.
        output_names: of the outputs; () for what torch calls them.
        open_axes: of each input, which sizes stay open; None for the batch alone.
        feed: how pictures, sounds or texts are fed.
        labels: names of the classes.

    Returns:
        The model, compared with the module on the examples; a note where a size had to be fixed.

    Raises:
        SourceError: if it cannot be exported, or its graph gives other numbers than the module.
        InputError: if a package is missing.
    """
    _require(name)
    import torch

    axes = [(0,)] * len(example_inputs) if open_axes is None else [tuple(a) for a in open_axes]
    # torch takes a size of 1 for one that is always 1.
    inputs = tuple(
        torch.cat([x, x]) if 0 in a and x.shape[0] == 1 else x
        for x, a in zip(example_inputs, axes, strict=True)
    )
    open_sizes = tuple(dict.fromkeys(a, torch.export.Dim.AUTO) for a in axes)
    with _quiet(), _evaluating(module), torch.no_grad():
        expected = module(*inputs)
        try:
            program = torch.export.export(module, inputs, dynamic_shapes=open_sizes)
        except Exception as error:  # the exporter lets errors of any kind through
            raise SourceError(f"{name}: torch cannot export it: {_first(error)}") from error
        graph, notes = _exported(program, name, tuple(input_names), tuple(output_names))
    _compare(graph, name, [x.numpy() for x in inputs], _arrays(expected))
    state = module.state_dict()
    return NetworkModel(
        name=bundle_name(name),
        family="torch",
        graph=graph,
        sha256=hashlib.sha256(model_bytes(graph)).hexdigest(),
        source_bytes=_n_bytes(state),
        weight_bits=_bits(state),
        feed=feed,
        labels=tuple(labels),
        notes=notes,
    )


def _require(where: str) -> None:
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"{where}: needs {package}: pip install onhand[host,pytorch]")


def _exported(
    program: "ExportedProgram",
    where: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> tuple[Graph, tuple[str, ...]]:
    """Return a program's graph, cleaned, and what a user should know of it.

    Raises:
        SourceError: if torch cannot write it.
    """
    import torch

    try:
        written = torch.onnx.export(
            program,
            dynamo=True,
            external_data=False,
            input_names=list(input_names) or None,
            opset_version=_OPSET,
            output_names=list(output_names) or None,
            verbose=False,
        )
    except Exception as error:  # the exporter lets errors of any kind through
        raise SourceError(f"{where}: torch cannot write it as ONNX: {_first(error)}") from error
    if written is None:
        raise SourceError(f"{where}: torch wrote no ONNX of it")
    graph, n_rows = plain_attention(graph_from_model(written.model_proto, where=where))
    graph = _named_batch(clean(plain_transposes(clean(graph))))
    notes = []
    if n_rows:
        notes.append(
            "where attention masks every token of a row, it spreads evenly instead of giving zeros"
        )
    if graph.inputs and all(isinstance(v.shape[0], int) for v in graph.inputs if v.shape):
        notes.append("the network is of one batch size: torch could not leave it open")
    return graph, tuple(notes)


def _named_batch(graph: Graph) -> Graph:
    """Call the open first size of the first input what it is."""
    first = graph.inputs[0].shape[:1] if graph.inputs else ()
    if not first or not isinstance(first[0], str):
        return graph

    def called(value: Value) -> Value:
        shape = tuple(BATCH if size == first[0] else size for size in value.shape)
        return replace(value, shape=shape)

    return replace(
        graph,
        inputs=tuple(called(value) for value in graph.inputs),
        outputs=tuple(called(value) for value in graph.outputs),
    )


def _arrays(found: object) -> list[Array]:
    """Return tensors of any structure, in order."""
    import torch

    if isinstance(found, torch.Tensor):
        return [found.detach().cpu().numpy()]
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return [array for item in found for array in _arrays(item)]
    return []


def _compare(graph: Graph, where: str, inputs: Sequence[Array], expected: Sequence[Array]) -> None:
    """Refuse a graph that does not compute what its module does.

    Raises:
        SourceError: if it does not.
    """
    feeds = {value.name: array for value, array in zip(graph.inputs, inputs, strict=True)}
    found = list(GraphRunner(graph, threads=1).run(feeds).values())
    if len(found) != len(expected):
        raise SourceError(f"{where}: its graph has {len(found)} outputs, it has {len(expected)}")
    for value, left, right in zip(graph.outputs, found, expected, strict=True):
        most = 1e-3 * max(1.0, float(np.abs(right).max(initial=0.0)))
        if left.shape != right.shape or not np.allclose(left, right, rtol=1e-3, atol=most):
            raise SourceError(f"{where}: its graph gives other numbers for {value.name!r}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks to itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _evaluating(module: "torch.nn.Module") -> Iterator[None]:
    """Put a module into evaluation, each part back into its own state afterwards."""
    were = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, was in were:
            part.training = was


def _n_bytes(state: "Mapping[str, torch.Tensor]") -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _bits(state: "Mapping[str, torch.Tensor]") -> int:
    # Brain floats have no dtype in numpy: their width is what counts.
    return widest_share(
        np.broadcast_to(np.zeros((), dtype=f"u{tensor.element_size()}"), tensor.shape)
        for tensor in state.values()
    )


def _first(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else repr(error)
