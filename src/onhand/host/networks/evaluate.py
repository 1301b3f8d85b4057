"""How much a bundle of a network lost against its original, on any examples."""

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.measurement import Measurement
from onhand.core.progress import Progress, Quiet
from onhand.device.learning.in_use import LearnedVersion
from onhand.device.learning.network_in_use import network_in_use
from onhand.device.networks.answers import read_labels
from onhand.device.networks.base import Array
from onhand.device.networks.boxes import box_reader
from onhand.device.networks.texts import TOKENIZER
from onhand.device.threads import usable_threads
from onhand.host.evaluate import recorded_place
from onhand.host.networks.clean import clean
from onhand.host.networks.data import read_data
from onhand.host.networks.judge import Answers, answer_bundle, answer_graph, compare_answers
from onhand.host.networks.loading import load_network
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.samples import Samples

__all__ = ["evaluate_network"]

_SUMS_TO_ONE: Final = 1e-2
# Of a score: its class has a probability of nearly nothing beside the others.
_FAR_BELOW: Final = 20.0


def evaluate_network(
    root: Path,
    data: Path,
    *,
    original: Path | None,
    variant: str | None,
    engine: str | None,
    threads: int | None,
    version: int = 0,
    home: Path,
    progress: Progress | None = None,
) -> dict[str, Measurement]:
    """Compare a bundle with its original on examples.

    Args:
        root: the bundle's folder.
        data: examples that compression has not seen; see `onhand.host.networks.data.read_data`.
        original: the source; None for the one that the build recorded.
        variant: one of the bundle's variants; None for its default.
        engine: of the bundle; None for the fastest.
        threads: of one run; None for all usable ones.
        version: learned on this device; 0 for the bundle as it was built.
        home: the state folder.
        progress: told how far it is.

    Returns:
        The figures of `compare_answers`.

    Raises:
        InputError: if the data, the variant or the engine cannot be used, the original is gone or
            another one, or the version gives something else than it.
        EngineError: if the bundle does not run.
    """
    shown = progress or Quiet()
    built, bundle = _opened(root, home, version)
    chosen, _ = bundle.variant(variant)
    network = bundle.manifest.network
    samples = _samples(bundle, data)
    model = _find_original(home, built, original)
    n_threads = threads or usable_threads()
    theirs = answer_graph(clean(model.graph), samples, threads=n_threads, progress=shown)
    learned = LearnedVersion(version, home) if version else None
    answered = partial(answer_bundle, root, samples, variant=chosen, engine=engine)
    ours = answered(threads=n_threads, progress=shown, learned=learned)
    how = (
        f"onhand evaluate {root.name} --data {data.name} --variant {chosen} --engine {ours.engine}"
        f"{'' if learned is None else learned.option()}"
    )
    if added := network.n_labels - built.manifest.network.n_labels:
        shown.note(f"the original does not know {added} of the classes: it never answers them")
        theirs = _without_added(theirs, ours)
    return compare_answers(
        theirs,
        ours,
        task=network.task,
        labels=samples.labels,
        how=how,
        reader=box_reader(network),
        truths=samples.truths,
    )


def _samples(bundle: Bundle, data: Path) -> Samples:
    """Read examples as a bundle takes them; labels are those of its classes now."""
    has_texts = TOKENIZER in bundle.manifest.files
    tokenizer = bundle.path(TOKENIZER).read_bytes() if has_texts else None
    return read_data(data, bundle.manifest.network, read_labels(bundle), tokenizer=tokenizer)


def _opened(root: Path, home: Path, version: int) -> tuple[Bundle, Bundle]:
    """Return the bundle as it was built, and with a version.

    Raises:
        InputError: if the version gives something else than the original: classes, not vectors.
    """
    built = read_bundle(root)
    bundle, _ = network_in_use(built, home, version)
    before, after = built.manifest.network.task, bundle.manifest.network.task
    if before != after:
        raise InputError(
            f"{built.root}: version {version} is for {after}, its original for {before}: there is "
            "nothing to compare it with; its gate's figures are in onhand versions"
        )
    return built, bundle


def _without_added(theirs: Answers, ours: Answers) -> Answers:
    """Return the original's answers with a score for every class, lowest for those it lacks."""
    (name,) = list(theirs.outputs[0])[:1]
    size = ours.first()[0].size
    outputs: list[dict[str, Array]] = []
    for one in theirs.outputs:
        scores = np.asarray(one[name])
        missing = size - scores.shape[-1]
        is_share = scores.min() >= 0 and abs(float(scores.sum()) - 1) < _SUMS_TO_ONE
        low = 0.0 if is_share else float(scores.min()) - _FAR_BELOW
        added = np.full((*scores.shape[:-1], missing), low, scores.dtype)
        outputs.append({**one, name: np.concatenate([scores, added], axis=-1)})
    return Answers(outputs, theirs.engine)


def _find_original(home: Path, bundle: Bundle, original: Path | None) -> NetworkModel:
    """Load the network that a bundle was made from.

    Raises:
        InputError: if nothing is recorded, it is gone, or it is another one.
    """
    location = str(original) if original else recorded_place(home, bundle)
    if not Path(location).exists():
        raise InputError(f"{bundle.root}: its original {location} is gone; give --original PATH")
    model = load_network(location, task=bundle.manifest.network.task)
    if model.sha256 != (expected := bundle.manifest.provenance.get("source_sha256")):
        raise InputError(
            f"{location} is not what {bundle.root} was made from: SHA-256 {model.sha256}, "
            f"expected {expected}; give --original PATH"
        )
    return model
