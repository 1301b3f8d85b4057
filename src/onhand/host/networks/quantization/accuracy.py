"""Layers that lose too much go back to float, the worst first, until the network agrees."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from onhand.core.progress import Progress
from onhand.device.networks.boxes import BoxReader
from onhand.host.networks.graph import Graph
from onhand.host.networks.judge import Answers, compare_answers, square_error
from onhand.host.networks.observe import observe
from onhand.host.networks.samples import Samples

__all__ = ["OutputJudge", "Reverted", "revert_worst"]

_BATCH = 4
Make = Callable[[Collection[str]], Graph]


class OutputJudge:
    """Compares graphs with the original on the same examples."""

    def __init__(
        self,
        original: Graph,
        samples: Samples,
        *,
        task: str,
        threads: int,
        reader: BoxReader | None = None,
    ) -> None:
        """Run the original.

        Args:
            original: what all are compared with.
            samples: the examples; at least one.
            task: of the network.
            threads: of one run.
            reader: of a detector's boxes; None where outputs are no boxes.

        Raises:
            EngineError: if it cannot run.
        """
        self._samples, self._task, self._threads = samples, task, threads
        self._reader = reader
        self._theirs = self._answers(original)

    def error(self, graph: Graph) -> float:
        """Return the squared error of the first output, as a share of its squares.

        Raises:
            EngineError: if the graph cannot run.
        """
        pairs = list(zip(self._theirs.first(), self._answers(graph).first(), strict=True))
        lost = sum(square_error(a, b) for a, b in pairs)
        return lost / max(sum(float(np.square(a).sum()) for a, _ in pairs), 1e-30)

    def loss(self, graph: Graph) -> float:
        """Return the share lost: of agreement, of similarity, or the relative error.

        Raises:
            EngineError: if the graph cannot run, or gives a NaN.
        """
        figures = compare_answers(
            self._theirs,
            self._answers(graph),
            task=self._task,
            labels=None,
            how="",
            reader=self._reader,
        )
        return figures["quality_loss"].value

    def _answers(self, graph: Graph) -> Answers:
        if graph.inputs and graph.inputs[0].shape[:1] == (1,):
            # What one example gives may be any number of rows: boxes, or crops of them.
            return Answers(list(observe(graph, self._samples, threads=self._threads)), "onnx")
        outputs = [
            {name: array[i : i + 1] for name, array in values.items()}
            for values in observe(graph, self._samples, threads=self._threads, batch=_BATCH)
            for i in range(len(next(iter(values.values()))))
        ]
        return Answers(outputs, "onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverted:
    """What was found.

    Attributes:
        nodes: layers that go back to float.
        loss: that the network has then.
        before: loss with all layers on integers.
    """

    nodes: tuple[str, ...]
    loss: float
    before: float


def revert_worst(
    layers: Sequence[str], make: Make, judge: OutputJudge, *, most: float, progress: Progress
) -> Reverted:
    """Find how many layers must go back to float, the most harmful first.

    How harmful a layer is shows when it alone is on integers. How many must go is found by
    halving, as if each that goes did good.

    Args:
        layers: names of the layers.
        make: names of layers in float -> the graph with all others on integers.
        judge: of the network.
        most: loss that is allowed.
        progress: told of each layer.

    Returns:
        The layers, fewest where each that goes does good, and what is lost with and without.

    Raises:
        EngineError: if a graph cannot run.
    """
    before = judge.loss(make(()))
    if before <= most:
        return Reverted(nodes=(), loss=before, before=before)
    progress.start("finding what loses most", len(layers))
    harm: dict[str, float] = {}
    for name in layers:
        harm[name] = judge.error(make([other for other in layers if other != name]))
        progress.advance(1)
    ranked = sorted(layers, key=lambda name: -harm[name])
    too_few, enough, loss = 0, len(ranked), 0.0
    while enough - too_few > 1:
        # Few usually do: look near the lower end first.
        tried = min(too_few + max(1, too_few), (too_few + enough) // 2)
        found = judge.loss(make(ranked[:tried]))
        if found <= most:
            enough, loss = tried, found
        else:
            too_few = tried
    return Reverted(nodes=tuple(ranked[:enough]), loss=loss, before=before)
