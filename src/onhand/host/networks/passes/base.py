"""What a pass over networks must offer. Passes match this shape; nobody subclasses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress, Quiet
from onhand.device.networks.boxes import BoxReader
from onhand.host.networks.graph import Graph
from onhand.host.networks.samples import Samples

__all__ = ["NetworkPass", "PassResult", "Workbench"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """What a pass may use.

    Attributes:
        original: the source's graph, the teacher.
        calibration: examples; empty where none were given. What judges the result is not here.
        task: of the network, see `onhand.core.network.TASKS`.
        threads: to use.
        folder: the pass's own, for checkpoints: the same again when a build resumes; None where
            nothing is kept.
        progress: told how far it is.
        profile: the device that the network is for; None where it is not known.
        reader: of a detector's boxes; None where outputs are no boxes.
    """

    original: Graph
    calibration: Samples
    task: str
    threads: int
    folder: Path | None = None
    progress: Progress = field(default_factory=Quiet)
    profile: DeviceProfile | None = None
    reader: BoxReader | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassResult:
    """What a pass made.

    Attributes:
        graph: the new one.
        changed: name of a constant or a node -> what happened to it, in words.
        kept: likewise -> why it stayed as it was, though the pass is for such ones.
        notes: sentences that a reader of the report should know.
    """

    graph: Graph
    changed: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class NetworkPass(Protocol):
    """One transform of a graph; its fields are its options, as a recipe's step has them.

    The entry-point group is `onhand.network_passes`; the graph that a pass gets has the inputs
    and outputs of the source, and so has the one that it gives.
    """

    name: ClassVar[str]

    def apply(self, graph: Graph, bench: Workbench) -> PassResult:
        """Return the changed graph and what became of each part; the same again for the same.

        Raises:
            InputError: if the graph or the examples do not suffice; it says what to do.
        """
        ...
