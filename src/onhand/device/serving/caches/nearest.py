"""The nearest of many vectors: by looking at all of them, or, where they are many, at some."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray

__all__ = ["EXACT_ROWS", "Nearest"]

EXACT_ROWS: Final = 50_000
"""Up to so many vectors all are looked at."""

_PROBED: Final = 0.1  # of the cells
_ROUNDS: Final = 6
_SAMPLE: Final = 20_000
_SEED: Final = 20260101


class Nearest:
    """Vectors of length 1 by number. One thread at a time.

    Above `exact_rows` they are sorted into cells around means (an inverted file), and a search
    looks at the cells whose means are nearest; what was added since belongs to its nearest mean,
    and the means are found anew whenever the number of vectors has doubled.

    Source:
        Inverted file with k-means: Sivic and Zisserman, ICCV 2003.
    """

    def __init__(self, width: int, *, exact_rows: int = EXACT_ROWS) -> None:
        """Start with none.

        Args:
            width: D, numbers of a vector.
            exact_rows: up to so many vectors all are looked at.
        """
        self._vectors = np.zeros((1, width), dtype=np.float32)  # (capacity, D)
        self._numbers = np.zeros(1, dtype=np.int64)  # (capacity,)
        self._rows: dict[int, int] = {}  # number -> row
        self._exact_rows = exact_rows
        self._means: FloatArray | None = None  # (C, D)
        self._cells = np.zeros(1, dtype=np.int64)  # (capacity,), of each row
        self._sorted_at = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def n_cells(self) -> int:
        """Cells that vectors are sorted into; 0 where all are looked at."""
        return 0 if self._means is None else len(self._means)

    def add(self, number: int, vector: FloatArray) -> None:
        """Take a vector in.

        Args:
            number: that no other has.
            vector: (D,) float32, of length 1.
        """
        row = len(self._rows)
        if row == len(self._vectors):
            self._grow()
        self._vectors[row] = vector
        self._numbers[row] = number
        self._rows[number] = row
        if len(self._rows) > self._exact_rows and len(self._rows) >= 2 * self._sorted_at:
            self._sort()
        elif self._means is not None:
            self._cells[row] = int(np.argmax(self._means @ vector))

    def remove(self, number: int) -> None:
        """Forget a vector; its place is taken by the last."""
        row, last = self._rows.pop(number), len(self._rows)
        if row != last:
            self._vectors[row] = self._vectors[last]
            self._cells[row] = self._cells[last]
            self._numbers[row] = self._numbers[last]
            self._rows[int(self._numbers[row])] = row
        if self._means is not None and len(self._rows) <= self._exact_rows // 2:
            self._means, self._sorted_at = None, 0

    def search(self, vector: FloatArray, *, count: int) -> list[tuple[int, float]]:
        """Return the nearest.

        Args:
            vector: (D,) float32, of length 1.
            count: most of them.

        Returns:
            Numbers and cosines, the nearest first.
        """
        n = len(self._rows)
        if not n:
            return []
        rows: NDArray[np.int64] | None = None
        vectors = self._vectors[:n]
        if self._means is not None:
            n_probed = max(round(_PROBED * len(self._means)), 1)
            near = np.argsort(self._means @ vector)[-n_probed:]
            rows = np.flatnonzero(np.isin(self._cells[:n], near))
            vectors = vectors[rows]
        cosines = vectors @ vector
        count = min(count, len(cosines))
        if not count:
            return []
        best = np.argpartition(cosines, -count)[-count:]
        best = best[np.argsort(cosines[best])[::-1]]
        found = best if rows is None else rows[best]
        return [
            (int(self._numbers[row]), float(cosine))
            for row, cosine in zip(found, cosines[best], strict=True)
        ]

    def _grow(self) -> None:
        n = 2 * len(self._vectors)
        self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])  # (2 n, D)
        self._numbers = np.resize(self._numbers, n)
        self._cells = np.resize(self._cells, n)

    def _sort(self) -> None:
        n = len(self._rows)
        rng = np.random.default_rng(_SEED)
        n_cells = int(np.sqrt(n))
        sample = self._vectors[rng.permutation(n)[: max(_SAMPLE, n_cells)]]  # (S, D)
        means = sample[:n_cells].copy()
        for _ in range(_ROUNDS):
            cells = np.argmax(sample @ means.T, axis=1)
            for cell in range(n_cells):
                if (members := sample[cells == cell]).size:
                    mean = members.sum(axis=0)
                    means[cell] = mean / max(float(np.linalg.norm(mean)), 1e-9)
        self._means = means
        for start in range(0, n, 4096):
            part = self._vectors[start : min(start + 4096, n)]
            self._cells[start : start + len(part)] = np.argmax(part @ means.T, axis=1)
        self._sorted_at = n
