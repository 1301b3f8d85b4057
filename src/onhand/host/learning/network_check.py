"""A network's lesson, checked before it is written: its gradients, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError
from onhand.core.feed import TextFeed
from onhand.core.network import Network
from onhand.device.learning.base import Feeds, Taught, Values
from onhand.device.networks.timing import random_feeds
from onhand.host.learning.check import STEPS, Checked, check_gradients
from onhand.host.learning.network_lesson import LATENT, NetworkLesson
from onhand.host.learning.network_session import open_bytes
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.samples import Samples

__all__ = ["CheckedNetwork", "check_network_lesson"]

_BATCH: Final = 4
_N_BATCHES: Final = 2
_FEWEST_CLASSES: Final = 3
# One code of an activation may fall to either side where sums differ in their last bit.
_ROUNDED_TOLERANCE: Final = 0.05
_TOKENS: Final = 12
_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedNetwork:
    """What a check found.

    Attributes:
        gradients: against PyTorch, with bounds in the place of rounding.
        rounded_error: largest relative distance of a gradient with rounding, straight-through on
            both sides; None where nothing is rounded.
    """

    gradients: Checked
    rounded_error: float | None

    def to_json(self) -> dict[str, object]:
        """Return plain numbers for a report."""
        return self.gradients.to_json() | {"rounded_error": self.rounded_error}


def check_network_lesson(
    made: NetworkLesson,
    smooth: Graph,
    models: Mapping[str, bytes],
    bundle: Bundle,
    *,
    samples: Samples,
    threads: int,
    steps: int = STEPS,
) -> CheckedNetwork:
    """Compare a lesson's gradients with PyTorch's.

    Args:
        made: the lesson.
        smooth: its forward graph, with bounds in the place of rounding.
        models: "smooth" and "rounded", graphs with loss and gradients, "trunk" if there is one.
        bundle: whose weights they read.
        samples: examples to take; random inputs where there are none.
        threads: of one run.
        steps: of descent.

    Returns:
        How far apart they were.

    Raises:
        InputError: if PyTorch here cannot compute the network.
        EngineError: if a gradient differs.
    """
    from onhand.host.learning.network_oracle import TorchLesson

    names = tuple(made.lesson.trainables)
    start = _grown(made)
    batches = _batches(made, models, bundle, start, samples=samples, threads=threads)
    oracle = TorchLesson(smooth, names)
    ours = _Lesson(models["smooth"], bundle, names, threads=threads)
    checked = check_gradients(ours.teach, oracle.teach, start, batches, steps=steps)
    if models["rounded"] == models["smooth"]:
        return CheckedNetwork(gradients=checked, rounded_error=None)
    rounded = check_gradients(
        _Lesson(models["rounded"], bundle, names, threads=threads).teach,
        TorchLesson(made.forward, names).teach,
        start,
        batches,
        steps=0,
        tolerance=_ROUNDED_TOLERANCE,
    )
    return CheckedNetwork(gradients=checked, rounded_error=rounded.gradient_error)


class _Lesson:
    """A graph with loss and gradients in ONNX Runtime."""

    def __init__(
        self, content: bytes, bundle: Bundle, trainables: Sequence[str], *, threads: int
    ) -> None:
        self._session = open_bytes(content, bundle, threads=threads)
        self._trainables = trainables

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        names = ["loss", "losses", "logits", *(f"grad.{name}" for name in self._trainables)]
        found = dict(zip(names, self._session.run(names, {**values, **feeds}), strict=True))
        return Taught(
            loss=float(found["loss"]),
            outputs={name: found[name] for name in ("losses", "logits")},
            gradients={name: found[f"grad.{name}"] for name in self._trainables},
        )


def _grown(made: NetworkLesson) -> dict[str, FloatArray]:
    """Return starting values, of some classes more where there are hardly any yet."""
    random = np.random.default_rng(_SEED)
    values = dict(made.opened.starts)
    for name, trainable in made.lesson.trainables.items():
        missing = _FEWEST_CLASSES - trainable.shape[0] if trainable.grows else 0
        if missing > 0:
            more = random.normal(0, 0.1, (missing, *trainable.shape[1:])).astype(np.float32)
            values[name] = np.concatenate([values[name], more])
    return values


def _batches(
    made: NetworkLesson,
    models: Mapping[str, bytes],
    bundle: Bundle,
    start: Values,
    *,
    samples: Samples,
    threads: int,
) -> list[Feeds]:
    """Return batches with every input of the loss in use.

    Raises:
        EngineError: if the trunk fails.
    """
    trunk = open_bytes(models["trunk"], bundle, threads=threads) if "trunk" in models else None
    random = np.random.default_rng(_SEED)
    found: list[Feeds] = []
    for inputs in _inputs(made, bundle.manifest.network, samples):
        feeds = inputs if trunk is None else {LATENT: trunk.run([LATENT], inputs)[0]}
        B = len(next(iter(feeds.values())))
        C = _n_classes(made, start)
        shares = random.random((B, C)).astype(np.float32)
        found.append({
            **feeds,
            "labels": random.integers(0, C, B),
            "weights": random.uniform(0.5, 1.5, B).astype(np.float32),
            "past_logits": random.normal(0, 1, (B, C)).astype(np.float32),
            "past_weights": random.uniform(0, 0.5, B).astype(np.float32),
            "past_classes": shares / shares.sum(axis=1, keepdims=True),
            "soft_weights": random.uniform(0, 0.5, B).astype(np.float32),
        })
    return found


def _n_classes(made: NetworkLesson, start: Values) -> int:
    grows = [name for name, one in made.lesson.trainables.items() if one.grows]
    if grows:
        return int(start[grows[0]].shape[0])
    size = made.forward.outputs[0].shape[-1]
    if isinstance(size, int):
        return size
    raise EngineError("of the network's scores it is not known for how many classes they are")


def _inputs(made: NetworkLesson, network: Network, samples: Samples) -> list[Mapping[str, Array]]:
    """Return the network's inputs for some batches."""
    if len(samples):
        found = []
        for batch in samples.batches(_BATCH):
            found.append(batch)
            if len(found) == _N_BATCHES:
                break
        return [*found]
    return [_random_inputs(made, network, seed) for seed in range(_N_BATCHES)]


