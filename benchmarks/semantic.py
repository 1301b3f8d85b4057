"""Answers to similar questions: how many hits are right, by the published protocol and by others.

    python -m benchmarks.semantic (--bundle DIR | --model DIR) [--pairs 4000] [--words DIR]
        [--json] [--out FILE.json]

The encoder is a bundle for text-embedding, or the folder of all-MiniLM-L6-v2, of which one is built
in int8 (`docs/encoders.md`). The store is the server's own; three sets of questions go through it:

* the published protocol (GPTCache): 999 texts are kept, 999 others are asked, each of which is a
  paraphrase of one; a hit is right if it is that one. The lists of words of the gate were written
  with some of these texts in view, so this part shows what can be reached, not what to expect;
* labelled pairs of questions (QQP), of which no question tuned anything: precision against recall,
  with 95 % intervals (Wilson). Of the labels themselves some are wrong: `identical_precision` is
  that of pairs with the very same words;
* pairs written for this project (`benchmarks/questions`): questions that look alike and ask
  something else, of which none may be a hit, and paraphrases, of which most should be.

All of it is measured with the project's own lists of words, and by --words once more with those of
WordNet beside them (`with_words`).

Figures "without_gate" take the nearest text above the threshold, as other caches do.
"""

import argparse
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.semantic_texts import build_bundle, embedded, judging, published, written
from onhand.core.arrays import FloatArray
from onhand.device.networks.session import open_session
from onhand.device.serving.asks import Ending, Piece
from onhand.device.serving.caches.closeness import Closeness
from onhand.device.serving.caches.exact import Kept
from onhand.device.serving.caches.gate.judge import difference
from onhand.device.serving.caches.gate.lexicon import OWN_LEXICON, Lexicon
from onhand.device.serving.caches.gate.wordnet import read_lexicon
from onhand.device.serving.caches.nearest import Nearest
from onhand.device.serving.caches.questions import Question
from onhand.device.serving.caches.semantic_store import SemanticStore, why_not

__all__ = ["main"]

Vectors = Mapping[str, FloatArray]
THRESHOLDS = (0.8, 0.85, 0.88, 0.9, 0.92, 0.95)
PUBLISHED = {"threshold": 0.95, "right": 425, "wrong": 25, "missed": 549}
_ENDING = Ending(reason="stop", prompt_tokens=1, cached_tokens=0, generated_tokens=1)
_INDEX_ROWS = 60_000


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    pairs = judging(given.pairs)
    sets = {name: written(name) for name in ("different", "same")}
    texts = [text for pair in published() for text in pair]
    texts += [text for one, other, _ in pairs for text in (one, other)]
    texts += [text for rows in sets.values() for row in rows for text in row[1:]]
    with tempfile.TemporaryDirectory() as scratch:
        bundle = given.bundle or build_bundle(given.model, Path(scratch) / "encoder")
        session = open_session(bundle, home=Path(scratch) / "home")
        begun = time.perf_counter()
        vectors = embedded(session, texts)
        embed_s = (time.perf_counter() - begun) / len(vectors)
        results: dict[str, Any] = {
            "command": _command(given),
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "encoder": f"{session.network.task}, {session.choice.variant}, {session.engine_name}",
            "embedding_s": embed_s,
        }
        session.close()
    results["published"] = PUBLISHED
    results["index"] = index(list(vectors.values()))
    results["index_recall"] = results["index"]["recall"][0]
    results |= found(pairs, sets, vectors, OWN_LEXICON)
    if given.words is not None:
        begun = time.perf_counter()
        words = read_lexicon(given.words)
        read_s = time.perf_counter() - begun
        results["with_words"] = {"read_s": read_s, **found(pairs, sets, vectors, words)}
    print(json.dumps(results, indent=1) if given.json else table(results))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def found(
    pairs: Sequence[tuple[str, str, int]],
    sets: Mapping[str, Sequence[tuple[str, str, str]]],
    vectors: Vectors,
    words: Lexicon,
) -> dict[str, Any]:
    """Return what is found of all three sets of questions by one lexicon."""
    results: dict[str, Any] = {
        "protocol": protocol(vectors, words),
        "labelled": labelled(pairs, vectors, words),
        "written": {name: by_kind(rows, vectors, words) for name, rows in sets.items()},
    }
    return results | plain_figures(results)


