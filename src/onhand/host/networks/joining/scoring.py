"""How good a network is on labelled examples: which of several an average should hold."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onhand.core.errors import InputError
from onhand.core.progress import Quiet
from onhand.device.networks.answers import CLASSIFIES
from onhand.device.networks.texts import TOKENIZER
from onhand.host.networks.data import read_data
from onhand.host.networks.graph import Graph
from onhand.host.networks.judge import answer_graph
from onhand.host.networks.loading import with_inputs
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.pack import describe

__all__ = ["Contest", "accuracy_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What networks are compared by.

    Attributes:
        task: one of `CLASSIFIES`.
        data: labelled examples; see `onhand.host.networks.data.read_data`.
        feed: how inputs are made, over what the source says; None for that.
        labels: a file with the names of the classes; None for the source's.
    """

    task: str
    data: Path
    feed: str | None = None
    labels: Path | None = None


def accuracy_of(model: NetworkModel, contest: Contest, *, threads: int) -> Callable[[Graph], float]:
    """Return what says how many examples a network names rightly.

    Args:
        model: one of the networks, for its inputs.
        contest: the examples.
        threads: of one run.

    Returns:
        Graph -> accuracy, 0 to 1.

    Raises:
        InputError: if the task names no classes, or examples have no labels.
    """
    if contest.task not in CLASSIFIES:
        raise InputError(f"--task is {contest.task}, must be one of {', '.join(CLASSIFIES)}")
    model = with_inputs(model, feed=contest.feed, labels=contest.labels)
    network = describe(model, contest.task)
    tokenizer = model.files.get(TOKENIZER)
    samples = read_data(contest.data, network, model.labels, tokenizer=tokenizer)
    labels = samples.labels
    if labels is None:
        raise InputError(f"{contest.data}: has no labels, which say what a network is good for")

    def accuracy(graph: Graph) -> float:
        made = answer_graph(graph, samples, threads=threads, progress=Quiet()).first()
        right = [int(row.argmax()) == label for row, label in zip(made, labels, strict=True)]
        return sum(right) / len(right)

    return accuracy
