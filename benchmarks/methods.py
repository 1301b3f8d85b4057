"""Every method beside every other: divergence from the original, size, and minutes.

    python -m benchmarks.methods [--model tinystories] [--out FILE.json]

Runs the original once over its calibration text (one statistics pass serves all methods), rounds
it with each method, width and group size, and compares the result with the original on held-out
text in ONNX Runtime (3 bits: in the reference engine, as ONNX Runtime has no kernel for them).
Widths hold for all matrices, the embedding included. Nothing is drawn by chance, so a run gives the
same figures again but for the seconds.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from examples.house_assistant.evaluate import CALIBRATION

from onhand.core.arrays import FloatArray
from onhand.core.bundle import read_bundle
from onhand.core.measurement import Measurement
from onhand.core.progress import Quiet
from onhand.device.opening import open_engine
from onhand.device.text_files import parse_text_files
from onhand.device.threads import usable_threads
from onhand.host.awq import scale_inputs
from onhand.host.calibrate import InputStatistics, head_logits, run_original
from onhand.host.compare import compare_tokens, quality_figures
from onhand.host.distil import distil_matrices
from onhand.host.model import Model
from onhand.host.pack import VariantPlan, pack_bundle, plan_variants
from onhand.host.passes.quantize import Quantize
from onhand.host.sources import load_model
from onhand.host.texts import Texts, split_texts
from onhand.host.work import FinishedMatrices

__all__ = ["main"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
MODELS = {
    "tinystories": (
        ASSETS / "tinystories-656k",
        ASSETS / "tinystories-text" / "tinystories_sample.txt",
    ),
    "house-assistant": (Path("examples/house_assistant/model"), CALIBRATION),
}
BEST_ROUNDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all methods share."""

    model: Model
    texts: Texts
    statistics: InputStatistics
    hidden: list[FloatArray]
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one setting gave."""

    bits_per_weight: float
    engine: str
    seconds: float
    figures: Mapping[str, Measurement]

    def to_json(self) -> dict[str, object]:
        """Return a JSON object."""
        figures = {
            name: {"value": one.value, "interval": one.interval, "samples": one.samples}
            for name, one in self.figures.items()
        }
        return {
            "bits_per_weight": self.bits_per_weight,
            "engine": self.engine,
            "seconds": self.seconds,
            "figures": figures,
        }


def settings() -> Iterator[tuple[str, Quantize]]:
    """Yield a name and a pass for each row of the table."""
    for bits in (8, 4, 3, 2):
        for method in ("rtn", "hqq", "clip", "awq", "gptq", "awq+gptq"):
            yield f"{method} {bits}", Quantize(bits=bits, method=method)
        if bits < 8:
            yield f"best {bits}", Quantize(bits=bits, method="gptq", distil=BEST_ROUNDS)
    for method in ("rtn", "hqq", "clip", "gptq"):
        for group in (64, 128):
            yield f"{method} 4 g{group}", Quantize(method=method, group_size=group)
        yield f"{method} 4 asymmetric", Quantize(method=method, symmetric=False)
    yield "gptq 4, embedding 8", Quantize(method="gptq", embed_bits=8)
    yield "gptq 3, embedding 8", Quantize(method="gptq", bits=3, embed_bits=8)


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--only", help="settings whose name begins so")
    parser.add_argument("--out", type=Path, default=Path("out/methods.json"))
    given = parser.parse_args()
    results: dict[str, object] = {
        "command": "python -m benchmarks.methods",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": usable_threads(),
    }
    for name in given.model or list(MODELS):
        folder, text = MODELS[name]
        if not folder.is_dir():
            print(f"{folder} is absent: set ONHAND_ASSETS to the folder of models and data")
            continue
        started = time.perf_counter()
        ground = prepare(folder, text)
        seconds = time.perf_counter() - started
        rows: dict[str, object] = {}
        print(f"\n{name}: one pass over {ground.statistics.n_tokens} tokens took {seconds:.1f} s")
        for setting, transform in settings():
            if given.only is None or setting.startswith(given.only):
                row = measure(ground, transform)
                rows[setting] = row.to_json()
                print(line(setting, row), flush=True)
        results[name] = {
            "calibration_tokens": ground.texts.calibration.n_tokens,
            "heldout_tokens": ground.texts.heldout.n_tokens,
            "statistics_s": seconds,
            "settings": rows,
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def prepare(folder: Path, text: Path) -> Ground:
    """Run the original over both texts."""
    model = load_model(str(folder))
    tokenizer = parse_text_files(model.files, where=folder.name).tokenizer
    texts = split_texts(tokenizer, text, model.decoder, max_tokens=65536)
    run = run_original(
        model,
        calibration=texts.calibration.sequences,
        heldout=texts.heldout.sequences,
        progress=Quiet(),
        whole=True,
    )
    return Ground(
        model=model,
        texts=texts,
        statistics=run.statistics,
        hidden=run.hidden,
        threads=usable_threads(),
    )


def measure(ground: Ground, transform: Quantize) -> Row:
    """Round, pack, reopen and compare."""
    started = time.perf_counter()
    model, statistics = ground.model, ground.statistics
    (plan,) = plan_variants(model.decoder, {"v": transform})
    if plan.report.scales_inputs:
        model, statistics = scale_inputs(
            model, statistics, plan.report.formats, advance=lambda _: None
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()

        def refine(made: VariantPlan, finished: FinishedMatrices) -> FinishedMatrices:
            if not made.report.rounds:
                return finished
            trained = FinishedMatrices(Path(scratch) / "trained")
            own = [name for name in made.own if name in finished]
            distil_matrices(
                ground.model,
                model,
                finished,
                own,
                trained,
                ground.texts.calibration.sequences,
                rounds=made.report.rounds,
                threads=ground.threads,
                advance=lambda _: None,
            )
            return trained

        pack_bundle(
            model,
            [plan],
            statistics,
            folder,
            accuracy_level=4,
            provenance={},
            threads=ground.threads,
            progress=Quiet(),
            refine=refine,
        )
        seconds = time.perf_counter() - started
        engine, figures = _judge(ground, folder)
    shapes = model.decoder.matrices()
    stored = sum(form.size_bytes(shapes[n]) for n, form in plan.report.formats.items() if form)
    return Row(
        bits_per_weight=8 * stored / sum(n * k for n, k in shapes.values()),
        engine=engine,
        seconds=seconds,
        figures=figures,
    )


def _judge(ground: Ground, folder: Path) -> tuple[str, Mapping[str, Measurement]]:
    """Compare a bundle with the original; return the engine's name and the figures."""
    loaded, engine, _ = open_engine(
        read_bundle(folder), variant="v", engine=None, threads=ground.threads
    )
    tokens = compare_tokens(
        loaded,
        ground.texts.heldout.sequences,
        ground.hidden,
        head_logits(ground.model),
        progress=Quiet(),
        what="comparing",
    )
    loaded.close()
    return engine, quality_figures(tokens, how="")


def line(setting: str, row: Row) -> str:
    """Return a row of the table."""
    kl, increase, top1, flips = (
        row.figures[name]
        for name in ("kl_divergence", "perplexity_increase", "top1_agreement", "flip_rate")
    )
    low, high = kl.interval or (0.0, 0.0)
    return (
        f"{setting:22} {row.bits_per_weight:5.2f} bits  KL {kl.value:.4f} ({low:.4f} to {high:.4f})"
        f"  perplexity {increase.value * 100:+7.2f} %  top-1 {top1.value:.1%}"
        f"  flips {flips.value:.1%}  {row.seconds:6.1f} s  {row.engine}"
    )


if __name__ == "__main__":
    main()
