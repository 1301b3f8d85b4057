"""The questions of the semantic cache's benchmark: which tuned it, and which judge it."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.encoder_texts import ASSETS, Pair, learned_texts, read_pairs
from onhand.core.arrays import FloatArray
from onhand.device.networks.session import NetworkSession

__all__ = ["build_bundle", "embedded", "judging", "published", "written"]

_QUESTIONS = Path(__file__).with_name("questions")
_BATCH = 16


def published() -> list[tuple[str, str]]:
    """Return the 999 pairs of the published protocol: what is kept, and what is asked."""
    file = ASSETS / "gptcache-qqp" / "mock_data.json"
    return [(row["origin"], row["similar"]) for row in json.loads(file.read_text("utf-8"))]


def judging(n: int) -> list[Pair]:
    """Return labelled pairs of which no question helped to tune the gate or its thresholds.

    Args:
        n: most of them.

    Returns:
        Pairs, 1 where they ask the same.
    """
    pairs = read_pairs()
    tuned = {text for one, other, _ in pairs if _tunes(one) for text in (one, other)}
    barred = tuned | {text for pair in published() for text in pair}
    free = [pair for pair in pairs if pair[0] not in barred and pair[1] not in barred]
    order = np.random.default_rng(0).permutation(len(free))[:n]
    return [free[i] for i in order.tolist()]


def written(name: str) -> list[tuple[str, str, str]]:
    """Return the pairs written for this project, "different" or "same": kind, one, other."""
    lines = (_QUESTIONS / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [(kind, one, other) for kind, one, other in rows]


def embedded(session: NetworkSession, texts: Sequence[str]) -> dict[str, FloatArray]:
    """Return text -> its vector, of length 1."""
    unique = sorted(set(texts), key=len)
    found: dict[str, FloatArray] = {}
    for start in range(0, len(unique), _BATCH):
        part = unique[start : start + _BATCH]
        for text, vector in zip(part, session.embed(part), strict=True):
            found[text] = vector / np.linalg.norm(vector)
    return found


def build_bundle(model: Path, place: Path) -> Path:
    """Build the encoder in int8, calibrated with texts that judge nothing.

    Args:
        model: its folder.
        place: where the bundle goes.

    Returns:
        The bundle.
    """
    from onhand.cli.build_network import integer_steps
    from onhand.host.networks.build import build_network
    from onhand.host.networks.options import NetworkOptions

    with tempfile.TemporaryDirectory(prefix="onhand-semantic-") as scratch:
        texts = Path(scratch) / "texts.txt"
        texts.write_text("\n".join(learned_texts(read_pairs(), 60_000)[:400]) + "\n", "utf-8")
        options = NetworkOptions(
            task="text-embedding",
            variants={"int8": integer_steps("text-embedding")},
            data=texts,
            measure_original=False,
        )
        build_network(str(model), place, options, home=Path(scratch) / "home")
    return place


def _tunes(text: str) -> bool:
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16) % 2 == 0
