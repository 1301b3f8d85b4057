"""What a network learned on a device, merged into a new bundle of it.

The network with what was learned is the original of the build: its products of low rank run beside
the weights, and a learned head in floats. The new bundle has them inside its weights, in the codes
that those had; answers of the two are compared before anything is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, InputError
from onhand.core.feed import TextFeed
from onhand.core.lesson import Lesson
from onhand.core.progress import Progress, Quiet
from onhand.core.trusting import making
from onhand.device.learning.in_use import choose_version, versions_of, whole_values
from onhand.device.learning.lesson_files import read_lesson
from onhand.device.learning.network_in_use import network_in_use
from onhand.device.learning.versions import Version
from onhand.device.networks.answers import read_labels
from onhand.device.networks.texts import TOKENIZER
from onhand.device.networks.timing import random_feeds
from onhand.host.build import BuildResult
from onhand.host.learning.network_graph import read_answering, read_stored
from onhand.host.learning.wanted import Learnable
from onhand.host.networks.build import build_network, prepare_network
from onhand.host.networks.folding import FoldLearned
from onhand.host.networks.graph import Graph
from onhand.host.networks.judge import answer_graph
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.passes.base import PassResult, Workbench
from onhand.host.networks.samples import Samples
from onhand.host.networks.steps import Step
from onhand.host.plain import read_plain_bundle

__all__ = ["NetworkMergeOptions", "merge_network"]

# Rounding to 8 bits moves an answer by a few hundredths; a wrong sum moves it by all of it.
_MOST_APART: Final = 0.2
_MOST_COMPARED: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMergeOptions:
    """What is merged, and how the result is judged.

    Attributes:
        version: which learned version; None for the one in use.
        data: examples that judge, as for a build; None for none: random inputs are compared then.
        threads: as for a build.
        measure_original: as for a build.
    """

    version: int | None = None
    data: Path | None = None
    threads: int | None = None
    measure_original: bool = True


class _Merge:
    """A step that gives a graph made before; see `NetworkPass`."""

    name: ClassVar[str] = "merge"

    def __init__(self, made: PassResult) -> None:
        self._made = made

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Return it."""
        return self._made


def merge_network(
    root: Path,
    out: Path,
    options: NetworkMergeOptions,
    *,
    home: Path,
    progress: Progress | None = None,
) -> BuildResult:
    """Merge what a network learned into its weights, and prove the new bundle.

    Args:
        root: the bundle's folder; the variant that learned is taken.
        out: the new bundle's folder; must not exist.
        options: what is merged.
        home: the state folder.
        progress: told how far it is.

    Returns:
        The new bundle's place and report; its version counter is one higher, and it can learn what
        the old one could.

    Raises:
        InputError: if there is nothing to merge.
        BundleError: if the bundle or the version is damaged.
        EngineError: if the two answer differently, or the new bundle does not run.
        ResourceError: if disk or memory does not suffice.
    """
    shown = progress or Quiet()
    bundle = read_plain_bundle(root)
    lesson = read_lesson(bundle)
    version = _version(bundle, home, options.version)
    learned, _ = network_in_use(bundle, home, version.number)
    model = _model(learned, bundle)
    stored = read_stored(bundle, lesson.variant).graph.constants
    coded = frozenset(name for name, array in stored.items() if array.dtype == np.int8)
    made = FoldLearned(lesson=lesson, old_heads=coded).apply(model.graph, _bench(model, learned))
    _check_changed(bundle, home, version.number, made)
    work = NetworkOptions(
        task=learned.manifest.network.task,
        variants={lesson.variant: (Step(_Merge(made)),)},
        data=options.data,
        threads=options.threads,
        measure_original=options.measure_original,
        learnable=_learnable(bundle, lesson),
        merged={
            "bundle_sha256": bundle.manifest_sha256,
            "bundle_version": bundle.manifest.version,
            "learned_version": version.number,
        },
    )
    ready = prepare_network(model, work, shown)
    size = bundle.manifest.network.n_parameters
    ready = replace(ready, network=replace(ready.network, n_parameters=size))
    _compare(model.graph, made.graph, ready.data.calibration, learned, ready.threads, shown)
    findings = {"notes": [f"{name}: {why}" for name, why in made.kept.items()]}
    with making():
        return build_network(
            model, out, work, home=home, progress=shown, ready=ready, findings=findings
        )


