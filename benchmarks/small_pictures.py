"""A network for small pictures, pruned, distilled and quantised: what each step gives and takes.

    python -m benchmarks.small_pictures --network DIR --data FILE.zip [--bundles DIR] [--judge]

`DIR` of `--network` is what `python -m examples.small_pictures.train` wrote. Builds bundles of the
network as it is, in int8 alone, by the recipe `recipes/networks/small-pictures.toml`, and by parts
of it; each learns from the training pictures and is judged on the test pictures. What lies in
`--bundles` already is not built again, and a build that was interrupted goes on; `--judge` judges
those bundles once more. Then all of them, each in every engine, and the original in PyTorch, answer
one picture at a time, taking turns; the quickest engine counts for each.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, cast

import numpy as np
from examples.small_pictures.data import read_zip

from onhand.core.bundle import REPORT, read_bundle
from onhand.core.measurement import Measurement
from onhand.core.plugins import NETWORK_PASSES, load_plugin
from onhand.core.recipe import parse_recipe
from onhand.device.networks.opening import able_engines
from onhand.device.networks.session import open_session
from onhand.device.probe import current_profile
from onhand.device.report_data import parse_report
from onhand.device.report_records import Report
from onhand.device.threads import usable_threads
from onhand.host.networks.build import build_network
from onhand.host.networks.evaluate import evaluate_network
from onhand.host.networks.graph import Array
from onhand.host.networks.onnx_files import read_onnx
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.steps import Step

RECIPE: Final = Path(__file__).parents[1] / "recipes" / "networks" / "small-pictures.toml"
EAGER: Final = "original, PyTorch"
PLAIN, WHOLE = "int8", "pruned, distilled, int8"
RUNS: Final = 30  # in a row, before the next one's turn
VARIANT: Final = "small"


def main() -> None:
    """Build, judge and time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundles", type=Path, default=Path("out/small_pictures"))
    parser.add_argument("--judge", action="store_true", help="judge bundles that lie there again")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--out", type=Path, default=Path("out/small_pictures.json"))
    given = parser.parse_args()
    given.bundles.mkdir(parents=True, exist_ok=True)
    results = {name: one_bundle(name, steps, given) for name, steps in variants().items()}
    times = take_turns(given, list(results))
    said = {
        "command": "python -m benchmarks.small_pictures --network DIR --data FILE.zip "
        f"--rounds {given.rounds} --threads {given.threads}",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": given.threads,
        "variants": results,
        "latency_s": times,
        "ratios": ratios(times),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")
    for line in (*told(results, times), "", *table(results, times)):
        print(line)


def variants() -> dict[str, tuple[Step, ...]]:
    """Return what is built: name -> steps."""
    recipe = parse_recipe(
        RECIPE.read_text(encoding="utf-8"), passes=lambda name: load_plugin(NETWORK_PASSES, name)
    )
    steps = tuple(Step(step) for step in recipe.steps)  # type: ignore[arg-type]  # of that group
    return {
        "as it is": (),
        PLAIN: steps[-1:],
        "pruned": steps[:1],
        "pruned, int8": tuple(step for step in steps if step.transform.name != "distil"),
        WHOLE: steps,
    }


def place_of(name: str, given: argparse.Namespace) -> Path:
    """Return the folder of a bundle."""
    folder: Path = given.bundles
    return folder / name.replace(", ", "-").replace(" ", "-")


def one_bundle(name: str, steps: tuple[Step, ...], given: argparse.Namespace) -> dict[str, object]:
    """Build a bundle if it is not there; return its figures and its steps.

    Args:
        name: of the variant.
        steps: of it.
        given: the command's options.

    Raises:
        ValueError: if a bundle is there that other steps made.
    """
    root = place_of(name, given)
    is_new = not root.exists()
    if is_new:
        build(root, steps, given)
    report = parse_report(json.loads((root / REPORT).read_text(encoding="utf-8")))
    if [step.name for step in report.steps[VARIANT]] != [step.transform.name for step in steps]:
        raise ValueError(f"{root} was made by other steps than the recipe's: remove it")
    figures: Mapping[str, Measurement] = report.variants[VARIANT].figures
    if given.judge and not is_new:
        figures = {**figures, **judged(root, given)}
    said(name, figures, report)
    return {
        "figures": {key: figure.to_json() for key, figure in figures.items()},
        "original_bytes": report.source.size_bytes,
        "steps": [asdict(step) for step in report.steps[VARIANT]],
        "engine": report.engine.name,
        "is_new": is_new,
    }


def build(root: Path, steps: tuple[Step, ...], given: argparse.Namespace) -> None:
    """Build one bundle, or go on where that was interrupted."""
    options = NetworkOptions(
        task="image-classification",
        variants={VARIANT: steps},
        data=arrays("train", given),
        heldout=arrays("test", given),
        n_calibration=20_000,
        labels=given.network / "labels.txt",
        threads=given.threads,
        measure_original=False,
        resume=root.with_name(f"{root.name}.building").exists(),
    )
    build_network(str(given.network / "model.onnx"), root, options, home=given.bundles / "home")


def judged(root: Path, given: argparse.Namespace) -> dict[str, Measurement]:
    """Compare a bundle with the original once more."""
    return evaluate_network(
        root,
        arrays("test", given),
        original=given.network / "model.onnx",
        variant=None,
        engine=None,
        threads=given.threads,
        home=given.bundles / "home",
    )


def arrays(split: str, given: argparse.Namespace) -> Path:
    """Return a file of pictures as the network takes them, written once."""
    import torch
    from examples.small_pictures.train import normalized

    path: Path = given.bundles / f"{split}.npz"
    if not path.exists():
        pictures = read_zip(given.data, split)
        parts = [
            normalized(torch.from_numpy(pictures.pixels[low : low + 1000])).float().numpy()
            for low in range(0, len(pictures), 1000)
        ]
        np.savez(path, picture=np.concatenate(parts), labels=pictures.labels)
    return path


def take_turns(given: argparse.Namespace, names: list[str]) -> dict[str, dict[str, list[float]]]:
    """Time one picture in each bundle and engine, and in the original in PyTorch.

    Args:
        given: the command's options.
        names: of the bundles.

    Returns:
        Name -> engine -> seconds of one run, one number for each round.
    """
    # What is seen makes no difference to the time.
    picture = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    profile = current_profile()
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    with ExitStack() as opened:
        for name in names:
            root = place_of(name, given)
            for engine in able_engines(read_bundle(root), profile)[0]:
                session = opened.enter_context(
                    open_session(root, engine=engine, threads=given.threads)
                )
                runs[name, engine] = partial(session.run, {"picture": picture})
        runs[EAGER, "torch"] = eager(given, picture)
        taken: dict[str, dict[str, list[float]]] = {}
        for _ in range(given.rounds):
            for (name, engine), run in runs.items():
                run()
                begun = time.perf_counter()
                for _ in range(RUNS):
                    run()
                seconds = (time.perf_counter() - begun) / RUNS
                taken.setdefault(name, {}).setdefault(engine, []).append(seconds)
    return taken


def eager(given: argparse.Namespace, picture: Array) -> Callable[[], object]:
    """Return a run of the original in plain PyTorch."""
    import torch

    from onhand.host.networks.torch_graph import TorchGraph

    module = TorchGraph(read_onnx(given.network / "model.onnx")).eval()
    torch.set_num_threads(given.threads)

    def run() -> object:
        with torch.no_grad():
            return module({"picture": torch.from_numpy(picture)})

    return run


def quickest(times: Mapping[str, list[float]]) -> str:
    """Return the engine of the least median."""
    return min(times, key=lambda engine: statistics.median(times[engine]))


def ratios(times: Mapping[str, Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """Return how many times faster the whole is: quartiles over rounds, each in its fastest engine.

    Args:
        times: see `take_turns`.

    Returns:
        Name of what it is compared with -> lower quartile, median, upper quartile.
    """
    fastest = times[WHOLE][quickest(times[WHOLE])]
    return {
        name: statistics.quantiles(
            [a / b for a, b in zip(engines[quickest(engines)], fastest, strict=True)],
            n=4,
            method="inclusive",
        )
        for name, engines in times.items()
        if name != WHOLE
    }


def said(name: str, figures: Mapping[str, Measurement], report: Report) -> None:
    """Print what a bundle keeps of the original."""
    right, original = figures["accuracy"], figures["original_accuracy"]
    size = figures["size_bytes"].value
    print(
        f"{name}: {right.value:.2%} of {right.samples}, original {original.value:.2%}, "
        f"{size / 1e3:.0f} kB, {report.source.size_bytes / size:.2f} times smaller",
        flush=True,
    )
    for step in report.steps[VARIANT]:
        print(
            f"  {step.name}: {step.size_bytes / 1e3:.0f} kB of constants, "
            f"{step.n_operations / 1e6:.1f} million operations, lost {step.lost:+.2%} by its end, "
            f"{step.seconds:.0f} s"
        )


def told(
    results: Mapping[str, Mapping[str, object]], times: Mapping[str, Mapping[str, list[float]]]
) -> list[str]:
    """Return lines of times and ratios."""
    lines: list[str] = []
    for name in (EAGER, *results):
        for engine, taken in times[name].items():
            low, middle, high = statistics.quantiles(taken, n=4, method="inclusive")
            mark = " *" if engine == quickest(times[name]) else ""
            lines.append(
                f"{name}, {engine}: {middle * 1e3:.3f} ms ({low * 1e3:.3f} to {high * 1e3:.3f}), "
                f"at best {min(taken) * 1e3:.3f}{mark}"
            )
    for name, (low, middle, high) in ratios(times).items():
        lines.append(f"{WHOLE}: {middle:.2f} times ({low:.2f} to {high:.2f}) as fast as {name}")
    return lines


def table(
    results: Mapping[str, Mapping[str, object]], times: Mapping[str, Mapping[str, list[float]]]
) -> list[str]:
    """Return the rows of the page's table."""
    rows = ["| network | right | lost, 95 % interval | kB | engine | one picture, ms |"]
    rows.append("|---|---|---|---|---|---|")
    for name in (EAGER, *results):
        engine = quickest(times[name])
        low, middle, high = statistics.quantiles(times[name][engine], n=4, method="inclusive")
        took = f"{middle * 1e3:.3f} ({low * 1e3:.3f} to {high * 1e3:.3f})"
        rows.append(f"| {name} | {_judgement(results.get(name))} | {engine} | {took} |")
    return rows


def _judgement(result: Mapping[str, object] | None) -> str:
    if result is None:
        return " | | "
    figures = cast(Mapping[str, Mapping[str, float | list[float]]], result["figures"])
    right, lost, size = (
        cast(float, figures[name]["value"]) for name in ("accuracy", "accuracy_loss", "size_bytes")
    )
    low, high = cast(list[float], figures["accuracy_loss"]["interval"])
    return (
        f"{right:.2%} | {100 * lost:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}) | "
        f"{size / 1e3:,.0f}"
    )


if __name__ == "__main__":
    main()
