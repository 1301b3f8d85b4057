"""The house assistant made smaller, with and without distillation, in int4.

    python -m benchmarks.pruned_assistant [--work FOLDER] [--bundles FOLDER] [--out FILE.json]

For each case MLP neurons are taken out by their activations on the example's calibration text.
What stays is rounded to int4 as `onhand build --bits 4` does; and, beside it, trained towards the
original's answers to commands that the example's own generator draws (training phrasings alone),
with its weights rounded to int4 in every step. All of them, and the original in int4, are asked the
1,000 held-out commands and timed in turn in one process. Bundles that are there already are used;
training that was interrupted goes on from its checkpoint in the work folder.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from examples.house_assistant.evaluate import CALIBRATION, HELD_OUT
from examples.house_assistant.generate import read_examples
from examples.house_assistant.train import batch
from tokenizers import Tokenizer

from benchmarks.house_assistant import MODEL, ask
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.measurement import summarize
from onhand.core.progress import Quiet
from onhand.device.generate import generate_tokens
from onhand.device.opening import open_engine
from onhand.device.text_files import parse_text_files
from onhand.host.calibrate import run_original
from onhand.host.model import Model
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.base import ShapeWork
from onhand.host.passes.prune import Prune
from onhand.host.passes.quantize import Quantize
from onhand.host.recover import Training, recover_model
from onhand.host.sources import load_model
from onhand.host.stored_model import has_model, read_model
from onhand.host.texts import split_texts

__all__ = ["CASES", "Case", "Commands", "main"]

VARIANT = "int4"
PROMPT_TOKENS, ANSWER_TOKENS, ROUNDS = 32, 128, 40
ROW_TOKENS, ROWS = 256, 8
_JUDGING = 100_000  # steps from here on are never trained on
_LONG = ("right", "total", "decode_tokens_per_s")  # of the results, left out on the screen


@dataclass(frozen=True, slots=True)
class Commands:
    """Conversations drawn from the example's grammar, new ones for each step. See `Lessons`."""

    tokenizer: Tokenizer
    seed: int = 11

    @property
    def longest(self) -> int:
        """See `Lessons`."""
        return ROW_TOKENS

    def batch(self, step: int) -> tuple[TokenArray, FloatArray]:
        """See `Lessons`: an answer's tokens count wholly, a few of the commands' a little."""
        drawn = batch(
            self.tokenizer, seed=self.seed * 1_000_003 + step, length=ROW_TOKENS, n_rows=ROWS
        )
        weights = np.zeros(drawn.tokens.numel(), dtype=np.float32)
        weights[drawn.places.numpy()] = drawn.weights.numpy()
        return drawn.tokens.numpy(), weights.reshape(drawn.tokens.shape)


class _Said:
    """Prints notes, with the minutes since the beginning. See `Progress`."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def start(self, what: str, total: float) -> None:
        """Print nothing."""

    def advance(self, amount: float) -> None:
        """Print nothing."""

    def note(self, text: str) -> None:
        """Print it."""
        minutes = (time.monotonic() - self._begun) / 60
        sys.stdout.write(f"{minutes:5.1f} min  {text}\n")
        sys.stdout.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How much goes, and how what stays is trained.

    Attributes:
        mlp: share of the MLPs' neurons that go.
        steps: of training.
        rate: its largest.
    """

    mlp: float
    steps: int
    rate: float


CASES = {
    "25 % out": Case(mlp=0.514, steps=200, rate=3e-4),
    "35 % out": Case(mlp=0.72, steps=250, rate=8e-4),
}


