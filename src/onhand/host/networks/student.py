"""A student of a teacher: a smaller form of it, or a network of its own; trained and written."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError
from onhand.core.progress import Progress, Quiet
from onhand.device.threads import usable_threads
from onhand.host.networks.clean import clean
from onhand.host.networks.costs import count_operations
from onhand.host.networks.data import read_data
from onhand.host.networks.graph import Graph
from onhand.host.networks.loading import load_network, with_inputs
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.pack import describe
from onhand.host.networks.passes.base import Workbench
from onhand.host.networks.passes.distil import Distil
from onhand.host.networks.samples import Samples

__all__ = ["Distilled", "Scaling", "distil_network", "parse_student", "scaled_student"]

_KEYS: Final = ("width", "depth")
_LEAST = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """A student as a smaller form of its teacher.

    Attributes:
        width: share of the channels that stay, in the mean; above 0, at most 1.
        depth: share of the residual blocks that stay.
    """

    width: float = 1.0
    depth: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilled:
    """What `distil_network` made.

    Attributes:
        path: the student, an ONNX file.
        notes: sentences on how it went.
        size_bytes: of the teacher's constants, and of the student's.
        n_operations: likewise, multiply-accumulates of one example.
    """

    path: Path
    notes: tuple[str, ...]
    size_bytes: tuple[int, int]
    n_operations: tuple[int, int]


def parse_student(text: str) -> Scaling | str:
    """Read what a student should be.

    Args:
        text: as "width=0.5", "depth=0.5", both with a comma between, or the place of a network.

    Returns:
        The scaling, or the place.

    Raises:
        InputError: if a share is out of range, or a word unknown.
    """
    if "=" not in text or Path(text).exists():
        return text
    given: dict[str, float] = {}
    for part in text.split(","):
        key, _, number = part.strip().partition("=")
        if key not in _KEYS:
            raise InputError(f"--student: {key!r} is none of {', '.join(_KEYS)}, and no file")
        try:
            share = float(number)
        except ValueError as error:
            raise InputError(f"--student: {key} is {number!r}, must be a number") from error
        if not _LEAST <= share <= 1:
            raise InputError(f"--student: {key} is {number}, must be from {_LEAST} to 1")
        if key in given:
            raise InputError(f"--student: {key} is given twice")
        given[key] = share
    return Scaling(**given)


def scaled_student(scaling: Scaling, bench: Workbench) -> tuple[Graph, tuple[str, ...]]:
    """Cut a student out of its teacher: what matters least goes.

    Args:
        scaling: how much stays.
        bench: with the teacher and examples.

    Returns:
        The student, and what was done.

    Raises:
        InputError: if there are no examples, or no residual blocks where some should go.
    """
    from onhand.host.networks.passes.prune_channels import PruneChannels
    from onhand.host.networks.residual_blocks import find_blocks

    teacher = bench.original
    layers = 0
    if scaling.depth < 1:
        found = len(find_blocks(teacher))
        layers = round(found * (1 - scaling.depth))
        if layers < 1:
            raise InputError(
                f"--student: the network has {found} residual blocks, of which depth="
                f"{scaling.depth:g} leaves all; give a smaller depth, or a width"
            )
    # Products grow with the channels on both sides.
    ratio = 1 - scaling.width**2
    made = PruneChannels(ratio=ratio, layers=layers).apply(teacher, bench)
    return made.graph, made.notes


def distil_network(
    teacher: str,
    student: str,
    out: Path,
    options: Distil,
    *,
    task: str,
    data: Path,
    feed: str | None = None,
    labels: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Distilled:
    """Train a small network on the answers of a large one, and write it.

    An interrupted run leaves its state beside `out`; the same call goes on with it.

    Args:
        teacher: a file or a folder.
        student: see `parse_student`.
        out: the ONNX file to write; must not exist.
        options: how it is trained.
        task: one of `onhand.core.network.TASKS`.
        data: examples, see `read_data`.
        feed: see `with_inputs`.
        labels: see `with_inputs`.
        threads: to use; None for all usable ones.
        progress: told how far it is.

    Returns:
        What was made.

    Raises:
        InputError: if anything given cannot be used, or the student has other inputs or outputs.
        SourceError: if a network is damaged or unknown.
        EngineError: if a network cannot run.
        ResourceError: if the state of an interrupted run is damaged.
    """
    _check_place(out)
    wanted = parse_student(student)
    model = with_inputs(load_network(teacher, task=task), feed=feed, labels=labels)
    model = replace(model, graph=clean(model.graph))
    bench = Workbench(
        original=model.graph,
        calibration=_examples(data, model, task),
        task=task,
        threads=threads or usable_threads(),
        folder=out.with_name(f"{out.name}.training"),
        progress=progress or Quiet(),
    )
    graph, notes = _student(wanted, bench)
    made = options.apply(graph, bench)
    _write(out, made.graph, bench)
    return Distilled(
        path=out,
        notes=(*notes, *made.notes),
        size_bytes=(model.graph.size_bytes(), made.graph.size_bytes()),
        n_operations=(count_operations(model.graph), count_operations(made.graph)),
    )


def _examples(data: Path, model: NetworkModel, task: str) -> Samples:
    network, tokenizer = describe(model, task), model.files.get("tokenizer.json")
    return read_data(data, network, model.labels, tokenizer=tokenizer)


def _check_place(out: Path) -> None:
    if out.exists():
        raise InputError(f"{out} exists; remove it, or choose another name")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out.absolute().parent} is not a folder; create it first")


def _student(wanted: Scaling | str, bench: Workbench) -> tuple[Graph, tuple[str, ...]]:
    if isinstance(wanted, Scaling):
        return scaled_student(wanted, bench)
    graph = clean(load_network(wanted, task=bench.task).graph)
    _check_fits(graph, bench.original, wanted)
    return graph, ()


def _write(out: Path, graph: Graph, bench: Workbench) -> None:
    beside = out.with_name(f"{out.name}.new")
    beside.write_bytes(model_bytes(graph))
    beside.replace(out)
    if bench.folder is not None and bench.folder.is_dir():
        for file in bench.folder.iterdir():
            file.unlink()
        bench.folder.rmdir()


def _check_fits(student: Graph, teacher: Graph, where: str) -> None:
    """Hold a student's inputs and outputs against its teacher's.

    Raises:
        InputError: if they differ in name, dtype or a fixed size.
    """
    for kind, ours, theirs in (
        ("inputs", student.inputs, teacher.inputs),
        ("outputs", student.outputs, teacher.outputs),
    ):
        mine = [(v.name if kind == "inputs" else "", v.dtype, _fixed(v.shape)) for v in ours]
        wanted = [(v.name if kind == "inputs" else "", v.dtype, _fixed(v.shape)) for v in theirs]
        if mine != wanted:
            shown = [", ".join(f"{v.name} {v.dtype} {v.shape}" for v in part)
                     for part in (ours, theirs)]  # fmt: skip
            raise InputError(
                f"{where}: its {kind} are {shown[0]}; those of the teacher are {shown[1]}"
            )


def _fixed(shape: tuple[int | str | None, ...]) -> Mapping[int, int]:
    # Behind the first, which is the batch.
    return {i: size for i, size in enumerate(shape) if i and isinstance(size, int)}
