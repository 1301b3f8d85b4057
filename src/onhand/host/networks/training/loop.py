"""The loop of training: steps, judgements, the best weights, and a state that survives.

What a step does depends on its number and the seed, never on what ran before in this process:
a run that is interrupted and resumed ends with the very same numbers. Import it when needed.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from onhand.core.errors import InputError
from onhand.core.progress import Progress
from onhand.core.units import format_seconds
from onhand.host.array_files import read_arrays, write_arrays

__all__ = ["Learner", "Outcome", "Plan", "rate_at", "train"]

_CHECKPOINT = "training.npz"
# Seconds between two checkpoints.
_PAUSE = 30.0
_TELL_AFTER: Final = 3
_WORTH_TELLING = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a student is trained.

    Attributes:
        steps: in all.
        learning_rate: at its height.
        warm_up: share of the steps in which it rises.
        decay: "cosine" to nothing, or "constant".
        weight_decay: of weights of two dimensions and more.
        optimizer: "adamw" or "sgd" (momentum 0.9).
        clip: longest gradient, of kernels and of all else each; 0 for any.
        judge_every: steps from one judgement to the next.
        patience: judgements without gain that end it; 0 for none.
        seed: of what is drawn inside the network.
    """

    steps: int
    learning_rate: float
    warm_up: float
    decay: str
    weight_decay: float
    optimizer: str
    clip: float
    judge_every: int
    patience: int
    seed: int


class Learner(Protocol):
    """What is trained."""

    def backward(self, step: int) -> None:
        """Add the gradients of a step to the parameters."""
        ...

    def settle(self) -> None:
        """Bring parameters back to where they must be: zeros, ranges."""
        ...

    def judge(self) -> float:
        """Return how bad the student is now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What training gave; the state holds the best numbers.

    Attributes:
        before: judgement before the first step.
        after: the best judgement.
        steps: that were made.
        stopped: whether patience ended it.
    """

    before: float
    after: float
    steps: int
    stopped: bool


@dataclass(slots=True)
class _Run:
    step: int = 0
    before: float = math.inf
    best: float = math.inf
    waited: int = 0
    stopped: bool = False
    best_state: dict[str, np.ndarray] = field(default_factory=dict)


def rate_at(step: int, plan: Plan) -> float:
    """Return the learning rate of a step, from 0."""
    rising = plan.warm_up * plan.steps
    if step < rising:
        return plan.learning_rate * (step + 1) / (rising + 1)
    if plan.decay == "constant":
        return plan.learning_rate
    progress = (step - rising) / max(1.0, plan.steps - rising)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    learner: Learner,
    parameters: Mapping[str, Parameter],
    state: Mapping[str, Tensor],
    plan: Plan,
    *,
    folder: Path | None,
    fingerprint: str,
    progress: Progress,
) -> Outcome:
    """Train, or go on where an interrupted run was.

    Args:
        learner: gives gradients and judgements.
        parameters: what the optimizer changes, by name.
        state: all that training changes, `parameters` included: at the end, the best found.
        plan: how.
        folder: of the checkpoint; None for none.
        fingerprint: of all that decides the result; a checkpoint of another is not taken up.
        progress: told how far it is.

    Returns:
        What it gave.

    Raises:
        InputError: if the loss is no number.
        ResourceError: if the checkpoint is damaged.
    """
    place = None if folder is None else folder / _CHECKPOINT
    optimizer = _optimizer(parameters, plan)
    run = _Run()
    if place is not None and place.is_file():
        run = _resumed(place, fingerprint, state, parameters, optimizer)
    progress.start("distilling", plan.steps)
    progress.advance(run.step)
    if not run.best_state:
        run.before = run.best = learner.judge()
        run.best_state = _copied(state)
    begun, first, saved = time.monotonic(), run.step, time.monotonic()
    with torch.random.fork_rng(devices=[]):
        while not _is_over(run, plan):
            _step(learner, parameters, optimizer, plan, run.step)
            run.step += 1
            progress.advance(1)
            if run.step == first + _TELL_AFTER:
                _tell(progress, plan.steps - run.step, (time.monotonic() - begun) / _TELL_AFTER)
            is_due = run.step % plan.judge_every == 0 or run.step == plan.steps
            if is_due:
                _judge(learner, state, plan, run)
            if place is not None and (is_due or time.monotonic() - saved > _PAUSE):
                _save(place, run, fingerprint, state, parameters, optimizer)
                saved = time.monotonic()
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(run.best_state[name]))
    return Outcome(before=run.before, after=run.best, steps=run.step, stopped=run.stopped)