class _Maker:
    """Builds what is not there yet."""

    def __init__(self, work: Path, bundles: Path, *, threads: int) -> None:
        self.work, self.bundles, self.threads = work, bundles, threads
        self.model = load_model(str(MODEL))
        tokenizer = parse_text_files(self.model.files, where=str(MODEL)).tokenizer
        self.texts = split_texts(tokenizer, CALIBRATION, self.model.decoder, max_tokens=65536)

    def all(self) -> dict[str, Path]:
        """Return the folder of every bundle, by what it is called in results."""
        found = {"original": self._bundle("original", lambda: self.model)}
        for name, case in CASES.items():
            pruned, distilled = (f"{name}, {what}" for what in ("not trained", "distilled"))
            found[pruned] = self._bundle(f"pruned-{case.mlp}", partial(self._pruned, case))
            found[distilled] = self._bundle(f"distilled-{case.mlp}", partial(self._distilled, case))
        return found

    def _pruned(self, case: Case) -> Model:
        folder = self.work / f"pruned-{case.mlp}"
        if has_model(folder):
            return read_model(folder, self.model)
        work = ShapeWork(
            original=self.model,
            calibration=self.texts.calibration.sequences,
            training=(),
            folder=folder,
            threads=self.threads,
            progress=_Said(),
        )
        return Prune(mlp=case.mlp).shape(self.model, work)

    def _distilled(self, case: Case) -> Model:
        pruned = self._pruned(case)
        folder = self.work / f"distilled-{case.mlp}-{case.steps}-{case.rate}"
        told = self.bundles / f"distilled-{case.mlp}.training.json"
        if has_model(folder) and told.is_file():
            return read_model(folder, self.model)
        commands = Commands(Tokenizer.from_file(str(MODEL / "tokenizer.json")))
        formats = Quantize().plan(pruned.decoder).formats
        begun = time.monotonic()
        found = recover_model(
            self.model,
            pruned,
            commands,
            [commands.batch(_JUDGING + number) for number in range(4)],
            training=Training(steps=case.steps, rate=case.rate),
            folder=folder,
            threads=self.threads,
            progress=_Said(),
            forms={name: form for name, form in formats.items() if form is not None},
        )
        about = {
            "steps": case.steps,
            "rate": case.rate,
            "minutes": (time.monotonic() - begun) / 60,
            "n_tokens": found.n_tokens,
            "divergence_before": found.before,
            "divergence_after": found.after,
        }
        told.write_text(json.dumps(about, indent=1) + "\n")
        return found.model

    def _bundle(self, name: str, make: Callable[[], Model]) -> Path:
        """Round a model as `onhand build --bits 4` does; what is rounded already stays so."""
        place = self.bundles / name
        if place.exists():
            return place
        model = make()
        sequences = self.texts.calibration.sequences
        run = run_original(model, calibration=sequences, heldout=(), progress=Quiet())
        beside = self.bundles / f"{name}.new"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        pack_bundle(
            model,
            plan_variants(model.decoder, {VARIANT: Quantize()}),
            run.statistics,
            beside,
            accuracy_level=4,
            provenance={},
            threads=self.threads,
            progress=Quiet(),
        )
        beside.replace(place)
        return place


def main() -> None:
    """Build what is missing, ask, time, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("out/pruned_assistant"))
    parser.add_argument("--bundles", type=Path, help="keeps the bundles; in the work folder else")
    parser.add_argument("--out", type=Path, default=Path("out/pruned_assistant.json"))
    given = parser.parse_args()
    folder = given.bundles or given.work / "bundles"
    folder.mkdir(parents=True, exist_ok=True)
    places = _Maker(given.work, folder, threads=given.threads).all()
    bundles = {name: read_bundle(place) for name, place in places.items()}
    examples = list(read_examples(HELD_OUT))
    speeds = _speeds(bundles, given.threads)
    results: dict[str, dict[str, object]] = {}
    for name, bundle in bundles.items():
        decoder, told = bundle.manifest.decoder, folder / f"{places[name].name}.training.json"
        results[name] = {
            "n_parameters": decoder.n_parameters,
            "mlp_widths": [layer.mlp_width for layer in decoder.layers],
            **({"training": json.loads(told.read_text())} if told.is_file() else {}),
            **speeds[name],
            **ask(bundle, VARIANT, examples),
        }
        found = {key: value for key, value in results[name].items() if key not in _LONG}
        sys.stdout.write(f"{name}: {json.dumps(found)}\n")
    written = {"command": "python -m benchmarks.pruned_assistant", "models": results}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(written, indent=1) + "\n")


def _speeds(bundles: Mapping[str, Bundle], threads: int) -> dict[str, dict[str, object]]:
    """Let every bundle answer in turn, so that what else the machine does hits all of them."""
    opened = {
        name: open_engine(bundle, variant=VARIANT, engine=None, threads=threads)[0]
        for name, bundle in bundles.items()
    }
    prompt = np.random.default_rng(0).integers(300, 2000, PROMPT_TOKENS)
    seconds: dict[str, list[float]] = {name: [] for name in opened}
    for number in range(ROUNDS + 1):
        for name, loaded in opened.items():
            session = loaded.session()
            tokens = generate_tokens(loaded, session, prompt, max_tokens=ANSWER_TOKENS + 1)
            next(tokens)  # the prompt is not part of it
            begun = time.perf_counter()
            n_tokens = sum(1 for _ in tokens)
            if number:
                seconds[name].append((time.perf_counter() - begun) / n_tokens)
            session.close()
    first = np.array(seconds["original"])
    return {
        name: {
            "decode_tokens_per_s": summarize(
                "decode_tokens_per_s",
                [1 / took for took in found],
                unit="1/s",
                how="python -m benchmarks.pruned_assistant",
            ).to_json(),
            "decode_times_the_original": float(np.median(first / np.array(found))),
        }
        for name, found in seconds.items()
    }


if __name__ == "__main__":
    main()
