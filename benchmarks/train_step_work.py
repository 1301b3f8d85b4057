"""What the processes of `benchmarks.train_step` do: jobs and answers are lines of JSON.

`python train_step_work.py ours|torch|transformers FOLDER THREADS`; a job is `{"case": NAME,
"steps": N}` or `{"end": true}`. The same seed gives all the same texts and the same start.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.train_step_child import answer_jobs
from onhand.core.arrays import FloatArray
from onhand.core.bundle import read_bundle
from onhand.core.decoder import Decoder, DecoderLayer
from onhand.device.learning.base import Feeds
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.optimizers import AdamW

__all__ = ["CASES", "Case", "feeds_of"]

RATE, DECAY = 1e-3, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is trained.

    Attributes:
        name: of the case.
        decoder: its shape; None for the example's model.
        bits: of the frozen weights; 32 for float32.
        n_texts: B.
        n_tokens: S.
        rank: of what is learned.
    """

    name: str
    decoder: Decoder | None
    bits: int
    n_texts: int
    n_tokens: int
    rank: int = 8


def _llama(
    n_layers: int, layer: DecoderLayer, *, width: int, vocab_size: int, theta: float
) -> Decoder:
    from onhand.core.rope import Rope

    return Decoder(
        vocab_size=vocab_size,
        width=width,
        context=2048,
        norm_epsilon=1e-5,
        layers=(layer,) * n_layers,
        rope=Rope(theta=theta),
        tied=True,
    )


_SMALL = DecoderLayer(n_heads=6, n_kv_heads=6, head_dim=48, mlp_width=768)
_SMOL = DecoderLayer(n_heads=9, n_kv_heads=3, head_dim=64, mlp_width=1536)
CASES: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case(
            name="llama-6x288",
            decoder=_llama(6, _SMALL, width=288, vocab_size=4096, theta=1e4),
            bits=32,
            n_texts=2,
            n_tokens=64,
        ),
        Case(
            name="smollm2-135m",
            decoder=_llama(30, _SMOL, width=576, vocab_size=49152, theta=1e5),
            bits=4,
            n_texts=1,
            n_tokens=128,
        ),
        Case(name="house", decoder=None, bits=4, n_texts=8, n_tokens=48),
    )
}


def feeds_of(case: Case, vocab_size: int) -> Feeds:
    """Return the batch that every step learns: texts that repeat eight tokens.

    Args:
        case: how many of what length.
        vocab_size: V.
    """
    random = np.random.default_rng(0)
    pieces = random.integers(0, vocab_size, (case.n_texts, 8))
    tokens = np.tile(pieces, (1, case.n_tokens // 8))
    B, S = tokens.shape
    rows = (np.arange(B)[:, None] * S + np.arange(S - 1)).reshape(-1)
    labels = tokens[:, 1:].reshape(-1, 1)
    weights = np.full(labels.shape, 1 / labels.size, dtype=np.float32)
    return {"tokens": tokens, "rows": rows, "labels": labels, "weights": weights}


class Trained(Protocol):
    """A model that is trained."""

    def step(self, feeds: Feeds) -> float:
        """Learn a batch once, and return the loss before.

        Args:
            feeds: as a lesson takes them.
        """
        ...


class Ours:
    """A bundle's lesson and the device's optimizer."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Open a bundle's lesson.

        Args:
            folder: the bundle.
            threads: of one step.
        """
        self._lesson = open_lesson(read_bundle(folder), threads=threads)
        self._values: Mapping[str, FloatArray] = self._lesson.start()
        self._kept: Mapping[str, FloatArray] = {}
        self._optimizer = AdamW(decay=DECAY)

    def step(self, feeds: Feeds) -> float:
        """See `Trained`."""
        taught = self._lesson.teach(self._values, feeds)
        self._values, self._kept = self._optimizer.step(
            self._values, taught.gradients, self._kept, rate=RATE
        )
        return taught.loss


def _opened(engine: str, folder: Path, threads: int) -> Trained:
    if engine == "ours":
        return Ours(folder, threads)
    from benchmarks.train_step_torch import TorchTrained, TransformersTrained

    made = TorchTrained if engine == "torch" else TransformersTrained
    return made(folder, threads, rate=RATE, decay=DECAY)


def main() -> None:
    """Do one job after the other."""
    engine, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    trained = _opened(engine, folder, threads)
    vocab_size = read_bundle(folder).manifest.decoder.vocab_size

    def step_of(job: Mapping[str, Any]) -> Callable[[], float]:
        feeds = feeds_of(CASES[job["case"]], vocab_size)
        return lambda: trained.step(feeds)

    answer_jobs(step_of)


if __name__ == "__main__":
    main()
