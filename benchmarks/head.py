"""The head of two stages beside the whole one: what it finds, what it costs, how fast it is.

    onhand build examples/house_assistant/model -o out/house
    onhand build ../shared/assets/tinystories-656k -o out/stories
    python -m benchmarks.head --case out/house examples/house_assistant/data/heldout.txt [--json]


A case is a bundle and a text that it continues, or "-" for random tokens; there may be several
--case, as for out/stories with the sample of tinystories-text. Recall is counted at
positions of the text: how many of the whole head's 1, 10 and 40 likeliest tokens the coarse copy
makes candidates. Speed is greedy decoding by both heads in turn, text included.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.device.engines.choosing import HeadUse, use_head
from onhand.device.engines.native import NativeEngine, NativeLoaded
from onhand.device.generate import generate_tokens
from onhand.device.sampling import Sampler, Sampling
from onhand.device.text import Tokenizer
from onhand.device.text_files import read_text_files
from onhand.device.threads import usable_threads

__all__ = ["main"]

CANDIDATES = (64, 256, 1024)
RANKS = (1, 10, 40)
POSITIONS = 200
PROMPT_TOKENS, ANSWER_TOKENS = 64, 128
TILE = 16  # outputs that are scored together


def main() -> None:
    """Run the benchmark and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", nargs=2, action="append", required=True)
    parser.add_argument("--threads", type=int, default=usable_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results = {}
    for root, text in given.case:
        bundle = read_bundle(Path(root))
        results[root] = {
            "recall": recall(bundle, text, given.threads),
            **speed(bundle, given.threads, given.rounds),
        }
        if not given.json:
            sys.stdout.write(f"{root}: {json.dumps(results[root], indent=1)}\n")
    if given.json:
        sys.stdout.write(json.dumps(results) + "\n")


def load(bundle: Bundle, threads: int) -> NativeLoaded:
    """Open the default variant."""
    variant, _ = bundle.variant(None)
    return NativeEngine().open(bundle, variant=variant, threads=threads)


def recall(bundle: Bundle, text: str, threads: int) -> Mapping[str, Mapping[str, float]]:
    """Return, by number of candidates, the shares of the likeliest tokens that are among them."""
    loaded = load(bundle, threads)
    tokens = read_tokens(bundle, text)
    session = loaded.session()
    logits = [loaded.score(session, part) for part in np.array_split(tokens, 20)]
    order = np.argsort(np.concatenate(logits), axis=1)[:, ::-1]  # (T, V)
    found: dict[str, Mapping[str, float]] = {}
    for candidates in CANDIDATES:
        loaded.use_two_stage_head(candidates=candidates)
        session = loaded.session()
        hits: dict[int, list[float]] = {rank: [] for rank in RANKS}
        n_tiles = []
        for token, best in zip(tokens, order, strict=True):
            loaded.step_sample([(session, token[None])], [Sampler(Sampling())])
            tiles = np.asarray(loaded.inner.picked)
            n_tiles.append(len(tiles))
            for rank in RANKS:
                hits[rank].append(float(np.isin(best[:rank] // TILE, tiles).mean()))
        found[str(candidates)] = {
            **{f"top {rank}": float(np.mean(hits[rank])) for rank in RANKS},
            "rescored": float(np.mean(n_tiles)) * TILE / loaded.vocab_size,
        }
    loaded.close()
    return found


def read_tokens(bundle: Bundle, text: str) -> TokenArray:
    """Return the first tokens of a text, or random ones."""
    if text == "-":
        V = bundle.manifest.decoder.vocab_size
        return np.random.default_rng(0).integers(0, V, POSITIONS)
    ids = tokenizer_of(bundle).encode_plain(
        Path(text).read_text(encoding="utf-8")[: 20 * POSITIONS]
    )
    return np.asarray(ids[:POSITIONS], dtype=np.int64)


def tokenizer_of(bundle: Bundle) -> Tokenizer:
    """Return the bundle's tokenizer."""
    return read_text_files(bundle).tokenizer


def speed(bundle: Bundle, threads: int, rounds: int) -> Mapping[str, object]:
    """Return decoding speeds of both heads, median and quartiles, and what the copy weighs."""
    uses: tuple[HeadUse, HeadUse] = ("full", "two-stage")
    models = {use: load(bundle, threads) for use in uses}
    begun = time.perf_counter()
    use_head(models["two-stage"], "two-stage", engine_name="native")
    made_s = time.perf_counter() - begun
    samples: dict[str, list[float]] = {use: [] for use in uses}
    tokenizer = tokenizer_of(bundle)
    for _ in range(rounds + 1):
        for use in uses:
            samples[use].append(decode(models[use], tokenizer))
    medians = {use: statistics.median(samples[use][1:]) for use in uses}
    head, copy = models["two-stage"].head_bytes()
    return {
        "tokens_per_s": {
            use: {
                "median": medians[use],
                "quartiles": statistics.quantiles(samples[use][1:], n=4)[::2],
            }
            for use in uses
        },
        "two_stage_ratio": medians["two-stage"] / medians["full"],
        "head_bytes": head,
        "copy_bytes": copy,
        "copy_made_s": made_s,
    }


def decode(loaded: NativeLoaded, tokenizer: Tokenizer) -> float:
    """Return the tokens per second of one answer after its first token, with its text."""
    prompt = np.random.default_rng(1).integers(0, loaded.vocab_size, PROMPT_TOKENS)
    session, stream = loaded.session(), tokenizer.stream()
    tokens = generate_tokens(loaded, session, prompt, max_tokens=ANSWER_TOKENS)
    stream.push(next(tokens))
    begun = time.perf_counter()
    for token in tokens:
        stream.push(token)
    took_s = time.perf_counter() - begun
    session.close()
    return (ANSWER_TOKENS - 1) / took_s


if __name__ == "__main__":
    main()
