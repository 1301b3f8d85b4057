"""How much a bundle of a network lost against its original, on any examples."""

from pathlib import Path

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.measurement import Measurement
from onhand.core.progress import Progress, Quiet
from onhand.device.networks.answers import read_labels
from onhand.device.networks.boxes import box_reader
from onhand.device.networks.texts import TOKENIZER
from onhand.device.threads import usable_threads
from onhand.host.evaluate import recorded_place
from onhand.host.networks.clean import clean
from onhand.host.networks.data import read_data
from onhand.host.networks.judge import answer_bundle, answer_graph, compare_answers
from onhand.host.networks.loading import load_network
from onhand.host.networks.model import NetworkModel

__all__ = ["evaluate_network"]


def evaluate_network(
    root: Path,
    data: Path,
    *,
    original: Path | None,
    variant: str | None,
    engine: str | None,
    threads: int | None,
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
        home: the state folder.
        progress: told how far it is.

    Returns:
        The figures of `compare_answers`.

    Raises:
        InputError: if the data, the variant or the engine cannot be used, or the original is gone
            or another one.
        EngineError: if the bundle does not run.
    """
    shown = progress or Quiet()
    bundle = read_bundle(root)
    chosen, _ = bundle.variant(variant)
    network = bundle.manifest.network
    has_texts = TOKENIZER in bundle.manifest.files
    tokenizer = bundle.path(TOKENIZER).read_bytes() if has_texts else None
    samples = read_data(data, network, read_labels(bundle), tokenizer=tokenizer)
    model = _find_original(home, bundle, original)
    n_threads = threads or usable_threads()
    theirs = answer_graph(clean(model.graph), samples, threads=n_threads, progress=shown)
    ours = answer_bundle(
        root, samples, variant=chosen, engine=engine, threads=n_threads, progress=shown
    )
    how = (
        f"onhand evaluate {root.name} --data {data.name} --variant {chosen} --engine {ours.engine}"
    )
    return compare_answers(
        theirs,
        ours,
        task=network.task,
        labels=samples.labels,
        how=how,
        reader=box_reader(network),
        truths=samples.truths,
    )


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