def _version(bundle: Bundle, home: Path, wanted: int | None) -> Version:
    """Return the version to merge.

    Raises:
        InputError: if nothing was learned.
    """
    in_use, version = choose_version(bundle, home, wanted)
    if in_use.passed_over:
        raise InputError(f"{in_use.passed_over[0]}; say with --version which one is meant")
    if version is None:
        raise InputError(
            f"{bundle.root} is used as it was built: there is nothing learned to merge"
        )
    return version


def _model(learned: Bundle, bundle: Bundle) -> NetworkModel:
    """Return a network with what was learned as the source of a build."""
    network = learned.manifest.network
    names = [TOKENIZER] if TOKENIZER in bundle.manifest.files else []
    return NetworkModel(
        name=bundle.manifest.name,
        # No checkpoint has these weights: an adapter of the new bundle is for none.
        family=f"{bundle.manifest.provenance.get('family', 'network')}, merged",
        graph=read_answering(learned),
        sha256=learned.manifest_sha256,
        source_bytes=bundle.size_bytes(learned.manifest.default_variant),
        weight_bits=32,
        feed=network.feed,
        detection=network.detection,
        labels=tuple(read_labels(learned)),
        files={name: bundle.path(name).read_bytes() for name in names},
    )


def _bench(model: NetworkModel, learned: Bundle) -> Workbench:
    return Workbench(
        original=model.graph,
        calibration=Samples(feeds=[]),
        task=learned.manifest.network.task,
        threads=1,
    )


def _check_changed(bundle: Bundle, home: Path, number: int, made: PassResult) -> None:
    """Refuse a version that changes nothing.

    Raises:
        InputError: if it is the bundle as it was built.
    """
    versions = versions_of(bundle, home)
    start = whole_values(bundle, versions, None)
    values = whole_values(bundle, versions, versions.find(number))
    if all(np.array_equal(values[name], start[name]) for name in values):
        raise InputError(f"version {number} of {bundle.root} changes nothing: nothing to merge")


def _learnable(bundle: Bundle, lesson: Lesson) -> Learnable:
    """Return what the new bundle should be able to learn: what the old one could."""
    wish = bundle.manifest.provenance.get("learnable")
    told: Mapping[str, object] = wish if isinstance(wish, Mapping) else {}
    targets, cut = told.get("targets"), told.get("cut")
    return Learnable(
        kind=lesson.kind,
        rank=lesson.rank or 8,
        alpha=lesson.alpha or None,
        targets=tuple(str(one) for one in targets) if isinstance(targets, list) else (),
        cut=cut if isinstance(cut, str) else "",
    )


def _compare(
    learned: Graph,
    merged: Graph,
    examples: Samples,
    bundle: Bundle,
    threads: int,
    shown: Progress,
) -> None:
    """Compare the answers of a network before and after merging.

    Raises:
        EngineError: if they are further apart than rounding explains.
    """
    some = examples.part(range(min(len(examples), _MOST_COMPARED)))
    if not len(examples):
        some = Samples(feeds=_random(bundle))
    ours, theirs = (
        answer_graph(graph, some, threads=threads, progress=shown, what="comparing answers")
        for graph in (merged, learned)
    )
    wanted = np.concatenate([one.reshape(-1) for one in theirs.first()])
    found = np.concatenate([one.reshape(-1) for one in ours.first()])
    apart = float(np.linalg.norm(found - wanted)) / max(float(np.linalg.norm(wanted)), 1e-12)
    shown.note(
        f"merged, the network answers {len(some)} examples with a relative error of {apart:.2g}"
    )
    if not apart <= _MOST_APART:
        raise EngineError(
            f"merged, the network answers {apart:.0%} apart from what was learned, at most "
            f"{_MOST_APART:.0%} is rounding: nothing was written"
        )


def _random(bundle: Bundle) -> list[dict[str, np.ndarray]]:
    """Return some random inputs; of texts, ids that every vocabulary has."""
    network = bundle.manifest.network
    found: list[dict[str, np.ndarray]] = []
    for seed in range(8):
        feeds = random_feeds(network)
        random = np.random.default_rng(seed)
        for name, array in feeds.items():
            if array.dtype.kind == "f":
                feeds[name] = random.standard_normal(array.shape).astype(array.dtype)
            elif isinstance(network.feed, TextFeed) and name == network.feed.ids:
                feeds[name] = random.integers(1, 30, array.shape).astype(array.dtype)
        found.append(feeds)
    return found
