"""A network with what it learned on this device: the bundle's files stay as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, LearnedGraph
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.feed import PictureFeed, SoundFeed, TextFeed
from onhand.core.lesson import Lesson
from onhand.core.network import ArrayInfo, Network
from onhand.core.onnxbind import CodedTensor, bind_inputs
from onhand.core.onnxfile import read_graph
from onhand.core.onnxgraph import DeclaredArray, declared_arrays
from onhand.device.learning.lesson_files import (
    check_values,
    class_names,
    read_lesson,
    read_scales,
    read_start,
)
from onhand.device.learning.rounding import rounded_weights

__all__ = ["with_learned"]

# What a network that gave vectors is for, once it tells classes apart, by what it is fed.
_TASKS: Final[Mapping[type, str]] = {
    PictureFeed: "image-classification",
    SoundFeed: "audio-classification",
    TextFeed: "text-classification",
}


def with_learned(
    bundle: Bundle, tensors: Mapping[str, FloatArray], *, labels: Sequence[str] = ()
) -> Bundle:
    """Return a bundle that opens with what was learned, in every engine for networks.

    Args:
        bundle: a verified bundle of a network that holds a lesson.
        tensors: by a trainable's name; those that are left out stand as they were built. What
            grows may have more classes than it started with.
        labels: names of the classes that were added, behind those that the bundle has.

    Returns:
        The bundle, with only the variant that learns. Its description is that of the network as
        it is now: a network that gave vectors gives scores first, if it learned a head.

    Raises:
        InputError: if the bundle cannot learn, a tensor is unknown or of another shape, or there
            are not as many labels as classes.
        BundleCorrupt: if the lesson's files do not match each other or the manifest.
    """
    if bundle.learned is not None:
        raise InputError(f"{bundle.root}: has learned something already: start from the bundle")
    lesson = read_lesson(bundle)
    network = bundle.manifest.network
    if lesson.answers is None:
        raise BundleCorrupt(f"{bundle.root}: its lesson does not say how a network answers")
    if odd := sorted(tensors.keys() - lesson.trainables.keys()):
        raise InputError(f"{bundle.root}: {odd[0]!r} is not one that is learned")
    values = {**read_start(bundle, lesson), **tensors}
    check_values(values, lesson.trainables)
    known = _labels(bundle, lesson, values, labels)
    path = bundle.path(lesson.answers)
    rounded = rounded_weights(lesson, values, read_scales(bundle, lesson))
    content = bind_inputs(
        read_graph(path),
        {name: value for name, value in values.items() if name not in rounded},
        {name: CodedTensor(one.codes, one.scales, one.axis) for name, one in rounded.items()},
    )
    described = _described(network, declared_arrays(content)[1], len(known), where=str(path))
    manifest = replace(
        bundle.manifest,
        default_variant=lesson.variant,
        variants={lesson.variant: bundle.manifest.variants[lesson.variant]},
        model=described,
    )
    return replace(
        bundle,
        manifest=manifest,
        learned=LearnedGraph(
            content=content, labels=known, kind=lesson.kind, is_coded=_is_coded(lesson)
        ),
    )


def _is_coded(lesson: Lesson) -> bool:
    """Return whether what is learned between integers are integers; a head's scores never are."""
    weights = [
        made.codes is not None
        for made in lesson.trainables.values()
        if len(made.shape) > 1 and not made.grows
    ]
    return any(weights) and all(weights)


def _labels(
    bundle: Bundle, lesson: Lesson, values: Mapping[str, FloatArray], added: Sequence[str]
) -> tuple[str, ...]:
    """Return the names of all classes; none where nobody named the first ones.

    Raises:
        InputError: if there are not as many as classes, or one is given twice.
    """
    grown = [name for name, made in lesson.trainables.items() if made.grows]
    known = class_names(bundle, lesson)
    if not grown:
        if added:
            raise InputError(f"{bundle.root}: its lesson adds no classes, {len(added)} are named")
        return known
    C, before = values[grown[0]].shape[0], lesson.trainables[grown[0]].shape[0]
    if not added and before == C:
        return known
    together = (*known, *added) if known else _numbered(before, added)
    if len(together) != C:
        raise InputError(
            f"{bundle.root}: {C} classes were learned, and {len(together)} have a name: "
            f"{len(added)} new ones were named"
        )
    if len(set(added)) != len(added) or set(added) & set(known):
        raise InputError(f"{bundle.root}: a new class has the name of another")
    return together


def _numbered(n: int, added: Sequence[str]) -> tuple[str, ...]:
    return (*(str(i) for i in range(n)), *added)


def _described(
    network: Network, outputs: Sequence[DeclaredArray], n_labels: int, *, where: str
) -> Network:
    """Return the description of a network as it is now.

    Raises:
        BundleCorrupt: if the graph gives something else than the network gave, and scores.
    """
    names = [info.name for info in network.outputs]
    found = [info.name for info in outputs]
    if found != names and found[1:] != names:
        raise BundleCorrupt(f"{where}: gives {', '.join(found)}, must give {', '.join(names)}")
    first = outputs[0]
    if first.shape is None or not first.dtype:
        raise BundleCorrupt(f"{where}: does not say what its output {first.name!r} is")
    scores = ArrayInfo(name=first.name, dtype=first.dtype, shape=first.shape)
    is_new = found != names
    return replace(
        network,
        task=_TASKS.get(type(network.feed), network.task) if is_new else network.task,
        outputs=(scores, *(network.outputs if is_new else network.outputs[1:])),
        n_labels=n_labels,
    )
