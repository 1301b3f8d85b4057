"""Exact match of the house assistant on held-out phrasings, before and after compression.

    python -m benchmarks.house_assistant [--out FILE.json]

Builds int4 and int8 with the example's calibration text, asks every variant and the unquantised
model the same commands, each in the engine preferred for it, and counts what is exactly right. The
answers are greedy, so a run gives the same counts again.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from examples.house_assistant.actions import Example
from examples.house_assistant.evaluate import CALIBRATION, HELD_OUT, score
from examples.house_assistant.generate import read_examples

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.progress import Quiet
from onhand.device.opening import open_engine, open_text
from onhand.device.template import Message
from onhand.device.text_files import parse_text_files
from onhand.device.threads import usable_threads
from onhand.host.calibrate import run_original
from onhand.host.model import Model
from onhand.host.pack import ORIGINAL, pack_bundle, pack_original, plan_variants
from onhand.host.passes.quantize import Quantize
from onhand.host.sources import load_model
from onhand.host.texts import split_texts

__all__ = ["main"]

MODEL = Path("examples/house_assistant/model")
TRANSFORMS = {"int4": Quantize(), "int8": Quantize(bits=8)}
MAX_TOKENS = 200


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("out/house_assistant.json"))
    given = parser.parse_args()
    examples = list(read_examples(HELD_OUT))
    model = load_model(str(MODEL))
    results: dict[str, object] = {"command": "python -m benchmarks.house_assistant"}
    with tempfile.TemporaryDirectory() as scratch:
        compressed, original = build(model, Path(scratch))
        for name in (ORIGINAL, *TRANSFORMS):
            bundle = original if name == ORIGINAL else compressed
            results[name] = ask(bundle, name, examples)
            sys.stdout.write(f"{name}: {json.dumps(results[name])}\n")
            sys.stdout.flush()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def build(model: Model, scratch: Path) -> tuple[Bundle, Bundle]:
    """Write the compressed bundle and the unquantised one."""
    tokenizer = parse_text_files(model.files, where="model").tokenizer
    texts = split_texts(tokenizer, CALIBRATION, model.decoder, max_tokens=65536)
    run = run_original(model, calibration=texts.calibration.sequences, heldout=(), progress=Quiet())
    for name in ("compressed", ORIGINAL):
        (scratch / name).mkdir()
    pack_bundle(
        model,
        plan_variants(model.decoder, TRANSFORMS),
        run.statistics,
        scratch / "compressed",
        accuracy_level=4,
        provenance={},
        threads=usable_threads(),
        progress=Quiet(),
    )
    pack_original(model, scratch / ORIGINAL)
    return read_bundle(scratch / "compressed"), read_bundle(scratch / ORIGINAL)


def ask(bundle: Bundle, variant: str, examples: Sequence[Example]) -> dict[str, object]:
    """Return counts by group for one variant."""
    loaded, engine, _ = open_engine(bundle, variant=variant, engine=None, threads=None)
    with open_text(bundle, loaded, engine_name=engine) as session:

        def answer(command: str) -> str:
            return session.complete([Message("user", command)], max_tokens=MAX_TOKENS)

        scores = score(examples, answer)
    counts = asdict(scores)
    return {
        "engine": engine,
        "size_bytes": bundle.size_bytes(variant),
        "exact_match": scores.share(),
        "right": counts["right"],
        "total": counts["total"],
    }


if __name__ == "__main__":
    main()
