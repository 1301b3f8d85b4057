"""The cost model beside the clock: what it says of bundles, and what `onhand bench` then finds.

    python -m benchmarks.costs [--models house-assistant,tinystories,135m] [--points 12]
        [--threads 1,2] [--runs 5] [--processor-time] [--json]
        [--out benchmarks/results/costs.json] [--document docs/costs.md]

Calibrates first (half a minute, products and steps of small models; nothing of the models that
are judged), then builds every model in formats that differ by the bits of some layers, by group
size, by the bits of the embedding, and measures each with several lengths of prompt and numbers of
threads. Each forecast is told the memory bandwidth that `bench` measured beside its run and how
fast the processor was then (a small product and a step of a very small model, timed before and
after every answer: shared processors are slower by a half from one second to the next), and
nothing else of it. Answers are timed in this process, between these; what `bench` found and what a
forecast says of the usual speed is kept as well. Prints the median of the absolute relative errors
by model and figure. With --processor-time, for machines that others keep busy, one thread is
judged by the processor time that it took; what opening takes is then not judged. The folder of
`ONHAND_ASSETS` has `tinystories-656k` and `tokenizers`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil

from benchmarks.costs_beside import between, timed_rounds
from benchmarks.shapes import make_checkpoint
from onhand.core.progress import Quiet
from onhand.device.bench import bench
from onhand.device.hardware.native_part import native_part
from onhand.device.probe import current_profile
from onhand.device.threads import usable_threads
from onhand.host.calibrate import InputStatistics
from onhand.host.costs.calibration import Calibration
from onhand.host.costs.decoders import FIGURES, DecoderCosts
from onhand.host.costs.measuring import measure_calibration
from onhand.host.costs.speed import SpeedGauge
from onhand.host.costs.text import text_ratio
from onhand.host.model import Model
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.quantize import Quantize
from onhand.host.sources import load_model

__all__ = ["main"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
_FIGURES, _END = "<!-- figures -->", "<!-- end of figures -->"
_OPENING: Final = ("load_s", "cold_start_s", "energy_j_per_token")
MODELS: Final = ("house-assistant", "tinystories", "135m")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One format, and one way to run it."""

    name: str
    quantize: Quantize
    prompt: int
    threads: int


