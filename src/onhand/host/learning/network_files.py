"""A network's lesson put into a bundle that is being built."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onhand.core.bundle import Bundle, write_manifest
from onhand.core.lesson import LESSON, Lesson, render_lesson
from onhand.core.safetensors import SafetensorsWriter, TensorSpec
from onhand.core.units import format_bytes
from onhand.device.learning.modules import MODULES, render_modules
from onhand.device.learning.rounding import scale_name
from onhand.host.learning.check import STEPS
from onhand.host.learning.differentiate import differentiate
from onhand.host.learning.losses import append_class_loss
from onhand.host.learning.network_check import CheckedNetwork, check_network_lesson
from onhand.host.learning.network_edit import CLASSES
from onhand.host.learning.network_graph import StoredGraph, fixed_names, read_stored
from onhand.host.learning.network_lesson import (
    ANSWERS,
    GRAPH,
    START,
    TRUNK,
    NetworkLesson,
    make_lesson,
)
from onhand.host.learning.network_modules import Checkpoint, find_modules
from onhand.host.learning.network_rounding import without_rounding
from onhand.host.learning.wanted import Learnable
from onhand.host.networks.graph import Graph
from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.samples import Samples

__all__ = ["AddedLesson", "add_network_lesson"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedLesson:
    """A bundle with its lesson.

    Attributes:
        bundle: at the place that it had.
        lesson: what it can learn.
        checked: how its gradients were checked.
        size_bytes: of the files that the lesson added.
        nameless: why what is learned has no names of layers that others could load it by; "" where
            it has.
    """

    bundle: Bundle
    lesson: Lesson
    checked: CheckedNetwork
    size_bytes: int
    nameless: str = ""

    def to_json(self) -> dict[str, object]:
        """Return plain values for a report."""
        values = self.lesson.trainables.values()
        sizes = [_count(made.shape) for made in values]
        return {
            "check": self.checked.to_json(),
            "kind": self.lesson.kind,
            "n_parameters": sum(sizes),
            "n_tensors": len(sizes),
            "size_bytes": self.size_bytes,
            "trunk": self.lesson.trunk is not None,
            "variant": self.lesson.variant,
        }

    def sentence(self) -> str:
        """Say what can be learned, for people."""
        n = sum(_count(made.shape) for made in self.lesson.trainables.values())
        worst = self.checked.gradients.gradient_error
        return (
            f"{self.lesson.variant} can learn on the device ({self.lesson.kind}): {n:,} numbers in "
            f"{len(self.lesson.trainables)} tensors, {format_bytes(self.size_bytes)} of files; "
            f"every gradient is at most {worst:.1g} away from PyTorch's"
        )


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def add_network_lesson(
    bundle: Bundle,
    learnable: Learnable,
    *,
    samples: Samples,
    threads: int,
    steps: int = STEPS,
    checkpoint: Checkpoint | None = None,
) -> AddedLesson:
    """Add what a network can learn to a bundle, once every gradient agrees with PyTorch's.

    Args:
        bundle: of a network, written but not yet at its place; its default variant learns.
        learnable: what is to be learned.
        samples: examples for the check; random inputs where there are none.
        threads: of one run.
        steps: of descent, in which both go their own way.
        checkpoint: where the network came from; None where its layers have no names.

    Returns:
        The bundle, its manifest written again.

    Raises:
        InputError: if nothing of that kind can be learned of this network; it says why.
        SourceError: if an operator on the way has no rule of differentiation.
        EngineError: if a gradient is not PyTorch's.
    """
    variant = bundle.manifest.default_variant
    stored = read_stored(bundle, variant)
    made = make_lesson(stored.graph, learnable, variant=variant, task=bundle.manifest.network.task)
    smooth = without_rounding(made.forward, fixed_names(made.forward))
    models = {"rounded": _taught(stored, made.forward, made)}
    same = smooth is made.forward
    models["smooth"] = models["rounded"] if same else _taught(stored, smooth, made)
    if made.trunk is not None:
        models["trunk"] = stored.content(made.trunk)
    checked = check_network_lesson(
        made, smooth, models, bundle, samples=samples, threads=threads, steps=steps
    )
    files = {GRAPH: models["rounded"], ANSWERS: stored.content(made.opened.graph)}
    if made.trunk is not None:
        files[TRUNK] = models["trunk"]
    files[LESSON] = render_lesson(made.lesson)
    nameless = "it did not come from a checkpoint whose layers have names"
    if checkpoint is not None:
        modules = find_modules(checkpoint, stored.graph, made.opened)
        nameless = modules if isinstance(modules, str) else ""
        if not isinstance(modules, str):
            files[MODULES] = render_modules(modules)
    return replace(_written(bundle, made, files, checked), nameless=nameless)


def _taught(stored: StoredGraph, forward: Graph, made: NetworkLesson) -> bytes:
    """Return a forward graph with its loss and gradients, an ONNX file."""
    import onnx

    model = onnx.load_from_string(model_bytes(forward, outside=stored.places_of(forward)))
    del model.graph.output[:]
    (logits,) = forward.outputs
    n_classes = CLASSES if made.opened.grows else logits.shape[-1] or CLASSES
    starts = append_class_loss(model.graph, logits=logits.name, n_classes=n_classes)
    taught = differentiate(model, loss="loss", wrt=list(made.lesson.trainables), starts=starts)
    content: bytes = taught.SerializeToString(deterministic=True)
    return content


def _written(
    bundle: Bundle, made: NetworkLesson, files: Mapping[str, bytes], checked: CheckedNetwork
) -> AddedLesson:
    root = bundle.root
    for name, content in files.items():
        (root / name).write_bytes(content)
    scales = made.opened.scales
    starts = dict(made.opened.starts) | {scale_name(name): scales[name] for name in scales}
    declared = {
        name: TensorSpec(dtype="F32", shape=array.shape, offset=0) for name, array in starts.items()
    }
    with SafetensorsWriter(root / START, declared) as writer:
        for name, array in starts.items():
            writer.write(name, array)
        digest = writer.close()
    known = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    finished = write_manifest(root, bundle.manifest, hashes={**known, START: digest})
    size = sum(finished.manifest.files[name].size for name in (*files, START))
    return AddedLesson(bundle=finished, lesson=made.lesson, checked=checked, size_bytes=size)
