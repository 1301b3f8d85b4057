"""A training step on the device beside one of PyTorch in eager mode: time, memory, the same losses.

    python -m benchmarks.train_step [--cases llama-6x288,smollm2-135m] [--json]
    python -m benchmarks.train_step --out benchmarks/results/train_step.json

A step is: loss and gradients of the factors of low rank of one batch, and AdamW. Ours is ONNX
Runtime on the lesson of a bundle, and the device's numpy optimizer. The others are PyTorch, with
`torch.optim.AdamW`, over the numbers that the bundle's codes stand for, in float32: `torch` is a
decoder written for this (fused attention and norms, only scored rows through the head),
`transformers` that package's Llama with the same factors. All learn the same texts from the same
start with the same number of threads, each in a process of its own, and take turns round by round;
losses of all steps are compared. Memory is the process's peak, interpreter and packages included.

Cases: `llama-6x288` (6 layers of width 288, 2 texts of 64 tokens, float32) and `smollm2-135m` (the
shape of SmolLM2-135M, 1 text of 128 tokens, frozen weights in 4 bits), of random weights; and
`house`, the example's model in 4 bits, 8 texts of 48 tokens.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Worker
from benchmarks.train_step_bundles import write_case
from benchmarks.train_step_work import CASES, Case
from onhand.device.threads import usable_threads

__all__ = ["main"]

PROGRAMS = ("ours", "torch", "transformers")
_WORK = Path(__file__).with_name("train_step_work.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one process found.

    Attributes:
        seconds: of each step that was timed.
        losses: of every step, those that warmed up included.
        peak_memory_bytes: of the process.
        torch_imported: whether the process has torch in it.
    """

    seconds: Sequence[float]
    losses: Sequence[float]
    peak_memory_bytes: int
    torch_imported: bool


def main() -> None:
    """Run the benchmark and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps of each round")
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--work", type=Path, help="keeps the bundles; else a temporary folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    names = given.cases.split(",")
    if odd := [name for name in names if name not in CASES]:
        parser.error(f"unknown case {odd[0]!r}; there are {', '.join(CASES)}")
    folder = given.work or Path(tempfile.mkdtemp(prefix="onhand-train-step-"))
    try:
        found = {
            name: _case(CASES[name], folder / name, given.rounds, given.steps, given.threads)
            for name in names
        }
    finally:
        if given.work is None:
            shutil.rmtree(folder, ignore_errors=True)
    result = {"cases": found, "steps_per_round": given.steps, "threads": given.threads}
    if given.out is not None:
        given.out.write_text(json.dumps(result, sort_keys=True, indent=1) + "\n")
    sys.stdout.write(json.dumps(result) + "\n" if given.json else _table(found))


def _case(
    case: Case, folder: Path, rounds: int, n_steps: int, threads: int
) -> dict[str, float | int | bool]:
    """Measure one case."""
    if not (folder / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_case(case, folder)
    return figures(_sides(case, folder, rounds, n_steps, threads))


def _sides(case: Case, folder: Path, rounds: int, n_steps: int, threads: int) -> dict[str, Side]:
    """Let the processes take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    losses: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(name, folder, threads, script=_WORK))
            for name in PROGRAMS
        }
        for name, worker in workers.items():
            losses[name] += worker.ask(case=case.name, steps=2)["losses"]
        for number in range(rounds):
            for name in sorted(workers, reverse=bool(number % 2)):
                found = workers[name].ask(case=case.name, steps=n_steps)
                seconds[name] += found["seconds"]
                losses[name] += found["losses"]
        ends = {name: worker.close() for name, worker in workers.items()}
    return {
        name: Side(
            seconds=seconds[name],
            losses=losses[name],
            peak_memory_bytes=ends[name]["peak_memory_bytes"],
            torch_imported=ends[name]["torch_imported"],
        )
        for name in PROGRAMS
    }


def figures(sides: Mapping[str, Side]) -> dict[str, float | int | bool]:
    """Return plain numbers.

    Args:
        sides: what each process found; "ours" is one of them.
    """
    ours = sides["ours"]
    table: dict[str, float | int | bool] = {
        "first_loss": ours.losses[0],
        "last_loss": ours.losses[-1],
        "n_steps": len(ours.seconds),
        "torch_imported": ours.torch_imported,
    }
    for name, side in sides.items():
        low, middle, high = statistics.quantiles(side.seconds, n=4)
        table |= {
            f"{name}_ms": middle * 1e3,
            f"{name}_ms_lower_quartile": low * 1e3,
            f"{name}_ms_upper_quartile": high * 1e3,
            f"{name}_peak_memory_bytes": side.peak_memory_bytes,
        }
        if name == "ours":
            continue
        apart = [abs(a - b) / abs(b) for a, b in zip(ours.losses, side.losses, strict=True)]
        table |= {
            f"{name}_largest_loss_error": max(apart),
            f"memory_share_of_{name}": ours.peak_memory_bytes / side.peak_memory_bytes,
            f"times_as_fast_as_{name}": middle / statistics.median(ours.seconds),
        }
    return table


def _table(found: Mapping[str, Mapping[str, float | int | bool]]) -> str:
    lines = ["case           program         ms per step    memory   times as fast   loss error"]
    for name, row in found.items():
        for program in PROGRAMS:
            line = (
                f"{name:14s} {program:14s} {row[f'{program}_ms']:9.1f} "
                f"{row[f'{program}_peak_memory_bytes'] / 1e6:9.0f} MB"
            )
            if program != "ours":
                line += f" {row[f'times_as_fast_as_{program}']:12.2f}"
                line += f"         {row[f'{program}_largest_loss_error']:.1e}"
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