def main() -> None:
    """Run the benchmark; print a table, or with --json the results alone."""
    given = _arguments()
    if given.document is not None:
        _write_document(given.document, json.loads(given.out.read_text())["models"])
        return
    begun = time.perf_counter()
    calibration = measure_calibration(current_profile())
    results = {
        "command": " ".join(["python -m benchmarks.costs", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "calibration": calibration.to_json(),
        "calibration_s": time.perf_counter() - begun,
    }
    models: dict[str, object] = {}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        gauge = SpeedGauge(native_part(), Path(scratch))
        for name in given.models:
            points = _points(given.points, [1] if given.processor_time else given.threads)
            judge = Judge(calibration, gauge, Path(scratch) / name, given)
            rows = list(judge.rows(name, points))
            models[name] = {"points": rows, "errors": _errors(rows)}
            # After each model: what is there stays, whatever becomes of the next.
            given.out.write_text(json.dumps(results | {"models": models}, indent=1) + "\n")
        gauge.close()
    print(json.dumps(results | {"models": models}, indent=1) if given.json else _table(models))


def _write_document(path: Path, models: Mapping[str, object]) -> None:
    """Put a table of the errors between the marks of a document."""
    before, _, rest = path.read_text().partition(_FIGURES)
    _, _, after = rest.partition(_END)
    path.write_text(f"{before}{_FIGURES}\n{_table(models)}\n{_END}{after}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument(
        "--threads",
        type=lambda text: [int(word) for word in text.split(",")],
        default=sorted({1, usable_threads()}),
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--document", type=Path, help="write --out's table here, and no more")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/costs.json"))
    return parser.parse_args()


def _points(n: int, threads: list[int]) -> list[Point]:
    """Return formats and ways to run them; all that a choice can change changes among them."""
    made = [
        ("4 bits, groups of 32", Quantize(method="rtn"), 512),
        ("4 bits, groups of 32", Quantize(method="rtn"), 64),
        ("4 bits, groups of 128, embedding 8", _mixed(4, 128, embed=8), 512),
        ("8 bits, groups of 32", _mixed(8, 32), 384),
        ("8 bits, groups of 32", _mixed(8, 32), 16),
        ("2 bits, groups of 32, embedding 4", _mixed(2, 32, embed=4), 512),
        ("3 bits, groups of 64, zero points", _mixed(3, 64, symmetric=False), 256),
        ("3 bits, groups of 64, zero points", _mixed(3, 64, symmetric=False), 32),
        ("4 bits, down 8", _mixed(4, 32, others={"layers.*.down": 8}), 512),
        ("4 bits, first layers 8, MLP 2", _mixed(2, 64, embed=4, others=_ENDS), 256),
        (
            "4 bits, zero points, attention 8",
            _mixed(4, 64, symmetric=False, others=_ATTENTION),
            512,
        ),
        ("8 bits, MLP 4, groups of 128", _mixed(8, 128, others=_MLP), 128),
    ]
    return [
        Point(name=name, quantize=how, prompt=prompt, threads=threads[i % len(threads)])
        for i, (name, how, prompt) in enumerate(made[:n])
    ]


_ENDS: Final = {"layers.0.*": 8, "layers.*.qkv": 4, "layers.*.out": 4}
_ATTENTION: Final = {"layers.*.qkv": 8, "layers.*.out": 8}
_MLP: Final = {"layers.*.gate_up": 4, "layers.*.down": 4}


def _mixed(
    bits: int,
    group: int,
    *,
    embed: int = 0,
    symmetric: bool = True,
    others: Mapping[str, int] = MappingProxyType({}),
) -> Quantize:
    return Quantize(
        method="rtn",
        bits=bits,
        group_size=group,
        embed_bits=embed,
        symmetric=symmetric,
        layers={pattern: {"bits": width} for pattern, width in others.items()},
    )


@dataclass(frozen=True, slots=True)
class Judge:
    """Builds points, measures them, and sets beside them what is said of them."""

    calibration: Calibration
    gauge: SpeedGauge
    scratch: Path
    given: argparse.Namespace

    def rows(self, name: str, points: list[Point]) -> Iterator[dict[str, object]]:
        """Yield forecast and measurement of each point of a model."""
        self.scratch.mkdir()
        model = _load(name, self.scratch)
        made: dict[str, Path] = {}
        for point in points:
            if point.name not in made:
                made[point.name] = self.scratch / f"bundle-{len(made)}"
                _build(model, point.quantize, made[point.name])
            note = f"{name}: {point.name}, {point.threads} threads, prompt {point.prompt}"
            print(note, file=sys.stderr, flush=True)
            yield self._row(model, point, made[point.name])

    def _row(self, model: Model, point: Point, place: Path) -> dict[str, object]:
        prompt, answer = _lengths(model, point)
        busy = _Others()
        before = self.gauge.best(1)
        found = bench(
            place,
            engine="native",
            prompt_tokens=prompt,
            generated_tokens=answer,
            threads=point.threads,
            runs=self.given.runs,
        )
        opening = between(before, self.gauge.best(1))
        rounds = timed_rounds(
            place,
            self.gauge,
            prompt=prompt,
            answer=answer,
            threads=point.threads,
            clock=time.thread_time if self.given.processor_time else time.perf_counter,
        )
        bandwidth = found["read_bandwidth"].value
        usual = self._said(model, point, self.calibration, bandwidth)
        opened = self._said(model, point, self.calibration.at_speed(opening), bandwidth)
        judged = [
            (one, self._said(model, point, self.calibration.at_speed(one.speed), bandwidth))
            for one in rounds
        ]
        figures: dict[str, object] = {}
        for figure in FIGURES:
            if figure in _OPENING and self.given.processor_time:
                continue
            pairs = [(opened[figure], found[figure].value)]
            if figure in rounds[0].figures:
                pairs = [(said[figure], one.figures[figure]) for one, said in judged]
            figures[figure] = {
                "forecast": statistics.median(said for said, _ in pairs),
                "measured": statistics.median(value for _, value in pairs),
                "relative_error": statistics.median(said / value - 1 for said, value in pairs),
                "by_bench": found[figure].value,
                "spread_of_bench": found[figure].spread,
                "forecast_of_usual_speed": usual[figure],
            }
        return {
            "name": point.name,
            "threads": point.threads,
            "prompt_tokens": prompt,
            "others_share": busy.share(),
            "read_bandwidth": bandwidth,
            "step_beside_usual": statistics.median(one.speed.step_s for one in rounds)
            / self.calibration.speed.step_s,
            "figures": figures,
        }

    def _said(
        self, model: Model, point: Point, calibration: Calibration, read_bandwidth: float
    ) -> dict[str, float]:
        """Say what a point costs; of what was measured, only speeds are known."""
        bandwidth = list(calibration.read_bandwidth)
        bandwidth[point.threads - 1] = read_bandwidth
        costs = DecoderCosts(
            model.decoder,
            replace(current_profile(), read_bandwidth=tuple(bandwidth)),
            other_bytes=sum(len(content) for content in model.files.values()),
            threads=point.threads,
            calibration=calibration,
            text_ratio=_text_ratio(model.files["tokenizer.json"]),
        )
        formats = point.quantize.plan(model.decoder).formats
        prompt, answer = _lengths(model, point)
        return costs.whole(formats, prompt_tokens=prompt, generated_tokens=answer).figures()


def _lengths(model: Model, point: Point) -> tuple[int, int]:
    """Return tokens of prompt and answer that fit the context."""
    prompt = min(point.prompt, model.decoder.context - 32)
    return prompt, min(128, model.decoder.context - min(point.prompt, 480))


@cache
def _text_ratio(tokenizer: bytes) -> float:
    return text_ratio(tokenizer)


def _load(name: str, scratch: Path) -> Model:
    if name == "house-assistant":
        return load_model("examples/house_assistant/model")
    if name == "tinystories":
        return load_model(str(_asset("tinystories-656k")))
    place = scratch / "source"
    make_checkpoint(
        "smollm2-135m", place, tokenizer=_asset("tokenizers") / "smollm2" / "tokenizer.json"
    )
    return load_model(str(place))


def _asset(name: str) -> Path:
    if not (place := ASSETS / name).exists():
        sys.exit(f"{place} is absent: set ONHAND_ASSETS to the folder of models and data")
    return place


def _build(model: Model, how: Quantize, place: Path) -> None:
    place.mkdir()
    pack_bundle(
        model,
        plan_variants(model.decoder, {"judged": how}),
        InputStatistics(),
        place,
        accuracy_level=4,
        provenance={},
        threads=usable_threads(),
        progress=Quiet(),
    )


class _Others:
    """How much of the processors other processes take."""

    def __init__(self) -> None:
        self._before = self._now()

    def share(self) -> float:
        """Return it since this was made, of all processors' time."""
        total, others = (now - then for now, then in zip(self._now(), self._before, strict=True))
        return max(0.0, others / total)

    def _now(self) -> tuple[float, float]:
        times = psutil.cpu_times()
        busy = times.user + times.system + times.nice + getattr(times, "steal", 0.0)
        mine = os.times()
        own = mine.user + mine.system + mine.children_user + mine.children_system
        return busy + times.idle, busy - own


def _errors(rows: list[dict[str, object]]) -> dict[str, float]:
    judged = [figure for figure in FIGURES if figure in rows[0]["figures"]]  # type: ignore[operator]
    return {
        figure: statistics.median(
            abs(float(row["figures"][figure]["relative_error"]))  # type: ignore[index]
            for row in rows
        )
        for figure in judged
    }


def _table(models: Mapping[str, object]) -> str:
    """Lay the medians of the errors out, a row for each model."""
    lines: list[str] = []
    for name, found in models.items():
        errors = found["errors"]  # type: ignore[index]
        if not lines:
            lines += ["| model | " + " | ".join(errors) + " |", "|---" * (len(errors) + 1) + "|"]
        lines.append(f"| {name} | " + " | ".join(f"{one:.1%}" for one in errors.values()) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
