"""A training step on the device beside one of PyTorch in eager mode: time, memory, the same losses.

    python -m benchmarks.train_step [--cases llama-6x288,smollm2-135m] [--json]
    python -m benchmarks.train_step --out benchmarks/results/train_step.json

A step is: loss and gradients of the factors of low rank of one batch, and AdamW. Ours is ONNX
Runtime on the lesson of a bundle, and the device's numpy optimizer; the other is PyTorch with a
decoder written for it (`benchmarks.train_step_torch`: fused attention and norms), `torch.optim.AdamW`
and the numbers that the bundle's codes stand for, in float32. Both learn the same texts from the
same start with the same number of threads, each in a process of its own, and take turns round by
round; losses of all steps are compared. Memory is the process's peak, interpreter and packages
included.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import Worker
from benchmarks.train_step_work import CASES, Case, write_case
from onhand.device.threads import usable_threads

__all__ = ["main"]

_WORK = Path(__file__).with_name("train_step_work.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What one process found.

    Attributes:
        seconds: of each step that was timed.
        losses: of every step, those that warmed up included.
        peak_memory_bytes: of the process.
        modules: whether torch was imported.
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
    parser.add_argument("--work", type=Path, help="keeps the bundles; without it, a temporary folder")
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
    ours, theirs = _sides(case, folder, rounds, n_steps, threads)
    return figures(ours, theirs)


def _sides(
    case: Case, folder: Path, rounds: int, n_steps: int, threads: int
) -> tuple[Side, Side]:
    """Let both processes take turns."""
    sides: dict[str, dict[str, list[Any]]] = {
        name: {"seconds": [], "losses": []} for name in ("ours", "torch")
    }
    ends: dict[str, dict[str, Any]] = {}
    with (
        Worker("ours", folder, threads, script=_WORK) as ours,
        Worker("torch", folder, threads, script=_WORK) as torch,
    ):
        both = {"ours": ours, "torch": torch}
        for name, worker in both.items():
            warm = worker.ask(case=case.name, steps=2)
            sides[name]["losses"] += warm["losses"]
        for number in range(rounds):
            for name in sorted(both, reverse=bool(number % 2)):
                found = both[name].ask(case=case.name, steps=n_steps)
                sides[name]["seconds"] += found["seconds"]
                sides[name]["losses"] += found["losses"]
        for name, worker in both.items():
            ends[name] = worker.close()
    made = [
        Side(
            seconds=sides[name]["seconds"],
            losses=sides[name]["losses"],
            peak_memory_bytes=ends[name]["peak_memory_bytes"],
            torch_imported=ends[name]["torch_imported"],
        )
        for name in both
    ]
    return made[0], made[1]


def figures(ours: Side, theirs: Side) -> dict[str, float | int | bool]:
    """Return plain numbers.

    Args:
        ours: what our process found.
        theirs: what PyTorch's did.
    """
    apart = [abs(a - b) / abs(b) for a, b in zip(ours.losses, theirs.losses, strict=True)]
    table: dict[str, float | int | bool] = {
        "first_loss": ours.losses[0],
        "largest_loss_error": max(apart),
        "last_loss": ours.losses[-1],
        "n_steps": len(ours.seconds),
        "times_as_fast": statistics.median(theirs.seconds) / statistics.median(ours.seconds),
        "memory_share": ours.peak_memory_bytes / theirs.peak_memory_bytes,
        "torch_imported": ours.torch_imported,
    }
    for name, side in (("ours", ours), ("torch", theirs)):
        low, middle, high = statistics.quantiles(side.seconds, n=4)
        table |= {
            f"{name}_ms": middle * 1e3,
            f"{name}_ms_lower_quartile": low * 1e3,
            f"{name}_ms_upper_quartile": high * 1e3,
            f"{name}_peak_memory_bytes": side.peak_memory_bytes,
        }
    return table


def _table(found: Mapping[str, Mapping[str, float | int | bool]]) -> str:
    lines = ["case            ours      torch     times as fast  memory: ours  torch   loss error"]
    for name, row in found.items():
        lines.append(
            f"{name:14s} {row['ours_ms']:6.1f} ms {row['torch_ms']:6.1f} ms "
            f"{row['times_as_fast']:10.2f}    {row['ours_peak_memory_bytes'] / 1e6:9.0f} MB "
            f"{row['torch_peak_memory_bytes'] / 1e6:6.0f} MB   {row['largest_loss_error']:.1e}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
