"""A network for small pictures, pruned, distilled and quantised: what each step gives and takes.

    python -m benchmarks.small_pictures --network DIR --data FILE.zip [--out FILE.json]

`DIR` is what `python -m examples.small_pictures.train` wrote. Builds one bundle in int8 alone, one
by the recipe `recipes/networks/small-pictures.toml`, and one by the same without distillation; each
learns from the training pictures and is judged on the test pictures. Then all of them, and the
original in PyTorch, answer one picture at a time, taking turns.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from examples.small_pictures.data import read_zip

import onhand
from onhand.core.plugins import NETWORK_PASSES, load_plugin
from onhand.core.recipe import parse_recipe
from onhand.device.report_data import parse_report
from onhand.device.threads import usable_threads
from onhand.host.networks.graph import Array
from onhand.host.networks.onnx_files import read_onnx
from onhand.host.networks.steps import Step

RECIPE = Path(__file__).parents[1] / "recipes" / "networks" / "small-pictures.toml"
RUNS = 100  # in a row, before the next one's turn


def main() -> None:
    """Build, judge and time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("out/small_pictures.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for split in ("train", "test"):
            write_arrays(given.data, split, scratch / f"{split}.npz")
        results = {name: build(name, steps, given, scratch) for name, steps in variants().items()}
        times = take_turns(given, scratch, list(results))
    said = {
        "command": f"python -m benchmarks.small_pictures --rounds {given.rounds}",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": usable_threads(),
        "variants": results,
        "latency_s": times,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
    for name, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4, method="inclusive")
        print(f"{name}: {middle * 1e3:.3f} ms ({low * 1e3:.3f} to {high * 1e3:.3f})")


def variants() -> dict[str, tuple[Step, ...]]:
    """Return what is built: name -> steps."""
    recipe = parse_recipe(
        RECIPE.read_text(encoding="utf-8"), passes=lambda name: load_plugin(NETWORK_PASSES, name)
    )
    steps = tuple(Step(step) for step in recipe.steps)  # type: ignore[arg-type]  # of that group
    return {
        "int8": steps[-1:],
        "pruned, not distilled": tuple(s for s in steps if s.transform.name != "distil"),
        "small": steps,
    }


def write_arrays(data: Path, split: str, path: Path) -> None:
    """Write pictures as the network takes them."""
    import torch
    from examples.small_pictures.train import normalized

    pictures = read_zip(data, split)
    arrays = [
        normalized(torch.from_numpy(pictures.pixels[low : low + 1000])).float().numpy()
        for low in range(0, len(pictures), 1000)
    ]
    np.savez(path, picture=np.concatenate(arrays), labels=pictures.labels)


def build(
    name: str, steps: tuple[Step, ...], given: argparse.Namespace, scratch: Path
) -> dict[str, object]:
    """Build one bundle; return its figures and its steps."""
    begun = time.perf_counter()
    made = onhand.build_network(
        given.network / "model.onnx",
        scratch / name.replace(", ", "-").replace(" ", "-"),
        task="image-classification",
        data=scratch / "train.npz",
        heldout=scratch / "test.npz",
        calibration_examples=20_000,
        labels=given.network / "labels.txt",
        variants={"small": steps},
        home=scratch / "home",
    )
    report = parse_report(made.report)
    figures = report.variants["small"].figures
    print(
        f"{name}: {figures['accuracy'].value:.2%} of {figures['accuracy'].samples}, "
        f"original {figures['original_accuracy'].value:.2%}, "
        f"{figures['size_bytes'].value / 1e3:.0f} kB, {report.engine.name}, "
        f"{time.perf_counter() - begun:.0f} s",
        flush=True,
    )
    return {
        "figures": {key: figure.to_json() for key, figure in figures.items()},
        "original_bytes": report.source.size_bytes,
        "steps": made.report["steps"],
        "seconds": time.perf_counter() - begun,
        "engine": report.engine.name,
    }


def take_turns(
    given: argparse.Namespace, scratch: Path, names: list[str]
) -> dict[str, list[float]]:
    """Time one picture in each bundle's fastest engine, and the original in PyTorch."""
    picture = np.load(scratch / "test.npz")["picture"][:1]
    runs: dict[str, Callable[[], object]] = {"original, PyTorch": eager(given, picture)}
    for name in names:
        place = scratch / name.replace(", ", "-").replace(" ", "-")
        session = onhand.open_network(place, home=scratch / "home")
        runs[name] = lambda session=session: session.run({"picture": picture})  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, run in runs.items():
            run()
            begun = time.perf_counter()
            for _ in range(RUNS):
                run()
            taken[name].append((time.perf_counter() - begun) / RUNS)
    return taken


def eager(given: argparse.Namespace, picture: Array) -> Callable[[], object]:
    """Return a run of the original in plain PyTorch."""
    import torch

    from onhand.host.networks.torch_graph import TorchGraph

    module = TorchGraph(read_onnx(given.network / "model.onnx")).eval()
    torch.set_num_threads(usable_threads())

    def run() -> object:
        with torch.no_grad():
            return module({"picture": torch.from_numpy(picture)})

    return run


if __name__ == "__main__":
    main()
