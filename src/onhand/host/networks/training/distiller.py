"""A student that learns to say what its teacher says. Import it when needed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from onhand.core.errors import InputError
from onhand.host.networks.graph import Array, Graph
from onhand.host.networks.samples import Samples
from onhand.host.networks.torch_graph import TorchGraph, tensors_of
from onhand.host.networks.torch_quantize_ops import spread
from onhand.host.networks.training.answers import Answer
from onhand.host.networks.training.coded import Shadow
from onhand.host.networks.training.examples import Schedule, augment
from onhand.host.networks.training.features import Pair
from onhand.host.networks.training.losses import (
    answer_loss,
    attention_loss,
    feature_loss,
    label_loss,
)
from onhand.host.networks.training.teacher import Teacher, fixed_batch

__all__ = ["Distiller", "Goal"]

_JUDGED_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the student is to become like.

    Attributes:
        ours: its answer.
        theirs: the teacher's.
        temperature: of soft answers.
        alpha: share of known labels in the loss, from 0 to 1.
        features: values inside that become alike.
        feature_weight: of their losses' mean.
        attention: maps that become alike.
        attention_weight: of their losses' mean.
        augment: see `augment`.
        bfloat16: whether products are computed in it.
    """

    ours: Answer
    theirs: Answer
    temperature: float
    alpha: float
    features: tuple[Pair, ...] = ()
    feature_weight: float = 0.0
    attention: tuple[Pair, ...] = ()
    attention_weight: float = 0.0
    augment: tuple[str, ...] = ()
    bfloat16: bool = False

    def our_names(self) -> tuple[str, ...]:
        """Return the student's values that losses read."""
        pairs = (*self.features, *self.attention)
        return tuple(dict.fromkeys((*self.ours.names, *(pair.ours for pair in pairs))))

    def their_names(self) -> tuple[str, ...]:
        """Return the teacher's."""
        pairs = (*self.features, *self.attention)
        return tuple(dict.fromkeys((*self.theirs.names, *(pair.theirs for pair in pairs))))


