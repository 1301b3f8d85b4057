"""A source network on the host: its graph, how it is fed, and the files that travel with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from onhand.core.detection import Detection
from onhand.core.feed import Feed
from onhand.host.networks.graph import Graph

__all__ = ["NetworkModel", "NetworkSource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkModel:
    """A source, read whole.

    Attributes:
        name: for the bundle.
        family: the framework it comes from, and what else is known: "keras", "bert".
        graph: what it computes, in float.
        sha256: of what it was read from.
        source_bytes: size of the weights there.
        weight_bits: width of one weight there.
        feed: how pictures, sounds or texts are fed, where the source says so.
        detection: how the outputs become boxes, where somebody says.
        labels: names of the classes, where the source has them.
        files: name -> content, for the bundle: `tokenizer.json`.
        notes: sentences that a user should know.
    """

    name: str
    family: str
    graph: Graph
    sha256: str
    source_bytes: int
    weight_bits: int = 32
    feed: Feed | None = None
    detection: Detection | None = None
    labels: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class NetworkSource(Protocol):
    """Reads one kind of files; the entry-point group is `onhand.network_sources`."""

    name: ClassVar[str]

    def why_not(self, location: str) -> str | None:
        """Return None if `load` should work, else a reason; looks at names and heads of files."""
        ...

    def load(self, location: str, *, task: str) -> NetworkModel:
        """Read a source.

        Args:
            location: a file or a folder.
            task: one of `onhand.core.network.TASKS`.

        Returns:
            The model.

        Raises:
            SourceError: if it is damaged, or holds what nothing here knows.
            InputError: if a package is missing; it says which extra to install.
        """
        ...
