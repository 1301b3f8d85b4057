"""Orthogonal LoRA: each session learns in directions that no earlier one reads from.

A session takes the next ranks of the bundle's one pair A (R, K), B (N, R); those of earlier
sessions stay as they are, and the new rows of A start outside the span of the earlier ones and are
held there by a penalty. So a version is a pair of the same shape as ever, whose product is the sum
of all sessions' products, and nothing that serves it changes. Where no free ranks are left, all
that was learned is first merged into fewer by a truncated singular value decomposition, and the
share that is lost by it is told.

Source:
    Wang et al. 2023, "Orthogonal Subspace Learning for Language Model Continual Learning",
    arXiv:2310.14152. Ours differs: the penalty is measured against an orthonormal basis of the
    earlier rows, so that it does not depend on their length, and new rows start orthogonal.
"""

from collections.abc import Mapping

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson
from onhand.core.outside import count
from onhand.device.learning.base import Values
from onhand.device.learning.methods.options import MethodOptions

__all__ = ["Orthogonal"]


class Orthogonal:
    """Which ranks are whose.

    Args:
        lesson: of low rank.
        options: ranks of a session and the penalty's strength are read.

    Raises:
        InputError: if the lesson is not of low rank, or of too low a rank for two sessions.
    """

    def __init__(self, lesson: Lesson, options: MethodOptions) -> None:
        if lesson.rank < 2 * options.olora_rank:
            raise InputError(
                f"olora takes {options.olora_rank} ranks for each session, the lesson has "
                f"{lesson.rank}: it needs at least twice as many; lower olora_rank, or build with "
                "a higher rank"
            )
        self._lesson, self._options = lesson, options
        self._pairs = _pairs(lesson)
        self._taken: int | None = None
        self._bases: dict[str, FloatArray] = {}
        self.lost = 0.0

    def begin(self, values: Values, rng: np.random.Generator) -> dict[str, FloatArray]:
        """Return values with free ranks for a session; `lost` is then the share that merging cost.

        Args:
            values: of every trainable.
            rng: draws the new rows of A.
        """
        rank, mine = self._lesson.rank, self._options.olora_rank
        started = {name: np.array(value) for name, value in values.items()}
        taken = self._taken
        if taken is None:
            # A starting point that does something already is no free rank.
            taken = rank if any(started[b].any() for _, b in self._pairs) else 0
        else:
            taken += mine
        self.lost = 0.0
        if taken + mine > rank:
            self._merge(started, taken, rank - mine)
            taken = rank - mine
        self._taken = taken
        self._find_bases(started)
        fresh = slice(taken, taken + mine)
        for a, b in self._pairs:
            width = started[a].shape[1]
            drawn = rng.uniform(-1, 1, (mine, width)) / np.sqrt(width)
            basis = self._bases[a].astype(np.float64)
            drawn -= (drawn @ basis) @ basis.T
            started[a][fresh] = drawn
            started[b][:, fresh] = 0
        return started

    def adjust(self, values: Values, gradients: Values) -> dict[str, FloatArray]:
        """Return the gradients of this session's ranks alone, with the penalty's."""
        self._find_again(values)
        made, mine = dict(gradients), self._mine()
        for a, b in self._pairs:
            first, second = np.zeros_like(made[a]), np.zeros_like(made[b])
            overlap = values[a][mine] @ self._bases[a]  # (r, T)
            pull = np.float32(2 * self._options.olora_strength) * (overlap @ self._bases[a].T)
            first[mine] = made[a][mine] + pull
            second[:, mine] = made[b][:, mine]
            made[a], made[b] = first, second
        return made

    def hold(self, before: Values, after: Values) -> dict[str, FloatArray]:
        """Return what the optimizer made of this session's ranks, and the rest as it was."""
        made, mine = dict(after), self._mine()
        for a, b in self._pairs:
            first, second = np.array(before[a]), np.array(before[b])
            first[mine], second[:, mine] = after[a][mine], after[b][:, mine]
            made[a], made[b] = first, second
        return made

    def penalty(self, values: Values) -> float:
        """Return strength * the squared overlap of this session's rows with the earlier ones'."""
        self._find_again(values)
        mine = self._mine()
        total = sum(
            float(np.square(values[a][mine] @ self._bases[a]).sum(dtype=np.float64))
            for a, _ in self._pairs
        )
        return self._options.olora_strength * total

    def save(self) -> dict[str, object]:
        """Return which ranks are taken; the values hold the rest."""
        return {"taken": -1 if self._taken is None else self._taken}

    def load(self, facts: Mapping[str, object]) -> None:
        """Take on what `save` gave.

        Raises:
            InputError: if it is not valid.
        """
        most = self._lesson.rank - self._options.olora_rank
        taken = count(facts, "taken", "the method's state", least=-1, most=most)
        self._taken, self._bases = (None if taken < 0 else taken), {}

    def _mine(self) -> slice:
        taken = self._taken or 0
        return slice(taken, taken + self._options.olora_rank)

    def _find_again(self, values: Values) -> None:
        """Find the earlier sessions' directions in a process that did not begin this one."""
        if self._taken is not None and not self._bases:
            self._find_bases(values)

    def _find_bases(self, values: Values) -> None:
        """Find (K, T) orthonormal columns that span the earlier rows of each A."""
        for a, _ in self._pairs:
            rows = values[a][: self._taken].astype(np.float64)  # (T, K)
            _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
            kept = directions[sizes > 1e-6 * max(float(sizes.max(initial=0.0)), 1e-12)]
            self._bases[a] = kept.T.astype(np.float32)

    def _merge(self, values: dict[str, FloatArray], taken: int, rank: int) -> None:
        """Keep the first `taken` ranks' product in the first `rank` ranks as well as can be."""
        lost = whole = 0.0
        for a, b in self._pairs:
            first, second = values[a][:taken].astype(float), values[b][:, :taken].astype(float)
            # B A = Q_b (R_b R_a^T) Q_a^T: only a small matrix is decomposed.
            q_b, r_b = np.linalg.qr(second)
            q_a, r_a = np.linalg.qr(first.T)
            left, sizes, right = np.linalg.svd(r_b @ r_a.T)
            roots = np.sqrt(sizes[:rank])
            n = len(roots)
            values[a][:], values[b][:] = 0, 0
            values[a][:n] = roots[:, None] * (right[:n] @ q_a.T)
            values[b][:, :n] = (q_b @ left[:, :n]) * roots
            lost += float(np.square(sizes[rank:]).sum())
            whole += float(np.square(sizes).sum())
        self.lost = float(np.sqrt(lost / whole)) if whole else 0.0


def _pairs(lesson: Lesson) -> list[tuple[str, str]]:
    """Return the names of A and B of each changed tensor."""
    first = {t.tensor: name for name, t in lesson.trainables.items() if t.part == "lora_A"}
    second = {t.tensor: name for name, t in lesson.trainables.items() if t.part == "lora_B"}
    return [(first[tensor], second[tensor]) for tensor in first]
