"""The house assistant with a quarter of its parameters taken out, with and without distillation.

    python -m benchmarks.pruned_assistant [--mlp 0.514] [--steps 16] [--out FILE.json]

Prunes the MLPs by their activations on the example's calibration text, then trains every weight
towards the original's answers to commands that the example's own generator draws (training
phrasings alone). The original, the pruned and the distilled model are each rounded to int4 in the
same way, asked the 1,000 held-out commands, and timed in turn in one process. Training goes on
from the checkpoint in the work folder if it was interrupted.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
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
from onhand.host.texts import Texts, split_texts

__all__ = ["Commands", "main"]

VARIANT = "int4"
PROMPT_TOKENS, ANSWER_TOKENS, ROUNDS = 32, 128, 40
ROW_TOKENS, ROWS = 256, 8
_JUDGING = 100_000  # steps from here on are never trained on


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


def main() -> None:
    """Prune, distil, round, ask, time, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mlp", type=float, default=0.514, help="share of the neurons that go")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("out/pruned_assistant"))
    parser.add_argument("--out", type=Path, default=Path("out/pruned_assistant.json"))
    given = parser.parse_args()
    model = load_model(str(MODEL))
    tokenizer = parse_text_files(model.files, where=str(MODEL)).tokenizer
    texts = split_texts(tokenizer, CALIBRATION, model.decoder, max_tokens=65536)
    pruned = _prune(model, texts, given)
    distilled, about = _distil(model, pruned, given)
    models = {"original": model, "pruned": pruned, "pruned and distilled": distilled}
    bundles = {name: _bundle(name, found, texts, given) for name, found in models.items()}
    examples = list(read_examples(HELD_OUT))
    results = {
        name: {
            "n_parameters": models[name].decoder.n_parameters,
            "mlp_widths": [layer.mlp_width for layer in models[name].decoder.layers],
            **ask(bundle, VARIANT, examples),
        }
        for name, bundle in bundles.items()
    }
    speeds = _speeds(bundles, given.threads)
    for name, speed in speeds.items():
        results[name] |= speed
        sys.stdout.write(f"{name}: {json.dumps(results[name])}\n")
    command = f"python -m benchmarks.pruned_assistant --mlp {given.mlp} --steps {given.steps}"
    written = {"command": f"{command} --rate {given.rate}", "training": about, "models": results}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(written, indent=1) + "\n")


def _prune(model: Model, texts: Texts, given: argparse.Namespace) -> Model:
    folder = given.work / f"pruned-{given.mlp}"
    if has_model(folder):
        return read_model(folder, model)
    work = ShapeWork(
        original=model,
        calibration=texts.calibration.sequences,
        training=(),
        folder=folder,
        threads=given.threads,
        progress=_Said(),
    )
    return Prune(mlp=given.mlp).shape(model, work)


def _distil(
    model: Model, pruned: Model, given: argparse.Namespace
) -> tuple[Model, Mapping[str, object]]:
    folder = given.work / f"distilled-{given.mlp}-{given.steps}-{given.rate}"
    told = folder / "about.json"
    if has_model(folder) and told.is_file():
        return read_model(folder, model), json.loads(told.read_text())
    commands = Commands(Tokenizer.from_file(str(MODEL / "tokenizer.json")))
    begun = time.monotonic()
    found = recover_model(
        model,
        pruned,
        commands,
        [commands.batch(_JUDGING + number) for number in range(4)],
        training=Training(steps=given.steps, rate=given.rate),
        folder=folder,
        threads=given.threads,
        progress=_Said(),
    )
    about = {
        "minutes": (time.monotonic() - begun) / 60,
        "n_tokens": found.n_tokens,
        "divergence_before": found.before,
        "divergence_after": found.after,
    }
    told.write_text(json.dumps(about))
    return found.model, about


def _bundle(name: str, model: Model, texts: Texts, given: argparse.Namespace) -> Bundle:
    """Round a model as `onhand build --bits 4` does."""
    sequences = texts.calibration.sequences
    run = run_original(model, calibration=sequences, heldout=(), progress=Quiet())
    place: Path = given.work / f"bundle-{name.replace(' ', '-')}-{time.time_ns()}"
    place.mkdir(parents=True)
    pack_bundle(
        model,
        plan_variants(model.decoder, {VARIANT: Quantize()}),
        run.statistics,
        place,
        accuracy_level=4,
        provenance={},
        threads=given.threads,
        progress=Quiet(),
    )
    return read_bundle(place)


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
