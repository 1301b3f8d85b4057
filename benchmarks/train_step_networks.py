"""A training step of a network on the device beside one of PyTorch in eager mode.

    python -m benchmarks.train_step_networks [--cases minilm-lora] [--json] [--out FILE.json]

A step is: what is frozen, loss and gradients of one batch, and AdamW. Ours is ONNX Runtime on the
lesson of a bundle in float32 and the device's numpy optimizer, without PyTorch; the other the same
network as one writes it there, with `torch.optim.AdamW`; frozen parts without gradients. Both begin
with the same random weights and learn the same batch, each in a process of its own, in turns; the
losses of all steps are compared. Memory is the process's peak, interpreter and packages included.

Cases: `mobilenet-v2-last-block` (the last block, the last convolution and the head; 8 pictures of
96 x 96), `minilm-lora` (six layers of width 384, rank 8 on every product, and the head; 8 texts of
32 tokens).
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import Worker
from benchmarks.train_step import Side, figures
from benchmarks.train_step_network_work import BATCH, CASE, STATE
from onhand.core.safetensors import open_safetensors
from onhand.device.threads import usable_threads

__all__ = ["main"]

_WORK = Path(__file__).with_name("train_step_network_work.py")
_NAMES = ("mobilenet-v2-last-block", "minilm-lora")


def main() -> None:
    """Run the benchmark and print JSON, or a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(_NAMES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="steps of each round")
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    names = given.cases.split(",")
    if odd := [name for name in names if name not in _NAMES]:
        parser.error(f"unknown case {odd[0]!r}; there are {', '.join(_NAMES)}")
    found = {}
    for name in names:
        folder = Path(tempfile.mkdtemp(prefix="onhand-train-network-"))
        try:
            write_case(name, folder)
            found[name] = figures(_sides(folder, given.rounds, given.steps, given.threads))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    result = {"cases": found, "steps_per_round": given.steps, "threads": given.threads}
    if given.out is not None:
        given.out.write_text(json.dumps(result, sort_keys=True, indent=1) + "\n")
    if given.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for name, row in found.items():
        sys.stdout.write(
            f"{name:24s} ours {row['ours_ms']:7.1f} ms, torch {row['torch_ms']:7.1f} ms, "
            f"{row['times_as_fast_as_torch']:.2f} times as fast; memory "
            f"{row['memory_share_of_torch']:.2f} of torch's; losses "
            f"{row['torch_largest_loss_error']:.1e} apart\n"
        )


def write_case(name: str, folder: Path) -> None:
    """Write a bundle with a lesson, the weights for PyTorch and a batch.

    Args:
        name: of the case.
        folder: an empty folder.
    """
    import torch

    from benchmarks.train_step_network_models import MODELS, N_CLASSES, Encoder
    from onhand.core.bundle import stage_bundle
    from onhand.host.learning.network_files import add_network_lesson
    from onhand.host.learning.wanted import parse_learnable
    from onhand.host.networks.clean import clean
    from onhand.host.networks.loading import load_network
    from onhand.host.networks.pack import describe, pack_network
    from onhand.host.networks.samples import Samples

    case = MODELS[name]
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    net = case.make().eval()
    x: np.ndarray = random.normal(0, 1, case.shape).astype(np.float32)
    if case.n_ids:
        x = random.integers(0, case.n_ids, case.shape)
    np.savez(folder / BATCH, x=x, labels=random.integers(0, N_CLASSES, case.shape[0]))
    (folder / CASE).write_text(name)
    if isinstance(net, Encoder):
        net.plain()
    program = torch.export.export(net, (torch.from_numpy(x),))
    torch.export.save(program, folder / "net.pt2")
    task = "text-classification" if case.n_ids else "image-classification"
    model = load_network(str(folder / "net.pt2"), task=task)
    graph = clean(model.graph)
    with stage_bundle(folder / "bundle") as staged:
        packed = pack_network(model, describe(model, task), {"fp32": graph}, staged, provenance={})
        inputs = graph.inputs[0].name
        samples = Samples(feeds=[{inputs: x}])
        learnable = parse_learnable(case.learnable)
        added = add_network_lesson(packed, learnable, samples=samples, threads=1, steps=2)
        starts = _starts(staged / added.lesson.start)
    if isinstance(net, Encoder):
        _take_factors(net, starts)
    torch.save(net.state_dict(), folder / STATE)


def _starts(path: Path) -> dict[str, np.ndarray]:
    file = open_safetensors(path)
    return {name: np.array(file.view(name)) for name in file.tensors}


def _take_factors(net: Any, starts: dict[str, np.ndarray]) -> None:
    """Begin PyTorch's first factors as the lesson's, which stand in the order of the products."""
    import torch

    from benchmarks.train_step_network_models import Adapted

    firsts = [array for name, array in starts.items() if name.endswith(".lora_A")]
    layers = [module for module in net.modules() if isinstance(module, Adapted)]
    with torch.no_grad():
        for layer, first in zip(layers, firsts, strict=True):
            layer.first.weight.copy_(torch.from_numpy(first))


def _sides(folder: Path, rounds: int, n_steps: int, threads: int) -> dict[str, Side]:
    """Let both processes take turns."""
    found: dict[str, dict[str, list[float]]] = {}
    ends: dict[str, dict[str, Any]] = {}
    with (
        Worker("ours", folder, threads, script=_WORK) as ours,
        Worker("torch", folder, threads, script=_WORK) as torch,
    ):
        both = {"ours": ours, "torch": torch}
        for name, worker in both.items():
            found[name] = {"seconds": [], "losses": worker.ask(steps=2)["losses"]}
        for number in range(rounds):
            for name in sorted(both, reverse=bool(number % 2)):
                made = both[name].ask(steps=n_steps)
                for key in ("seconds", "losses"):
                    found[name][key] += made[key]
        for name, worker in both.items():
            ends[name] = worker.close()
    return {
        name: Side(
            seconds=found[name]["seconds"],
            losses=found[name]["losses"],
            peak_memory_bytes=ends[name]["peak_memory_bytes"],
            torch_imported=ends[name]["torch_imported"],
        )
        for name in both
    }


if __name__ == "__main__":
    main()
