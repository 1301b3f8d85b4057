"""Vectors of texts: computed in batches, compared, and sorted into classes by their means."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import ShapeError
from onhand.device.networks.base import NetworkLoaded
from onhand.device.networks.texts import Text, TextReader

__all__ = ["ClassMeans", "Embedded", "class_means", "cosines", "embed_texts", "shares_of"]

_SHORTEST = 1e-12


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts.

    Attributes:
        vectors: (N, D) float32, in the order of the texts.
        cut: of each text, whether its end was left out.
    """

    vectors: FloatArray
    cut: tuple[bool, ...]


def embed_texts(
    loaded: NetworkLoaded, reader: TextReader, texts: Sequence[Text], *, batch: int = 16
) -> Embedded:
    """Compute the vectors of texts; those of like length share a batch.

    Args:
        loaded: a network whose first output is a vector for each text.
        reader: of its texts.
        texts: N of them, at least one.
        batch: texts in one run.

    Returns:
        The vectors.

    Raises:
        InputError: if a text cannot be read, see `TextReader.batch`.
        ShapeError: if `batch` is below 1, or the network gives no vector for each text.
        EngineError: if the engine fails.
    """
    if batch < 1:
        raise ShapeError(f"batch is {batch}, must be 1 or more")
    reader.check(texts)
    lengths = [sum(map(len, text)) if isinstance(text, tuple) else len(text) for text in texts]
    order = np.argsort(lengths, kind="stable").tolist()
    cut = [False] * len(texts)
    vectors: list[FloatArray] = []
    for low in range(0, max(len(order), 1), batch):
        chosen = order[low : low + batch]
        read = reader.batch([texts[i] for i in chosen])
        made = next(iter(loaded.run(read.feeds).values()))
        if made.ndim != 2 or len(made) != len(chosen):
            raise ShapeError(
                f"the network gives {made.shape} for {len(chosen)} texts, not a vector for each"
            )
        vectors.append(made.astype(np.float32))
        for i, was_cut in zip(chosen, read.cut, strict=True):
            cut[i] = was_cut
    sorted_rows = np.concatenate(vectors)  # (N, D)
    return Embedded(sorted_rows[np.argsort(order, kind="stable")], tuple(cut))


def cosines(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the cosine of the angle between all pairs of vectors.

    Args:
        first: (N, D).
        second: (M, D).

    Returns:
        (N, M), from -1 to 1; 0 where a vector has no length.

    Raises:
        ShapeError: if they are no matrices of one width.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ShapeError(f"vectors {first.shape} and {second.shape}: need (N, D) and (M, D)")
    products: FloatArray = _units(first) @ _units(second).T  # (N, M)
    return np.clip(products, -1, 1)


@dataclass(frozen=True, slots=True)
class ClassMeans:
    """The mean direction of each class.

    Attributes:
        classes: of each row, the number of its class, ascending.
        means: (C, D).
    """

    classes: tuple[int, ...]
    means: FloatArray

    def nearest(self, vectors: FloatArray) -> NDArray[np.int64]:
        """Return the class whose mean has the least angle to each vector.

        Args:
            vectors: (N, D).

        Returns:
            (N,) numbers of classes.

        Raises:
            ShapeError: if the vectors are of another width.
        """
        found = cosines(vectors, self.means).argmax(axis=1)
        nearest: NDArray[np.int64] = np.asarray(self.classes, dtype=np.int64)[found]
        return nearest


def shares_of(similarities: FloatArray, *, scale: float = 20.0) -> FloatArray:
    """Return how much each of several texts is the one that is meant.

    Args:
        similarities: (N,) cosines.
        scale: that a difference is multiplied by before the softmax.

    Returns:
        (N,) shares that sum to 1.

    Source:
        The scale is the one of sentence-transformers' MultipleNegativesRankingLoss, by which most
        encoders were trained.
    """
    powers = np.exp(scale * (similarities - similarities.max()))
    return np.asarray(powers / powers.sum())


def class_means(vectors: FloatArray, labels: Sequence[int]) -> ClassMeans:
    """Return the mean of each class's vectors, each taken at length 1.

    Args:
        vectors: (N, D), N at least 1.
        labels: of each, the number of its class.

    Returns:
        The means.

    Raises:
        ShapeError: if there is not one label for each vector.
    """
    if vectors.ndim != 2 or len(vectors) != len(labels) or not len(labels):
        raise ShapeError(f"vectors {vectors.shape} and {len(labels)} labels: need one for each")
    given = np.asarray(labels)
    classes, units = np.unique(given), _units(vectors)
    means = np.stack([units[given == one].mean(axis=0) for one in classes])  # (C, D)
    return ClassMeans(tuple(int(one) for one in classes), means)


def _units(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)  # (N, 1)
    units: FloatArray = vectors / np.maximum(lengths, _SHORTEST)
    return units
