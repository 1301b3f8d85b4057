"""Every weight of a smaller model trained until it says what the original says.

Source:
    Distillation of the original's next-token distribution: arXiv:1503.02531; of pruned decoders:
    Minitron, arXiv:2407.14679, which found it better than the text's own next token; of rounded
    ones, with the rounding in every step: LLM-QAT, arXiv:2305.17888.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import InputError, ResourceError
from onhand.core.progress import Progress
from onhand.core.quantized import GroupFormat
from onhand.device.engines.forward import RopeCache
from onhand.device.processor import processor
from onhand.host.array_files import damage, read_arrays, write_arrays
from onhand.host.lessons import Batch, Lessons
from onhand.host.model import Model
from onhand.host.stored_model import store_model
from onhand.host.torch_forward import torch_head, torch_hidden
from onhand.host.torch_weights import FixedWeights, TrainedWeights

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor
    from torch.optim import Optimizer

__all__ = ["PRECISIONS", "Recovered", "Training", "recover_model"]

PRECISIONS = ("auto", "float32", "bf16")
_CHECKPOINT = "checkpoint.npz"
_SAVE_EVERY_S = 120.0
_BETAS = (0.9, 0.98)
_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a model is trained.

    Attributes:
        steps: how often the weights are moved.
        rate: largest learning rate of AdamW; it warms up, then falls along a cosine.
        temperature: above 1, what the original finds unlikely counts for more.
        hidden: weight of the distance between the inputs of the heads, as a share of their size;
            0.0 for none. Needs the widths to be the same.
        warm_up: share of the steps in which the rate rises.
        last: the rate at the end, as a share of the largest.
        decay: share of a weight that AdamW takes away, times the rate.
        precision: of products: "float32", "bf16", or "auto" for bf16 where the processor
            multiplies it in hardware (AMX).
    """

    steps: int
    rate: float = 1e-3
    temperature: float = 1.0
    hidden: float = 0.0
    warm_up: float = 0.02
    last: float = 0.02
    decay: float = 0.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("rate", 1e-12), ("temperature", 1e-3), ("hidden", 0.0)):
            if not least <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}, must be at least {least:g}")
        if not 0 <= self.warm_up < 1 or not 0 <= self.last <= 1 or not 0 <= self.decay < 1:
            raise InputError("warm_up, last and decay must be from 0 to 1")
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise InputError(f"precision is {self.precision!r}, must be one of {known}")

    def share(self, step: int) -> float:
        """Return the share of the rate that a step takes."""
        progress = (step + 1) / (self.steps + 1)
        if progress < self.warm_up:
            return progress / self.warm_up
        rest = (progress - self.warm_up) / (1 - self.warm_up)
        return self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * rest))

    def in_bf16(self) -> bool:
        """Say whether products are to be in bf16 here."""
        if self.precision == "auto":
            return "amx_bf16" in processor()[1]
        return self.precision == "bf16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What training gave.

    Attributes:
        model: the trained model, or the given one where training did not help.
        before: divergence from the original on the judging text before, nat a token.
        after: the same after training.
        n_tokens: tokens that it was trained on.
    """

    model: Model
    before: float
    after: float
    n_tokens: int


def recover_model(
    teacher: Model,
    student: Model,
    lessons: Lessons,
    judges: Sequence[Batch],
    *,
    training: Training,
    folder: Path,
    threads: int,
    progress: Progress,
    forms: Mapping[str, GroupFormat] | None = None,
) -> Recovered:
    """Train all weights of a model towards the original's answers.

    Called again with the same arguments, it goes on from its last checkpoint, of which there is
    one every other minute, and ends with the same weights.

    Args:
        teacher: the original.
        student: the smaller model; the same vocabulary.
        lessons: gives the tokens of each step.
        judges: batches that are not trained on; they say whether training helped.
        training: how.
        folder: keeps the checkpoint, and then the model.
        threads: threads to use.
        progress: told of every step, and of the divergence now and then.
        forms: how matrices will be stored: the model works with what their codes stand for, and
            is returned so; None for one that is not rounded.

    Returns:
        The trained model and what it gained.

    Raises:
        InputError: if the models do not fit each other, or training diverges.
        ResourceError: if the checkpoint is damaged.
    """
    import torch

    _check_pair(teacher, student, training)
    torch.set_num_threads(threads)
    longest = max(lessons.longest, *(tokens.shape[1] for tokens, _ in judges))
    room = _room(teacher, TrainedWeights(student, forms), training, longest)
    before = room.judge(judges)
    n_tokens = _train(room, lessons, folder, progress)
    after = room.judge(judges)
    (folder / _CHECKPOINT).unlink(missing_ok=True)
    is_better = after < before
    return Recovered(
        model=store_model(folder, student, room.student.arrays()) if is_better else student,
        before=before,
        after=after if is_better else before,
        n_tokens=n_tokens,
    )


def _check_pair(teacher: Model, student: Model, training: Training) -> None:
    """Refuse models of which one cannot learn from the other.

    Raises:
        InputError: if vocabularies differ, or widths where values inside are compared.
    """
    if teacher.decoder.vocab_size != student.decoder.vocab_size:
        raise InputError("the models have other vocabularies: one cannot learn from the other")
    if training.hidden and teacher.decoder.width != student.decoder.width:
        raise InputError(
            f"hidden is {training.hidden}, but the widths differ ({teacher.decoder.width} and "
            f"{student.decoder.width}): leave it out"
        )


@dataclass(slots=True, kw_only=True)
class _Room:
    """A teacher, a student, and what the student gets wrong."""

    teacher: FixedWeights
    student: TrainedWeights
    training: Training
    teacher_ropes: RopeCache
    ropes: RopeCache

    def loss(self, tokens: TokenArray, weights: FloatArray) -> "Tensor":
        """Return the mean divergence over the places that count.

        Args:
            tokens: (B, T) int64.
            weights: (B, T) float32, how much what follows each token counts.

        Returns:
            One number: nat, and `hidden` times the distance of the heads' inputs.
        """
        import torch

        self.student.refresh()
        places = torch.from_numpy(np.flatnonzero(weights > 0))
        counts = torch.from_numpy(weights.reshape(-1))[places]  # (S,)
        with torch.no_grad(), self._precision():
            theirs = torch_hidden(self.teacher, tokens, self.teacher_ropes).flatten(0, 1)[places]
            wanted = torch_head(self.teacher, theirs).float()  # (S, V)
        with self._precision():
            ours = torch_hidden(self.student, tokens, self.ropes).flatten(0, 1)[places]
            given = torch_head(self.student, ours).float()
        heat = self.training.temperature
        wanted = (wanted / heat).log_softmax(dim=-1)
        given = (given / heat).log_softmax(dim=-1)
        # The gradient falls with the temperature squared: arXiv:1503.02531, section 2.
        apart = heat**2 * (wanted.exp() * (wanted - given)).sum(dim=-1)  # (S,)
        if self.training.hidden:
            gap = (ours.float() - theirs.float()).square().mean(dim=-1)
            apart = apart + self.training.hidden * gap / theirs.float().square().mean()
        return (apart * counts).sum() / counts.sum()

    def judge(self, batches: Sequence[Batch]) -> float:
        """Return the mean divergence over batches, in float32 and at temperature 1."""
        import torch

        total = counted = 0.0
        self.student.refresh()
        with torch.no_grad():
            for tokens, weights in batches:
                wanted, given = (
                    torch_head(of, torch_hidden(of, tokens, ropes)).log_softmax(dim=-1)
                    for of, ropes in (
                        (self.teacher, self.teacher_ropes),
                        (self.student, self.ropes),
                    )
                )
                apart = (wanted.exp() * (wanted - given)).sum(dim=-1)  # (B, T)
                total += float((apart * torch.from_numpy(weights)).sum())
                counted += float(weights.sum())
        return total / max(counted, 1e-30)

    def _precision(self) -> "AbstractContextManager[object]":
        import torch

        return torch.autocast("cpu", torch.bfloat16, enabled=self.training.in_bf16())


def _room(teacher: Model, student: TrainedWeights, training: Training, longest: int) -> _Room:
    return _Room(
        teacher=FixedWeights(teacher),
        student=student,
        training=training,
        teacher_ropes=RopeCache(teacher.decoder, longest),
        ropes=RopeCache(student.decoder, longest),
    )


def _train(room: _Room, lessons: Lessons, folder: Path, progress: Progress) -> int:
    """Take all steps that are not taken yet.

    Returns:
        Tokens of all steps.

    Raises:
        InputError: if a loss is not finite.
    """
    import torch

    training, parameters = room.training, room.student.tensors
    groups: list[dict[str, Any]] = [
        {"params": [tensor for tensor in parameters.values() if tensor.ndim == 2]},
        {"params": [t for t in parameters.values() if t.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=_BETAS, weight_decay=training.decay)
    folder.mkdir(parents=True, exist_ok=True)
    first, n_tokens, mean = _restore(folder, parameters, optimizer)
    progress.start("distilling", training.steps)
    progress.advance(first)
    saved_s = time.monotonic()
    for step in range(first, training.steps):
        tokens, weights = lessons.batch(step)
        loss = room.loss(tokens, weights)
        if not math.isfinite(found := loss.item()):
            raise InputError(f"training diverged at step {step}: take a smaller rate")
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters.values(), _LARGEST_GRADIENT)
        for group in optimizer.param_groups:
            group["lr"] = training.rate * training.share(step)
        optimizer.step()
        room.student.settle()
        optimizer.zero_grad()
        n_tokens += tokens.size
        mean = found if step == 0 else 0.98 * mean + 0.02 * found
        progress.advance(1)
        if (step + 1) % max(training.steps // 10, 1) == 0:
            progress.note(f"distilling: step {step + 1} of {training.steps}, {mean:.4f} nat")
        if time.monotonic() - saved_s > _SAVE_EVERY_S:
            _save(folder, parameters, optimizer, step + 1, n_tokens, mean)
            saved_s = time.monotonic()
    return n_tokens


def _save(
    folder: Path,
    parameters: "dict[str, Tensor]",
    optimizer: "Optimizer",
    step: int,
    n_tokens: int,
    mean: float,
) -> None:
    arrays: dict[str, FloatArray] = {}
    for name, tensor in parameters.items():
        state = optimizer.state[tensor]
        arrays[f"weight {name}"] = tensor.detach().numpy()
        arrays[f"first {name}"] = state["exp_avg"].numpy()
        arrays[f"second {name}"] = state["exp_avg_sq"].numpy()
    about = {"step": step, "n_tokens": n_tokens, "mean": mean}
    write_arrays(folder / _CHECKPOINT, arrays, about)


def _restore(
    folder: Path,
    parameters: "dict[str, Tensor]",
    optimizer: "Optimizer",
) -> tuple[int, int, float]:
    """Take up a checkpoint, if there is one: steps taken, tokens seen, the mean loss.

    Raises:
        ResourceError: if it is damaged, or of another model.
    """
    import torch

    place = folder / _CHECKPOINT
    if not place.is_file():
        return 0, 0, 0.0
    arrays, about = read_arrays(place)
    try:
        with torch.no_grad():
            for name, tensor in parameters.items():
                tensor.copy_(torch.from_numpy(arrays[f"weight {name}"]))
                optimizer.state[tensor] = {
                    "step": torch.tensor(float(about["step"])),
                    "exp_avg": torch.from_numpy(arrays[f"first {name}"]),
                    "exp_avg_sq": torch.from_numpy(arrays[f"second {name}"]),
                }
        return int(about["step"]), int(about["n_tokens"]), float(about["mean"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ResourceError(damage(place)) from error