def _command(given: argparse.Namespace) -> str:
    """Return what to run for the same figures, without paths of this machine."""
    encoder = "--bundle BUNDLE" if given.bundle else "--model MODEL"
    words = "" if given.words is None else " --words FOLDER"
    return f"python -m benchmarks.semantic {encoder} --pairs {given.pairs}{words}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    encoder = parser.add_mutually_exclusive_group(required=True)
    encoder.add_argument("--bundle", type=Path, help="a bundle for text-embedding")
    encoder.add_argument("--model", type=Path, help="the folder of an encoder")
    parser.add_argument("--pairs", type=int, default=4000, help="labelled pairs that judge")
    parser.add_argument("--words", type=Path, help="a folder of WordNet's files: measured as well")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/semantic.json"))
    return parser.parse_args()


def protocol(vectors: Vectors, words: Lexicon) -> dict[str, Any]:
    """Keep the texts of one side, ask those of the other, at each threshold and at the default."""
    rows = published()
    with_gate = [_asked(rows, vectors, _closeness(one), words) for one in THRESHOLDS]
    return {
        "texts_kept": len({kept for kept, _ in rows}),
        "default": _asked(rows, vectors, Closeness(), words),
        "with_gate": with_gate,
        "without_gate": [_plainly_asked(rows, vectors, one) for one in THRESHOLDS],
    }


def _closeness(threshold: float) -> Closeness:
    return Closeness(same=threshold, reworded=threshold)


def _asked(
    rows: Sequence[tuple[str, str]], vectors: Vectors, closeness: Closeness, words: Lexicon
) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    find_s = []
    with SemanticStore(
        None, encoder="", most_bytes=2**30, closeness=closeness, words=words
    ) as store:
        for text, _ in rows:
            store.keep(Question(text, b""), vectors[text], Kept((Piece(text),), _ENDING))
        for partner, asked in rows:
            begun = time.perf_counter()
            found = store.find(Question(asked, b""), vectors[asked])
            find_s.append(time.perf_counter() - begun)
            if found is None:
                outcomes["missed"] += 1
            else:
                outcomes["right" if found.kept.pieces[0].text == partner else "wrong"] += 1
        rejected = {reason: n for reason, n in sorted(store.rejected.items()) if n}
    return {
        "threshold": closeness.same,
        "reworded": closeness.reworded,
        **_shares(outcomes),
        "find_s": float(np.median(find_s)),
        "rejected": rejected,
    }


def _plainly_asked(
    rows: Sequence[tuple[str, str]], vectors: Vectors, threshold: float
) -> dict[str, Any]:
    kept = np.stack([vectors[text] for text, _ in rows])  # (N, D)
    outcomes: Counter[str] = Counter()
    for partner, asked in rows:
        cosines = kept @ vectors[asked]
        best = int(np.argmax(cosines))
        if cosines[best] < threshold:
            outcomes["missed"] += 1
        else:
            outcomes["right" if rows[best][0] == partner else "wrong"] += 1
    return {"threshold": threshold, **_shares(outcomes)}


def _shares(outcomes: Mapping[str, int]) -> dict[str, Any]:
    right, wrong = outcomes.get("right", 0), outcomes.get("wrong", 0)
    return {
        "right": right,
        "wrong": wrong,
        "missed": outcomes.get("missed", 0),
        "wrong_share": wilson(wrong, right + wrong),
    }


def labelled(
    pairs: Sequence[tuple[str, str, int]], vectors: Vectors, words: Lexicon
) -> dict[str, Any]:
    """Return precision and recall over the labelled pairs, with the gate and without."""
    cosines = [float(vectors[one] @ vectors[other]) for one, other, _ in pairs]
    labels = [label for _, _, label in pairs]

    def row(closeness: Closeness) -> dict[str, Any]:
        hits = [
            why_not(one, other, cosine, closeness=closeness, words=words) is None
            for (one, other, _), cosine in zip(pairs, cosines, strict=True)
        ]
        return {"threshold": closeness.same, **_judged(hits, labels)}

    plain = [
        {"threshold": one, **_judged([cosine >= one for cosine in cosines], labels)}
        for one in THRESHOLDS
    ]
    identical = [
        label
        for (one, other, label), cosine in zip(pairs, cosines, strict=True)
        if cosine > 0.9 and sorted(one.lower().split()) == sorted(other.lower().split())
    ]
    return {
        "pairs": len(pairs),
        "same": sum(labels),
        "identical_precision": wilson(sum(identical), len(identical)),
        "default": row(Closeness()),
        "with_gate": [row(_closeness(one)) for one in THRESHOLDS],
        "without_gate": plain,
    }


def _judged(hits: Sequence[bool], labels: Sequence[int]) -> dict[str, Any]:
    right = sum(hit and label for hit, label in zip(hits, labels, strict=True))
    return {
        "hits": sum(hits),
        "precision": wilson(right, sum(hits)),
        "recall": wilson(right, sum(labels)),
    }