class Distiller:
    """See `Learner`.

    Attributes:
        student: what is trained.
        projections: the student's value -> the matrix that makes it as wide as the teacher's.
        n_batches: steps that go through all examples once.
        answer_kind: what is compared, see `Answer`.
    """

    def __init__(
        self,
        student: TorchGraph,
        teacher: Graph,
        goal: Goal,
        *,
        learned: Samples,
        judged: Samples,
        batch: int,
        threads: int,
        seed: int,
    ) -> None:
        """Get ready.

        Args:
            student: what is trained.
            teacher: what it learns from.
            goal: the losses.
            learned: examples to learn from.
            judged: examples to judge by; empty for those to learn from.
            batch: examples of one step.
            threads: of the teacher.
            seed: of the order and of what examples are turned into.

        Raises:
            InputError: if either network takes several examples at once, and no other number.
        """
        self._most = fixed_batch(student.graph)
        if self._most is not None and self._most > 1:
            raise InputError(f"the network takes batches of {self._most} alone; make that 1 or any")
        self.student, self._goal, self._seed = student, goal, seed
        self._learned, self._judged = learned, judged if len(judged) else learned
        self._teacher = Teacher(teacher, goal.their_names(), threads=threads)
        self._judge_teacher = Teacher(teacher, goal.theirs.names, threads=threads)
        self._schedule = Schedule(learned, batch=batch, seed=seed)
        self._masks: dict[str, Tensor] = {}
        self._shadows: dict[str, tuple[Shadow, Tensor, Tensor]] = {}
        self.projections = _projections(goal, seed)
        self.n_batches = self._schedule.n_batches
        self.answer_kind = goal.theirs.kind
        # Convolutions over channels that lie together take half the time.
        student.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # known to torch

    def keep_zeros(self, names: Sequence[str]) -> None:
        """Hold what is zero now at zero, in these constants of the student."""
        for name in names:
            self._masks[name] = self.student.weight(name).detach() == 0

    def keep_ranges(self, shadows: Mapping[str, Shadow]) -> None:
        """Hold shadows of integers where their codes are in range."""
        self._shadows = {
            name: (shadow, torch.from_numpy(shadow.low), torch.from_numpy(shadow.high))
            for name, shadow in shadows.items()
        }

    def backward(self, step: int) -> None:
        """See `Learner`."""
        self.student.train()
        indices = self._schedule.indices(step)
        feeds = self._learned.batch(indices)
        if self._goal.augment:
            rng = np.random.default_rng([self._seed, 3, step])
            feeds = augment(feeds, self._goal.augment, rng)
            theirs = self._teacher.answer(feeds)
        else:
            theirs = self._teacher.answer_examples(self._learned, indices)
        labels = self._labels(indices)
        for part, share in _parts(len(indices), self._most):
            loss = self._loss(_cut(feeds, part), _cut(theirs, part), labels[part] if labels else [])
            torch.autograd.backward(loss * share)

    def settle(self) -> None:
        """See `Learner`."""
        for name, mask in self._masks.items():
            self.student.weight(name).masked_fill_(mask, 0.0)
        for name, (shadow, low, high) in self._shadows.items():
            weight = self.student.weight(name)
            scale: Tensor = self.student.weight(shadow.scale)
            if shadow.factor is not None:
                scale = scale * self.student.weight(shadow.factor).exp()
            each = spread(shadow.node, scale, weight)
            weight.clamp_(low * each, high * each)

    def judge(self) -> float:
        """Return the mean distance of answers at temperature 1, see `answer_loss`."""
        self.student.eval()
        goal, total, n = self._goal, 0.0, len(self._judged)
        order = Schedule(self._judged, batch=self._most or _JUDGED_AT_ONCE, seed=0)
        with torch.no_grad():
            for number in range(order.n_batches):
                indices = order.indices(number)
                wanted = self._judge_teacher.answer_examples(self._judged, indices)
                with self._precision():
                    made = self.student(
                        _laid(tensors_of(self._judged.batch(indices))), goal.ours.names
                    )
                total += self._distance(made, tensors_of(wanted), 1.0).item() * len(indices)
        return total / n

    def _loss(
        self, feeds: dict[str, Array], theirs: dict[str, Array], labels: Sequence[int]
    ) -> Tensor:
        goal, wanted = self._goal, tensors_of(theirs)
        with self._precision():
            made = self.student(_laid(tensors_of(feeds)), goal.our_names())
        loss = self._distance(made, wanted, goal.temperature)
        if labels and goal.alpha:
            known = label_loss(made[goal.ours.names[0]], torch.tensor(labels))
            loss = (1 - goal.alpha) * loss + goal.alpha * known
        for pair in goal.features:
            ours = self._projected(pair, made[pair.ours])
            share = goal.feature_weight / len(goal.features)
            loss = loss + share * feature_loss(ours, wanted[pair.theirs])
        for pair in goal.attention:
            share = goal.attention_weight / len(goal.attention)
            loss = loss + share * attention_loss(made[pair.ours], wanted[pair.theirs])
        return loss

    def _distance(
        self, made: Mapping[str, Tensor], wanted: Mapping[str, Tensor], temperature: float
    ) -> Tensor:
        ours, theirs = self._goal.ours, self._goal.theirs
        found = [
            answer_loss(theirs.kind, made[a], wanted[b], temperature=temperature)
            for a, b in zip(ours.names, theirs.names, strict=True)
        ]
        return torch.stack(found).mean()

    def _projected(self, pair: Pair, ours: Tensor) -> Tensor:
        matrix = self.projections.get(pair.ours)
        if matrix is None:
            return ours
        return (ours.float().movedim(pair.axis, -1) @ matrix).movedim(-1, pair.axis)

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._goal.bfloat16)

    def _labels(self, indices: Sequence[int]) -> list[int]:
        labels = self._learned.labels
        return [] if labels is None else [labels[i] for i in indices]


def _projections(goal: Goal, seed: int) -> dict[str, Parameter]:
    """Make a matrix for each pair of other widths: (ours, theirs)."""
    made: dict[str, Parameter] = {}
    rng = np.random.default_rng([seed, 4])
    for pair in goal.features:
        if pair.widths is not None:
            start = rng.normal(size=pair.widths) / np.sqrt(pair.widths[0])
            made[pair.ours] = Parameter(torch.from_numpy(start.astype(np.float32)))
    return made


def _parts(n: int, most: int | None) -> Iterator[tuple[slice, float]]:
    """Yield parts of a batch that the network takes at once, and their shares of it."""
    size = most or n
    for start in range(0, n, size):
        end = min(n, start + size)
        yield slice(start, end), (end - start) / n


def _cut(arrays: Mapping[str, Array], part: slice) -> dict[str, Array]:
    return {name: array[part] for name, array in arrays.items()}


def _laid(feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        for name, x in feeds.items()
    }
