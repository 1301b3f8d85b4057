"""Networks whose layers get choices: for `benchmarks.network_costs` and `network_search`."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.encoder_bundles import CALIBRATION, texts_to_learn
from benchmarks.fusion import encoder as random_encoder
from benchmarks.tiny_data import ASSETS, cifar
from benchmarks.vision import FEED, MOBILENET, N_CALIBRATION, PICTURES, SEED, read_examples
from onhand.core.progress import Quiet
from onhand.device.probe import current_profile
from onhand.host.networks.build import PreparedNetwork, prepare_network
from onhand.host.networks.clean import clean
from onhand.host.networks.data import DataSplit
from onhand.host.networks.graph import Array
from onhand.host.networks.loading import load_network
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.pack import describe
from onhand.host.networks.samples import Samples
from onhand.host.search.network_ground import Ground

__all__ = ["CASES", "ground_of", "is_there", "keep_results", "present", "task_of"]

RESNET = ASSETS / "mlperf-tiny" / "image_classification" / "trained_models" / "pretrainedResnet.h5"
CASES = ("resnet-8", "mobilenet-v2", "encoder")
TOKENS, WIDTH, LAYERS = 128, 384, 6


def is_there(name: str) -> bool:
    """Say whether a case's files are in the folder of `ONHAND_ASSETS`."""
    if name == "resnet-8":
        return RESNET.is_file() and (ASSETS / "cifar10").is_dir()
    return name == "encoder" or (MOBILENET.is_file() and PICTURES.is_dir())


def present(names: Sequence[str]) -> Iterator[str]:
    """Yield the cases whose files are there, and say which are not.

    Args:
        names: of the cases.
    """
    for name in names:
        if is_there(name):
            yield name
        else:
            print(f"{name}: its files are absent: set ONHAND_ASSETS", file=sys.stderr)


def keep_results(
    found: Mapping[str, object], *, command: str, threads: int, out: Path
) -> dict[str, object]:
    """Write what was found of all networks, with how and where; return what was written.

    Args:
        found: name of a case -> its figures.
        command: measures them again.
        threads: that were used.
        out: the file.
    """
    results: dict[str, object] = {
        "command": command,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": current_profile().processor,
        "threads": threads,
        "networks": dict(found),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    return results


def task_of(name: str) -> str:
    """Return what a case's network is for."""
    return "features" if name == "encoder" else "image-classification"


def ground_of(
    name: str, home: Path, *, threads: int, judged: int, encoder: Path | None = None
) -> Ground:
    """Read a case.

    Args:
        name: one of `CASES`.
        home: state folder.
        threads: of one run.
        judged: examples that judge, at most.
        encoder: a folder that is the case "encoder", an encoder of texts; None for random weights.
    """
    if name == "encoder" and encoder is not None:
        return _texts_ground(encoder, home, threads=threads, judged=judged)
    model, data = _CASES[name](judged)
    options = NetworkOptions(task=task_of(name), variants={"mixed": ()}, threads=threads)
    ready = PreparedNetwork(
        model=model,
        graph=clean(model.graph),
        network=describe(model, task_of(name)),
        data=data,
        profile=current_profile(),
        threads=threads,
    )
    return Ground(ready, options, home=home, progress=Quiet())


def _texts_ground(encoder: Path, home: Path, *, threads: int, judged: int) -> Ground:
    """Read an encoder of texts with questions that it may learn from, and others that judge."""
    data = home / "texts.txt"
    # At most a half calibrates; of the others, no more judge than were asked for.
    n = CALIBRATION + max(judged, CALIBRATION)
    data.write_text("\n".join(texts_to_learn()[:n]) + "\n", encoding="utf-8")
    options = NetworkOptions(
        task="text-embedding",
        variants={"mixed": ()},
        threads=threads,
        data=data,
        n_calibration=CALIBRATION,
    )
    ready = prepare_network(str(encoder), options, Quiet())
    judging = ready.data.heldout.part(range(min(judged, len(ready.data.heldout))))
    ready = replace(ready, data=replace(ready.data, heldout=judging))
    return Ground(ready, options, home=home, progress=Quiet())


def _mobilenet(judged: int) -> tuple[NetworkModel, DataSplit]:
    model = replace(load_network(str(MOBILENET), task="image-classification"), feed=FEED)
    examples = read_examples()
    order = np.random.default_rng(SEED).permutation(len(examples.labels))
    seen = examples.part(order[:N_CALIBRATION])
    other = examples.part(order[N_CALIBRATION:][:judged])
    return model, _split(
        model, seen.arrays, other.arrays, other.labels.tolist(), "photographs of ImageNet"
    )


def _resnet(judged: int) -> tuple[NetworkModel, DataSplit]:
    model = load_network(str(RESNET), task="image-classification")
    examples = cifar(judged)
    labels = None if examples.labels is None else examples.labels.tolist()
    return model, _split(model, examples.calibrating[:100], examples.judging, labels, examples.what)


def _encoder(judged: int) -> tuple[NetworkModel, DataSplit]:
    graph = random_encoder(tokens=TOKENS, width=WIDTH, layers=LAYERS)
    model = NetworkModel(
        name="encoder",
        family="random",
        graph=graph,
        sha256=hashlib.sha256(f"{TOKENS} {WIDTH} {LAYERS}".encode()).hexdigest(),
        source_bytes=graph.size_bytes(),
    )
    drawn = np.random.default_rng(SEED).normal(size=(24 + min(judged, 24), TOKENS, WIDTH))
    arrays = drawn.astype(np.float32)
    return model, _split(model, arrays[:24], arrays[24:], None, "random numbers")


def _split(
    model: NetworkModel, seen: Array, judging: Array, labels: list[int] | None, what: str
) -> DataSplit:
    fed = model.graph.inputs[0].name
    digest = hashlib.sha256(np.ascontiguousarray(seen).tobytes())
    digest.update(np.ascontiguousarray(judging).tobytes())
    return DataSplit(
        calibration=Samples(feeds=[{fed: array[None]} for array in seen]),
        heldout=Samples(feeds=[{fed: array[None]} for array in judging], labels=labels),
        what=what,
        sha256=digest.hexdigest(),
    )


_CASES = {"encoder": _encoder, "mobilenet-v2": _mobilenet, "resnet-8": _resnet}
