"""Scales trained so that the compressed model says what the original says; codes stay.

Source:
    Scale-only distillation: EfficientQAT's end-to-end phase, arXiv:2407.11062, with the original's
    answers as the target (KL divergence, arXiv:1503.02531) in place of the text's next token.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.progress import Progress
from onhand.core.quantized import QuantTensor
from onhand.device.engines.forward import RopeCache
from onhand.host.model import Model
from onhand.host.scale_tables import few_scales, has_few_scales
from onhand.host.torch_forward import torch_logits
from onhand.host.torch_weights import FixedWeights
from onhand.host.work import FinishedMatrices

if TYPE_CHECKING:
    from torch import Tensor

    from onhand.host.pack import VariantPlan

__all__ = ["ScaleTraining", "check_torch", "distil_matrices", "train_scales"]

_RATE = 2e-3
_WARM_UP = 0.05
# One sequence in so many judges and is not trained on.
_JUDGING = 8


def check_torch(what: str = "training scales (--preset best)") -> None:
    """Refuse to begin what cannot be ended.

    Args:
        what: what needs torch, for people.

    Raises:
        InputError: if torch is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise InputError(f"{what} needs torch: pip install 'onhand[host,train]'") from error


def train_scales(
    original: Model,
    scaled: Model,
    tensors: dict[str, QuantTensor],
    sequences: Sequence[TokenArray],
    *,
    rounds: int,
    threads: int,
    advance: Callable[[float], None],
) -> tuple[dict[str, QuantTensor], float, float]:
    """Train the scales of a model's matrices on a text.

    Args:
        original: the source: the teacher.
        scaled: what `tensors` were made of; gives norms, biases and matrices that stay.
        tensors: matrix name -> codes and scales; all others stay as they are.
        sequences: calibration tokens, at least two sequences.
        rounds: times to go through the text.
        threads: threads to use.
        advance: told the number of sequences finished since the last call.

    Returns:
        The tensors with new scales, or the given ones where training did not help; the mean KL
        divergence in nat on sequences that were not trained on, before and after.
    """
    import torch

    torch.set_num_threads(threads)
    teacher, student = FixedWeights(original), _Student(scaled, tensors)
    judges = sequences[::_JUDGING] if len(sequences) > 1 else sequences
    learners = [s for number, s in enumerate(sequences) if number % _JUDGING] or list(sequences)
    longest = max(tokens.size for tokens in sequences)
    # The copy may have fewer layers than the original.
    teacher_ropes = RopeCache(original.decoder, longest)
    ropes = RopeCache(scaled.decoder, longest)

    def divergence(tokens: TokenArray) -> "Tensor":
        with torch.no_grad():
            wanted = torch_logits(teacher, tokens, teacher_ropes).log_softmax(dim=-1)
        given = torch_logits(student, tokens, ropes).log_softmax(dim=-1)
        return (wanted.exp() * (wanted - given)).sum(dim=-1).mean()

    def judged() -> float:
        with torch.no_grad():
            return float(np.mean([divergence(tokens).item() for tokens in judges]))

    before = judged()
    _train(list(student.factors.values()), divergence, learners, rounds=rounds, advance=advance)
    trained = student.tensors()
    student = _Student(scaled, trained)  # judged as float16 stores it
    after = judged()
    if after < before:
        return trained, before, after
    return tensors, before, before


