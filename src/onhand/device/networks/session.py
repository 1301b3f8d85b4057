"""A network that is open: files and texts in, classes, vectors or arrays out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.feed import PictureFeed
from onhand.core.network import Network
from onhand.device.learning.in_use import AS_BUILT, InUse
from onhand.device.learning.network_in_use import network_in_use
from onhand.device.networks.answers import CLASSIFIES, Likely, likeliest, read_labels
from onhand.device.networks.base import Array, NetworkLoaded
from onhand.device.networks.boxes import Box, box_reader
from onhand.device.networks.embeddings import embed_texts
from onhand.device.networks.inputs import example_from_file
from onhand.device.networks.pictures import feed_picture
from onhand.device.networks.texts import Text, TextBatch, TextReader, open_texts
from onhand.device.networks.variants import Choice, open_quickest
from onhand.device.state import default_home

__all__ = ["NetworkSession", "open_session"]


class NetworkSession:
    """A network in memory, and how it is fed. Threads may share it.

    Attributes:
        network: its description.
        labels: names of its classes; empty where it has none.
        bundle_sha256: hash of the bundle's manifest, and of what was learned: which version it is.
        built_sha256: hash of the manifest of the bundle as it was built.
        learned: which learned version answers.
        choice: the variant and the engine that run it, and why not others.
        engine_name: the engine.
        reasons: engine -> why it was not taken.
    """

    def __init__(
        self,
        bundle: Bundle,
        loaded: NetworkLoaded,
        choice: Choice,
        learned: InUse = AS_BUILT,
        *,
        built_sha256: str = "",
    ) -> None:
        """Take a network that `open_quickest` opened."""
        self.network: Network = bundle.manifest.network
        self.labels = read_labels(bundle)
        self.bundle_sha256 = bundle.manifest_sha256
        self.built_sha256 = built_sha256 or bundle.manifest_sha256
        self.choice = choice
        self.learned = learned
        self.engine_name = choice.engine
        self.reasons = dict(choice.engines)
        self._bundle = bundle
        self._loaded = loaded
        self._boxes = box_reader(self.network)
        self._reader: TextReader | None = None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; see `NetworkLoaded.run`."""
        return self._loaded.run(feeds)

    def feeds(self, example: Path | str | Array) -> dict[str, Array]:
        """Return one example's input arrays.

        Args:
            example: a file (picture, sound, `.npz`), or a picture (H, W, 3) uint8.

        Returns:
            Name of an input -> array (1, ...).

        Raises:
            InputError: if it cannot be read, or the network takes no such thing.
            ShapeError: if an array does not fit the network's input.
        """
        return self.read_example(example)[0]

    def read_example(
        self, example: Path | str | Array
    ) -> tuple[dict[str, Array], tuple[int, int] | None]:
        """Return one example's input arrays, and height and width of a picture; see `feeds`.

        Raises:
            InputError: if it cannot be read, or the network takes no such thing.
        """
        if not isinstance(example, np.ndarray):
            return example_from_file(Path(example), self.network)
        if not isinstance(self.network.feed, PictureFeed):
            raise InputError("an array alone is a picture, which this network does not take")
        info = self.network.inputs[0]
        height, width = example.shape[:2]
        return {info.name: feed_picture(example, self.network.feed, info)}, (height, width)

    def read(self, text: Text) -> TextBatch:
        """Return a text's input arrays, and whether its end was cut; see `TextReader.read`.

        Raises:
            InputError: if the network takes no texts, or this one cannot be read.
        """
        return self._texts().read(text)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return where each token of a text stands in it; see `TextReader.places`.

        Raises:
            InputError: if the network takes no texts, or this one cannot be read.
        """
        return self._texts().places(text)

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text.

        Raises:
            InputError: if the network takes no texts.
        """
        return self._texts().max_tokens

    def likeliest(self, outputs: Mapping[str, Array], *, top: int = 5) -> list[Likely]:
        """Return the likeliest classes of one run, the likeliest first.

        Raises:
            InputError: if the network does not classify.
        """
        if self.network.task not in CLASSIFIES:
            raise InputError(f"a network for {self.network.task} has no classes")
        return likeliest(outputs, self.labels, top=top)

    def classify(self, example: Path | str | Array, *, top: int = 5) -> list[Likely]:
        """Return the likeliest classes of a picture, a sound or arrays in a file; see `feeds`."""
        return self.likeliest(self.run(self.feeds(example)), top=top)

    def boxes(self, outputs: Mapping[str, Array], size: tuple[int, int] | None = None) -> list[Box]:
        """Return the boxes of one run, the likeliest first.

        Args:
            outputs: of the run.
            size: height and width of the picture; None for boxes in pixels of the network's input.

        Returns:
            The boxes.

        Raises:
            InputError: if the bundle does not say how its outputs become boxes.
            ShapeError: if they are of other shapes than it says.
        """
        if self._boxes is None:
            raise InputError(
                f"a network for {self.network.task} whose bundle does not say how boxes are made"
            )
        return self._boxes.boxes(outputs, self.labels, size)

    def detect(self, example: Path | str | Array) -> list[Box]:
        """Return what is where in a picture, in its pixels; see `feeds` and `boxes`."""
        feeds, size = self.read_example(example)
        return self.boxes(self.run(feeds), size)

    def embed(self, texts: Sequence[Text]) -> FloatArray:
        """Return the vectors of texts, (N, D) float32; longer ones are cut to `max_tokens`.

        Raises:
            InputError: if the network takes no texts, or one cannot be read.
        """
        return embed_texts(self._loaded, self._texts(), texts).vectors

    def close(self) -> None:
        """Release the memory; safe to call twice."""
        self._loaded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _texts(self) -> TextReader:
        if self._reader is None:
            self._reader = open_texts(self._bundle)
        return self._reader


def open_session(
    path: str | Path,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    version: int | None = None,
    home: Path | None = None,
) -> NetworkSession:
    """Check a bundle and open its network in the variant and engine that are quickest here.

    Args:
        path: the bundle's folder.
        variant: one of its variants; None to choose, see `onhand.device.networks.variants`.
        engine: name of an engine; None to choose, see `onhand.device.networks.opening`.
        threads: of one run; None for what this process may use.
        version: learned on this device; 0 for the bundle as it was built; None for the one in use.
        home: the state folder, where the choice is kept; None for the user's own.

    Returns:
        The network; close it, or use it in a `with` block.

    Raises:
        InputError: if there is no such bundle, variant, engine or version, or it holds a language
            model.
        BundleCorrupt: if a file is missing or changed.
        EngineUnavailable: if no engine can run it here.
    """
    where = default_home() if home is None else home
    built = read_bundle(Path(path))
    bundle, learned = network_in_use(built, where, version)
    loaded, choice = open_quickest(
        bundle, variant=variant, engine=engine, threads=threads, home=where
    )
    return NetworkSession(bundle, loaded, choice, learned, built_sha256=built.manifest_sha256)
