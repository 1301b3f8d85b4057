"""What the processes of `benchmarks.train_step_networks` do: jobs and answers as lines of JSON.

`python train_step_network_work.py ours|torch FOLDER THREADS`: `{"steps": N}` and `{"end": true}`.
FOLDER holds the bundle, the case's name and one batch.
"""

import sys
from pathlib import Path
from typing import Protocol

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.train_step_child import answer_jobs

__all__ = ["BATCH", "CASE", "STATE"]

CASE, BATCH, STATE = "case.txt", "batch.npz", "state.pt"
RATE, DECAY = 1e-3, 0.01


class Trained(Protocol):
    """A network that is trained."""

    def step(self) -> float:
        """Learn the batch once, and return the loss before."""
        ...


class Ours:
    """A bundle's lesson and the device's optimizer; the trunk is computed in every step."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Open the lesson."""
        from onhand.core.bundle import read_bundle
        from onhand.device.learning.graph import open_lesson
        from onhand.device.learning.optimizers import AdamW

        bundle = read_bundle(folder / "bundle")
        self._lesson = open_lesson(bundle, threads=threads)
        self._values = self._lesson.start()
        self._kept: dict[str, np.ndarray] = {}
        self._optimizer = AdamW(decay=DECAY)
        with np.load(folder / BATCH) as batch:
            self._inputs = {bundle.manifest.network.inputs[0].name: batch["x"]}
            labels = batch["labels"]
        weights = np.full(len(labels), 1 / len(labels), dtype=np.float32)
        self._marks = {"labels": labels, "weights": weights}

    def step(self) -> float:
        """See `Trained`."""
        feeds: dict[str, np.ndarray] = dict(self._inputs)
        if self._lesson.lesson.trunk is not None:
            feeds = {"latent": self._lesson.latent(self._inputs)}
        taught = self._lesson.teach(self._values, {**feeds, **self._marks})
        self._values, self._kept = self._optimizer.step(
            self._values, taught.gradients, self._kept, rate=RATE
        )
        return taught.loss


class TorchTrained:
    """The same network in PyTorch, in eager mode."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Take the weights."""
        import torch

        from benchmarks.train_step_network_models import MODELS

        torch.set_num_threads(threads)
        self._model = MODELS[(folder / CASE).read_text()].make()
        self._model.load_state_dict(torch.load(folder / STATE, weights_only=True))
        learned = self._model.learned()
        self._model.requires_grad_(False)
        for parameter in learned:
            parameter.requires_grad_()
        self._optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=DECAY)
        with np.load(folder / BATCH) as batch:
            self._x, self._labels = (torch.from_numpy(batch[key]) for key in ("x", "labels"))

    def step(self) -> float:
        """See `Trained`."""
        import torch
        from torch.nn import functional

        from benchmarks.train_step_network_models import MobileNetV2

        self._optimizer.zero_grad(set_to_none=True)
        if isinstance(self._model, MobileNetV2):
            with torch.no_grad():
                latent = self._model.frozen(self._x)
            scores = self._model.scores(latent)
        else:
            scores = self._model(self._x)
        loss = functional.cross_entropy(scores, self._labels)
        loss.backward()  # type: ignore[no-untyped-call] # torch has no types for it
        self._optimizer.step()
        return float(loss.detach())


def main() -> None:
    """Do one job after the other."""
    folder, threads = Path(sys.argv[2]), int(sys.argv[3])
    kind: type[Ours] | type[TorchTrained] = Ours if sys.argv[1] == "ours" else TorchTrained
    trained: Trained = kind(folder, threads)
    answer_jobs(lambda _: trained.step)


if __name__ == "__main__":
    main()