def _random_inputs(made: NetworkLesson, network: Network, seed: int) -> Mapping[str, Array]:
    feeds = random_feeds(network, batch=_BATCH)
    random = np.random.default_rng(seed)
    for name, array in feeds.items():
        if array.dtype.kind == "f":
            feeds[name] = random.normal(0, 1, array.shape).astype(array.dtype)
    if not isinstance(feed := network.feed, TextFeed):
        return feeds
    for info in network.inputs:
        T = info.shape[1] or _TOKENS if len(info.shape) == 2 else _TOKENS
        shape = (feeds[info.name].shape[0], T)
        ones = np.ones(shape, dtype=info.dtype)
        if info.name == feed.ids:
            feeds[info.name] = random.integers(0, _vocabulary(made), shape).astype(info.dtype)
        elif info.name == feed.mask:
            ones[-1, T // 2 :] = 0  # the last text is shorter
            feeds[info.name] = ones
        elif info.name == feed.types:
            feeds[info.name] = np.zeros_like(ones)
    return feeds


def _vocabulary(made: NetworkLesson) -> int:
    """Return how many token ids there are: the rows of the largest table that is looked up in."""
    graph = made.trunk or made.forward
    tables = [
        graph.constants[node.inputs[0]].shape[0]
        for node in graph.nodes
        if node.op in {"Gather", "GatherBlockQuantized"}
        and node.inputs[0] in graph.constants
        and graph.constants[node.inputs[0]].ndim == 2
    ]
    return max(tables, default=2)
