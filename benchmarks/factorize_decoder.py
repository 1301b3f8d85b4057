"""Decoders whose matrices are products of thinner ones: what whitening by the text saves.

    python -m benchmarks.factorize_decoder [--out FILE.json]

Takes shares of the weights of the layers' matrices out of the house assistant, with ranks by the
calibration text and decompositions by it, or by the weights alone, and compares each result with
the original on held-out text, before any weight is rounded. Nothing is drawn by chance.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from examples.house_assistant.evaluate import CALIBRATION

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.progress import Quiet
from onhand.device.text_files import parse_text_files
from onhand.host.calibrate import head_logits, run_original
from onhand.host.compare import compare_states, quality_figures
from onhand.host.factors import factorise
from onhand.host.model import Model
from onhand.host.passes.base import ShapeWork
from onhand.host.passes.factorize import Factorize
from onhand.host.sources import load_model
from onhand.host.texts import split_texts

__all__ = ["main"]

MODEL = Path("examples/house_assistant/model")
RATIOS = (0.05, 0.1, 0.2, 0.3)
HOW = "python -m benchmarks.factorize_decoder"
FIGURES = ("kl_divergence", "perplexity_increase", "top1_agreement")


def main() -> None:
    """Factorise, compare, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    model = load_model(str(MODEL))
    tokenizer = parse_text_files(model.files, where=str(MODEL)).tokenizer
    texts = split_texts(tokenizer, CALIBRATION, model.decoder, max_tokens=given.tokens)
    heldout = texts.heldout.sequences
    states = hidden(model, heldout, given.threads)
    rows: list[dict[str, float | str]] = []
    for ratio in RATIOS:
        with tempfile.TemporaryDirectory() as folder:
            work = ShapeWork(
                original=model,
                calibration=texts.calibration.sequences,
                training=(),
                folder=Path(folder),
                threads=given.threads,
                progress=Quiet(),
            )
            known = Factorize(ratio=ratio).shape(model, work)
            blind = factorise(model, known.decoder.ranks)
            for way, made in (("by the text", known), ("by the weights", blind)):
                pair = (
                    (states, head_logits(model)),
                    (
                        hidden(made, heldout, given.threads),
                        head_logits(made),
                    ),
                )
                figures = quality_figures(compare_states(heldout, *pair, progress=Quiet()), how=HOW)
                row: dict[str, float | str] = {
                    "removed": ratio, "decomposed": way,
                    "parameters": float(made.decoder.n_parameters),
                    **{name: figures[name].value for name in FIGURES},
                }  # fmt: skip
                rows.append(row)
                sys.stdout.write(f"{json.dumps(row)}\n")
                sys.stdout.flush()
    said = {
        "command": HOW,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": model.decoder.n_parameters,
        "tokens": given.tokens,
        "rows": rows,
    }
    if given.out is not None:
        given.out.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def hidden(model: Model, heldout: Sequence[TokenArray], threads: int) -> list[FloatArray]:
    """Return what the head reads of each sequence."""
    run = run_original(model, calibration=(), heldout=heldout, threads=threads, progress=Quiet())
    return run.hidden


if __name__ == "__main__":
    main()