def _is_over(run: _Run, plan: Plan) -> bool:
    return run.stopped or run.step >= plan.steps


def _step(
    learner: Learner,
    parameters: Mapping[str, Parameter],
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    step: int,
) -> None:
    rate = rate_at(step, plan)
    for group in optimizer.param_groups:
        group["lr"] = rate
    # Each step has random numbers of its own, so that a resumed run draws the same ones.
    torch.manual_seed(plan.seed * 1_000_003 + step)
    optimizer.zero_grad()
    learner.backward(step)
    if all(p.grad is None for p in parameters.values()):
        raise InputError("no gradient reaches anything that is trained")
    most = plan.clip if plan.clip > 0 else math.inf
    # Those of scales sum over whole arrays: together they would drown the weights'.
    for group in optimizer.param_groups:
        given = [p for p in group["params"] if p.grad is not None]
        if not torch.isfinite(torch.nn.utils.clip_grad_norm_(given, most)):
            raise InputError(
                f"step {step + 1}: the gradient is no number; lower the learning rate "
                f"({plan.learning_rate:g})"
            )
    optimizer.step()
    with torch.no_grad():
        learner.settle()


def _judge(learner: Learner, state: Mapping[str, Tensor], plan: Plan, run: _Run) -> None:
    found = learner.judge()
    if found < run.best:
        run.best, run.waited, run.best_state = found, 0, _copied(state)
        return
    run.waited += 1
    run.stopped = 0 < plan.patience <= run.waited


def _optimizer(parameters: Mapping[str, Parameter], plan: Plan) -> torch.optim.Optimizer:
    # Biases and norms are pulled to nothing by no decay: arXiv:1812.01187.
    wide = [p for p in parameters.values() if p.ndim > 1]
    narrow = [p for p in parameters.values() if p.ndim <= 1]
    groups = [
        {"params": wide, "weight_decay": plan.weight_decay},
        {"params": narrow, "weight_decay": 0.0},
    ]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.9)
    # All arrays in one call take a third of the time; kernels may lie otherwise than gradients.
    is_flat = all(p.ndim <= 2 for p in parameters.values())
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=is_flat)


def _tell(progress: Progress, steps: int, seconds: float) -> None:
    if steps * seconds > _WORTH_TELLING:
        progress.note(f"{steps} steps to go, about {format_seconds(steps * seconds)}")


def _copied(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in state.items()}


def _save(
    place: Path,
    run: _Run,
    fingerprint: str,
    state: Mapping[str, Tensor],
    parameters: Mapping[str, Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    arrays: dict[str, np.ndarray] = {}
    for i, (name, array) in enumerate(_copied(state).items()):
        arrays[f"now.{i}"], arrays[f"best.{i}"] = array, run.best_state[name]
    for i, parameter in enumerate(parameters.values()):
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                arrays[f"optimizer.{i}.{key}"] = value.detach().cpu().numpy().copy()
    about = {
        "fingerprint": fingerprint,
        "step": run.step,
        "before": run.before,
        "best": run.best,
        "waited": run.waited,
        "stopped": run.stopped,
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(place, arrays, about)


def _resumed(
    place: Path,
    fingerprint: str,
    state: Mapping[str, Tensor],
    parameters: Mapping[str, Parameter],
    optimizer: torch.optim.Optimizer,
) -> _Run:
    arrays, about = read_arrays(place)
    if about.get("fingerprint") != fingerprint:
        return _Run()
    best: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for i, (name, tensor) in enumerate(state.items()):
            tensor.copy_(torch.from_numpy(arrays[f"now.{i}"]))
            best[name] = arrays[f"best.{i}"]
    for i, parameter in enumerate(parameters.values()):
        start = f"optimizer.{i}."
        found = {
            key.removeprefix(start): torch.from_numpy(array)
            for key, array in arrays.items()
            if key.startswith(start)
        }
        if found:
            optimizer.state[parameter] = {
                # In the order of memory that the parameter has.
                key: torch.empty_like(parameter).copy_(array) if array.ndim else array
                for key, array in found.items()
            }
    return _Run(
        step=int(about["step"]),
        before=float(about["before"]),
        best=float(about["best"]),
        waited=int(about["waited"]),
        stopped=bool(about["stopped"]),
        best_state=best,
    )
