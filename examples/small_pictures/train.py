"""Train a MobileNetV2 on small pictures, and export it as ONNX.

    python -m examples.small_pictures.train --data cifar10.zip --out out/pictures --epochs 30

The folder gets `checkpoint.safetensors` after every epoch, from which a second run goes on, and
at the end `model.onnx`, `labels.txt` and `report.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from examples.small_pictures.data import SIDE, Pictures, read_digits, read_zip
from examples.small_pictures.network import MobileNetV2
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MEAN", "STD", "Run", "accuracy", "augmented", "export", "main", "normalized"]

MEAN = (125.3, 123.0, 113.9)
STD = (63.0, 62.1, 66.7)
"""Of CIFAR-10's pixels, 0 to 255, for red, green and blue."""

PADDING, HOLE = 4, 8
SMALL_SIDE, SMALL_UNTIL = 24, 0.7
WARM_UP = 0.15


def normalized(pixels: Tensor) -> Tensor:
    """Return (B, SIDE, SIDE, 3) uint8 pixels as the network wants them: (B, 3, SIDE, SIDE)."""
    plain = (pixels.float() - torch.tensor(MEAN)) / torch.tensor(STD)  # (B, SIDE, SIDE, 3)
    # Channels stay last in memory, which is what the kernels are fastest with.
    return plain.permute(0, 3, 1, 2)


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move each picture by up to 4 pixels, mirror every second one, hide a square of each.

    Args:
        pixels: (B, SIDE, SIDE, 3) uint8.
        generator: the same state gives the same pictures.

    Returns:
        (B, 3, SIDE, SIDE) float32, normalized; what is hidden is 0, the mean colour.

    Source:
        The square: DeVries and Taylor, Cutout, arXiv:1708.04552.
    """
    B = len(pixels)
    moves = torch.randint(-PADDING, PADDING + 1, (2, B, 1), generator=generator)
    places = torch.arange(SIDE)[None] + moves  # (2, B, SIDE)
    # Beyond an edge the picture is mirrored.
    places = (SIDE - 1 - (places.abs() - (SIDE - 1)).abs()).clamp(0, SIDE - 1)
    rows, columns = places[0], places[1]  # (B, SIDE) each
    mirrored = torch.rand((B, 1), generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    moved = pixels[torch.arange(B)[:, None, None], rows[:, :, None], columns[:, None, :]]
    middle = torch.randint(0, SIDE, (2, B, 1), generator=generator)
    near = (torch.arange(SIDE)[None] - middle).abs() * 2 < HOLE  # (2, B, SIDE)
    hidden = near[0][:, None, :, None] & near[1][:, None, None, :]  # (B, 1, SIDE, SIDE)
    return normalized(moved).masked_fill(hidden, 0.0)


@dataclass(slots=True, kw_only=True)
class Run:
    """A training run: what a checkpoint keeps, and how it goes on.

    Attributes:
        network: what learns.
        optimizer: of it.
        settings: what both were made with; a checkpoint of others is refused.
        epoch: epochs done.
        spent_s: seconds in them.
    """

    network: MobileNetV2
    optimizer: torch.optim.Optimizer
    settings: dict[str, float]
    epoch: int = 0
    spent_s: float = 0.0

    @classmethod
    def start(cls, settings: dict[str, float], *, n_classes: int) -> Run:
        """Begin with random weights.

        Args:
            settings: epochs, minutes, batch, rate, decay, width and seed.
            n_classes: scores of the network.
        """
        torch.manual_seed(int(settings["seed"]))
        network = MobileNetV2(n_classes=n_classes, width=settings["width"])
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a stub lacks it
        # Decay pulls at matrices and kernels only: norms and biases need their size.
        kernels = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups = [
            {"params": kernels, "weight_decay": settings["decay"]},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
        return cls(network=network, optimizer=optimizer, settings=settings)

    def save(self, path: Path) -> None:
        """Write a checkpoint beside its place and rename it over the last one."""
        tensors = {f"network.{n}": t.contiguous() for n, t in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum.contiguous()
        kept = {"epoch": self.epoch, "settings": self.settings, "spent_s": self.spent_s}
        save_file(tensors, path.with_suffix(".new"), metadata={"run": json.dumps(kept)})
        path.with_suffix(".new").replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: if it was written with other settings.
        """
        with safe_open(path, framework="pt") as file:
            kept = json.loads((file.metadata() or {})["run"])
            if kept["settings"] != self.settings:
                raise ValueError(f"{path}: of a run with {kept['settings']}, not {self.settings}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights = {n.removeprefix("network."): t for n, t in tensors.items() if "network." in n}
        self.network.load_state_dict(weights)
        for name, parameter in self.network.named_parameters():
            if (momentum := tensors.get(f"momentum.{name}")) is not None:
                like = torch.empty_like(parameter).copy_(momentum)
                self.optimizer.state[parameter]["momentum_buffer"] = like.detach()
        self.epoch, self.spent_s = kept["epoch"], kept["spent_s"]

    def progress(self, within_epoch: float = 0.0) -> float:
        """Return how much of the run is done, 0 to 1: of its minutes, or else of its epochs."""
        if self.settings["minutes"]:
            return min(1.0, self.spent_s / (60 * self.settings["minutes"]))
        return (self.epoch + within_epoch) / self.settings["epochs"]

    def learn(self, train: Pictures) -> float:
        """Go through all pictures once, or until the minutes are over.

        Args:
            train: the pictures; those that do not fill the last batch wait for another epoch.

        Returns:
            The mean loss, in nats.
        """
        self.network.train()
        batch = min(int(self.settings["batch"]), len(train))
        generator = torch.Generator().manual_seed(int(self.settings["seed"]) * 7919 + self.epoch)
        order = torch.randperm(len(train), generator=generator)
        n_steps = len(train) // batch
        is_small = self.progress() < SMALL_UNTIL
        pixels, labels = torch.from_numpy(train.pixels), torch.from_numpy(train.labels)
        losses: list[float] = []
        before_s, begun = self.spent_s, time.monotonic()
        for step in range(n_steps):
            chosen = order[step * batch : (step + 1) * batch]
            pictures = augmented(pixels[chosen], generator)
            if is_small:
                size = (SMALL_SIDE, SMALL_SIDE)
                pictures = functional.interpolate(pictures, size, mode="bilinear", antialias=True)
            rate = self.settings["rate"] * _share(self.progress(step / n_steps))
            losses.append(self._step(pictures, labels[chosen], rate))
            self.spent_s = before_s + time.monotonic() - begun
            if self.settings["minutes"] and self.progress() >= 1:
                break
        self.epoch += 1
        return sum(losses) / len(losses)

    def _step(self, pictures: Tensor, labels: Tensor, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            scores = self.network(pictures.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(scores.float(), labels, label_smoothing=0.1)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.item()


def _share(progress: float) -> float:
    """Return what share of the highest rate applies: up a line, then down a cosine.

    Source:
        One cycle: Smith and Topin, Super-Convergence, arXiv:1708.07120.
    """
    if progress < WARM_UP:
        return 0.04 + 0.96 * progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def accuracy(network: nn.Module, pictures: Pictures) -> float:
    """Return the share of pictures whose highest score is the right class."""
    network.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(pictures), 500):
            pixels = torch.from_numpy(pictures.pixels[start : start + 500])
            guesses = network(normalized(pixels)).argmax(dim=1).numpy()
            right += int((guesses == pictures.labels[start : start + 500]).sum())
    return right / len(pictures)


def export(network: nn.Module, path: Path) -> None:
    """Write the network as ONNX, for any number of pictures: "picture" in, "scores" out.

    Args:
        network: the network.
        path: of the file.

    Raises:
        RuntimeError: if torch exports nothing.
    """
    network.eval()
    program = torch.onnx.export(
        network,
        (torch.zeros(2, 3, SIDE, SIDE),),
        dynamo=True,
        input_names=["picture"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch exported nothing")
    program.save(path, external_data=False)


def main() -> None:
    """Train, show progress, keep checkpoints, and export."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help='a zip file of JPEGs, or "digits"')
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=0.0, help="instead of --epochs")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.15, help="the highest learning rate")
    parser.add_argument("--decay", type=float, default=5e-4)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    train, test = (
        read_digits(split) if given.data == "digits" else read_zip(Path(given.data), split)
        for split in ("train", "test")
    )
    keys = ("epochs", "minutes", "batch", "rate", "decay", "width", "seed")
    run = Run.start({key: getattr(given, key) for key in keys}, n_classes=len(train.classes))
    given.out.mkdir(parents=True, exist_ok=True)
    checkpoint = given.out / "checkpoint.safetensors"
    if checkpoint.exists():
        run.resume(checkpoint)
    n_parameters = sum(p.numel() for p in run.network.parameters())
    print(f"{n_parameters:,} parameters, {len(train):,} pictures, from epoch {run.epoch}")
    while run.progress() < 1:
        loss = run.learn(train)
        run.save(checkpoint)
        left_s = run.spent_s / run.progress() * (1 - run.progress())
        line = f"epoch {run.epoch}  loss {loss:.3f}  {run.spent_s:.0f} s"
        line += f"  {left_s / 60:.1f} minutes left"
        if run.epoch % 5 == 0 or run.progress() >= 1:
            line += f"  test pictures right: {accuracy(run.network, test):.2%}"
        print(line, flush=True)
    export(run.network, given.out / "model.onnx")
    (given.out / "labels.txt").write_text("\n".join(train.classes) + "\n", encoding="utf-8")
    report = {
        "accuracy": accuracy(run.network, test),
        "epoch_s": run.spent_s / run.epoch,
        "epochs": run.epoch,
        "n_parameters": n_parameters,
        "settings": run.settings,
        "size_bytes": (given.out / "model.onnx").stat().st_size,
    }
    (given.out / "report.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    print(json.dumps(report, sort_keys=True))


if __name__ == "__main__":
    main()