def by_kind(
    rows: Sequence[tuple[str, str, str]], vectors: Vectors, words: Lexicon
) -> dict[str, Any]:
    """Keep one question of each pair and ask the other, in both orders; count hits by kind."""
    hits: Counter[str] = Counter()
    passed = above = 0
    shown: list[list[str]] = []
    for kind, *pair in rows:
        for kept, asked in (pair, pair[::-1]):
            with SemanticStore(None, encoder="", most_bytes=10**6, words=words) as store:
                store.keep(Question(kept, b""), vectors[kept], Kept((Piece("x"),), _ENDING))
                if store.find(Question(asked, b""), vectors[asked]) is not None:
                    hits[kind] += 1
                    shown.append([kept, asked])
            passed += difference(asked, kept, words).reason is None
            above += float(vectors[kept] @ vectors[asked]) >= Closeness().same
    kinds = Counter(kind for kind, *_ in rows)
    return {
        "pairs": len(rows),
        "asked": 2 * len(rows),
        "hits": hits.total(),
        "hit_share": wilson(hits.total(), 2 * len(rows)),
        "hits_without_gate": above,
        "passed_by_the_gate_alone": passed,
        "hits_by_kind": {kind: [hits[kind], 2 * n] for kind, n in kinds.items()},
        "hit": shown if len(shown) < len(rows) // 2 else [],
    }


def index(vectors: Sequence[FloatArray]) -> dict[str, Any]:
    """Return how often the cells of many vectors hold the nearest, and what a search takes."""
    rng = np.random.default_rng(0)
    known = np.stack(vectors)  # (N, D)
    drawn = known[rng.integers(0, len(known), _INDEX_ROWS)]
    # Around real ones, as far away as paraphrases are.
    noise = rng.standard_normal(drawn.shape).astype(np.float32)
    rows = drawn + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cells, every = Nearest(rows.shape[1]), Nearest(rows.shape[1], exact_rows=2 * _INDEX_ROWS)
    for near in (cells, every):
        for number, row in enumerate(rows):
            near.add(number, row)
    asked = known[rng.integers(0, len(known), 300)]
    found, taken = {}, {}
    for name, near in (("cells", cells), ("every", every)):
        begun = time.perf_counter()
        found[name] = [near.search(one, count=1)[0][0] for one in asked]
        taken[name] = (time.perf_counter() - begun) / len(asked)
    n_equal = sum(one == other for one, other in zip(found["cells"], found["every"], strict=True))
    return {
        "rows": _INDEX_ROWS,
        "cells": cells.n_cells,
        "recall": wilson(n_equal, len(asked)),
        "search_s": taken["cells"],
        "search_all_s": taken["every"],
    }


def wilson(n: int, total: int) -> list[float]:
    """Return a share and the ends of its 95 % interval."""
    if not total:
        return [0.0, 0.0, 1.0]
    z = 1.959964
    share = n / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return [share, max(middle - half, 0.0), min(middle + half, 1.0)]


def plain_figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what programs ask for first, as plain values."""
    default, pairs = results["protocol"]["default"], results["written"]
    return {
        "right": default["right"],
        "right_share": default["right"] / len(published()),
        "false_hit_share": default["wrong_share"][0],
        "labelled_precision": results["labelled"]["default"]["precision"][0],
        "labelled_recall": results["labelled"]["default"]["recall"][0],
        "written_false_hits": pairs["different"]["hits"],
        "written_pairs": pairs["different"]["pairs"],
        "written_paraphrases_found": pairs["same"]["hit_share"][0],
    }


def table(results: Mapping[str, Any]) -> str:
    """Return the figures for people."""
    lines = ["protocol: threshold, right, wrong, wrong share of hits (95 %)"]
    for name in ("with_gate", "without_gate"):
        for row in results["protocol"][name]:
            share, low, high = row["wrong_share"]
            lines.append(
                f"  {name:12} {row['threshold']:.2f} {row['right']:4} {row['wrong']:4} "
                f"{share:6.2%} ({low:.2%} to {high:.2%})"
            )
    lines.append("labelled pairs: threshold, hits, precision (95 %), recall")
    for name in ("with_gate", "without_gate"):
        for row in results["labelled"][name]:
            share, low, high = row["precision"]
            lines.append(
                f"  {name:12} {row['threshold']:.2f} {row['hits']:5} {share:6.1%} "
                f"({low:.1%} to {high:.1%}) {row['recall'][0]:6.1%}"
            )
    keys = [key for key, value in results.items() if isinstance(value, int | float)]
    lines += [f"{key}: {results[key]:.6g}" for key in keys]
    if (other := results.get("with_words")) is not None:
        lines += ["", "with the words of WordNet", table(other)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
