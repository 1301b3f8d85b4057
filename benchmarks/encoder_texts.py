"""The texts of the encoders' benchmark: what compression may see, and what judges it."""

import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = [
    "SETS",
    "Intents",
    "Pair",
    "judging_pairs",
    "learned_texts",
    "read_intents",
    "read_pairs",
    "spread_out",
]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
SETS = ("BANKING77", "CLINC150")
# Of the pairs, one in so many judges; a question of one of these is in no text to learn from.
JUDGES = 5
_SEED = 20260101
Pair = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Intents:
    """Texts of one part of a set, and the name of each one's intent."""

    texts: Sequence[str]
    names: Sequence[str]


def read_intents(name: str, part: str) -> Intents:
    """Return the texts of a set of intents: "train" or "test"."""
    folder = ASSETS / "intents" / name / part
    texts = (folder / "seq.in").read_text(encoding="utf-8").splitlines()
    return Intents(texts, (folder / "label").read_text(encoding="utf-8").splitlines())


def read_pairs() -> list[Pair]:
    """Return all pairs of questions, 1 where they ask the same."""
    with tarfile.open(ASSETS / "gptcache-qqp" / "similiar_qqp_full.json.gz") as file:
        content = file.extractfile(file.getmembers()[0])
        rows = json.loads(content.read()) if content else []
    return [(row["text_a"], row["text_b"], int(row["label"])) for row in rows]


def spread_out(n: int, wanted: int) -> list[int]:
    """Return up to `wanted` of `n` places, evenly."""
    return sorted({i * n // min(n, wanted) for i in range(min(n, wanted))})


def judging_pairs(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """Return up to `n` of the pairs that judge."""
    judges = pairs[::JUDGES]
    return [judges[i] for i in spread_out(len(judges), n)]


def learned_texts(pairs: Sequence[Pair], n_questions: int) -> list[str]:
    """Return texts to compress with, in a random order that is the same each time.

    Args:
        pairs: all of them.
        n_questions: most questions of pairs.

    Returns:
        Those of the training parts of all sets, and questions; none that a judge reads.
    """
    barred = {_plain(text) for a, b, _ in pairs[::JUDGES] for text in (a, b)}
    intents: list[str] = []
    for name in SETS:
        barred |= {_plain(text) for text in read_intents(name, "test").texts}
        intents += read_intents(name, "train").texts
    rng = np.random.default_rng(_SEED)
    questions = _unseen([text for a, b, _ in pairs for text in (a, b)], barred)
    chosen = rng.permutation(len(questions))[:n_questions].tolist()
    texts = _unseen(intents, barred) + [questions[i] for i in chosen]
    return [texts[i] for i in rng.permutation(len(texts)).tolist()]


def _unseen(texts: Sequence[str], barred: set[str]) -> list[str]:
    """Return texts that are not barred, each once."""
    found = {_plain(text): " ".join(text.split()) for text in texts}
    return [text for key, text in found.items() if key and key not in barred]


def _plain(text: str) -> str:
    # As the tokenizer sees it, or nearly so.
    return " ".join(text.lower().split())