def distil_matrices(
    original: Model,
    scaled: Model,
    finished: FinishedMatrices,
    names: Sequence[str],
    trained: FinishedMatrices,
    sequences: Sequence[TokenArray],
    *,
    rounds: int,
    threads: int,
    advance: Callable[[float], None],
) -> tuple[float, float]:
    """Train the scales of a variant's finished matrices, and keep the result.

    Args:
        original: the source: the teacher.
        scaled: what the matrices were made of.
        finished: the matrices.
        names: which of them.
        trained: where those with trained scales are kept.
        sequences: see `train_scales`.
        rounds: see `train_scales`.
        threads: see `train_scales`.
        advance: see `train_scales`.

    Returns:
        The divergence before and after, see `train_scales`.
    """
    found = {name: finished.find(name) for name in names}
    tensors, before, after = train_scales(
        original,
        scaled,
        {name: matrix.tensor for name, matrix in found.items()},
        sequences,
        rounds=rounds,
        threads=threads,
        advance=advance,
    )
    for name, matrix in found.items():
        trained.keep(replace(matrix, tensor=tensors[name]))
    return before, after


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleTraining:
    """Trains the scales of the variants that ask for it.

    Attributes:
        original: the source: the teacher.
        scaled: what the matrices are made of.
        sequences: calibration tokens.
        folder: keeps the trained matrices.
        threads: threads to use.
        progress: told how far it is, and what was gained.
    """

    original: Model
    scaled: Model
    sequences: Sequence[TokenArray]
    folder: Path
    threads: int
    progress: Progress

    def refine(self, plan: "VariantPlan", finished: FinishedMatrices) -> FinishedMatrices:
        """Return a variant's matrices with trained scales, or as they are."""
        if not plan.report.rounds:
            return finished
        trained = FinishedMatrices(self.folder / f"{plan.name}.distilled")
        own = [name for name in plan.own if name in finished]
        if all(name in trained for name in own):
            return trained
        self.progress.start("training scales", plan.report.rounds * len(self.sequences))
        before, after = distil_matrices(
            self.original,
            self.scaled,
            finished,
            own,
            trained,
            self.sequences,
            rounds=plan.report.rounds,
            threads=self.threads,
            advance=self.progress.advance,
        )
        self.progress.note(
            f"{plan.name}: training the scales took the divergence on calibration text that was "
            f"left out of it from {before:.4f} to {after:.4f} nat"
        )
        return trained


def _train(
    parameters: "list[Tensor]",
    divergence: "Callable[[TokenArray], Tensor]",
    learners: Sequence[TokenArray],
    *,
    rounds: int,
    advance: Callable[[float], None],
) -> None:
    """Go through the sequences so often, in an order that is always the same."""
    import torch

    optimizer = torch.optim.Adam(parameters, lr=_RATE, betas=(0.9, 0.98))
    order = np.random.default_rng(0)
    turns = [number for _ in range(rounds) for number in order.permutation(len(learners))]
    for step, number in enumerate(turns):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * _share(step / len(turns))
        optimizer.zero_grad()
        torch.autograd.backward(divergence(learners[number]))
        optimizer.step()
        advance(1)


def _share(progress: float) -> float:
    """Warm up, then fall along a cosine to nothing."""
    if progress < _WARM_UP:
        return progress / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * progress))


class _Student:
    """Codes and trainable factors on their scales. See `TorchWeights`."""

    def __init__(self, model: Model, tensors: dict[str, QuantTensor]) -> None:
        import torch

        self.decoder: Decoder = model.decoder
        self._fixed = FixedWeights(model)
        self._given = tensors
        self._codes: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor] = {}
        self.factors: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            codes, zeros = tensor.unpack()
            centred = codes.astype(np.int16) - zeros[:, :, None]
            self._codes[name] = torch.from_numpy(centred.astype(np.int16))  # (N, G, g)
            self._scales[name] = torch.from_numpy(tensor.scales.astype(np.float32))  # (N, G)
            self.factors[name] = torch.ones_like(self._scales[name], requires_grad=True)

    def matrix(self, name: str) -> "Tensor":
        """See `TorchWeights`."""
        if name not in self._codes:
            return self._fixed.matrix(name)
        scales = self._scales[name] * self.factors[name]
        whole = self._codes[name] * scales[:, :, None]
        n, k = self._given[name].shape
        return whole.reshape(n, -1)[:, :k]

    def vector(self, name: str) -> "Tensor":
        """See `TorchWeights`."""
        return self._fixed.vector(name)

    def tensors(self) -> dict[str, QuantTensor]:
        """Return the tensors with the factors in their scales."""
        top = float(np.finfo(np.float16).max)
        made: dict[str, QuantTensor] = {}
        for name, tensor in self._given.items():
            scales = (self._scales[name] * self.factors[name]).detach().numpy()
            new = replace(tensor, scales=np.clip(scales, -top, top).astype(np.float16))
            made[name] = few_scales(new) if has_few_scales(tensor) else new
        return made
