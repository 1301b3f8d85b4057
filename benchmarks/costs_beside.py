"""Answers that are timed one by one, each with the speed of the processor before and after it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.bundle import read_bundle
from onhand.device.bench_child import TOKENIZER
from onhand.device.engines.base import Loaded, Session
from onhand.device.engines.native import NativeEngine
from onhand.device.generate import generate_tokens
from onhand.device.text import open_tokenizer
from onhand.host.costs.calibration import Speed
from onhand.host.costs.speed import SpeedGauge

__all__ = ["Round", "between", "timed_rounds"]

_MOST_ROUNDS: Final = 15
_LEAST_ROUNDS: Final = 5
_ROUNDS_S: Final = 6.0
_PAUSE_S: Final = 0.1
_AWAKE_S: Final = 0.02  # of steps, after which the threads of an engine are awake


@dataclass(frozen=True, slots=True)
class Round:
    """One answer: its figures, and the speed of the processor beside it."""

    speed: Speed
    figures: Mapping[str, float]


def timed_rounds(
    place: Path,
    gauge: SpeedGauge,
    *,
    prompt: int,
    answer: int,
    threads: int,
    clock: Callable[[], float],
) -> list[Round]:
    """Answer a random prompt again and again, some tenths of a second apart.

    Args:
        place: of a bundle whose variant is "judged".
        gauge: measures the processor's speed.
        prompt: tokens.
        answer: tokens.
        threads: of a step.
        clock: seconds.
    """
    bundle = read_bundle(place)
    tokenizer = open_tokenizer(bundle.path(TOKENIZER).read_bytes())
    ids = np.random.default_rng(0).integers(1, bundle.manifest.decoder.vocab_size, prompt)
    loaded = NativeEngine().open(bundle, variant="judged", threads=threads)
    session = loaded.session()
    found: list[Round] = []
    begun = time.perf_counter()
    before = gauge.now()
    # The first answer warms up.
    while len(found) <= _MOST_ROUNDS and (
        len(found) <= _LEAST_ROUNDS or time.perf_counter() - begun < _ROUNDS_S
    ):
        _wake(loaded, session, ids[:16])
        session.rewind(0)
        read = tokenizer.stream().push
        tokens = generate_tokens(loaded, session, ids, max_tokens=answer)
        asked = clock()
        read(next(tokens))
        first = clock()
        for token in tokens:
            read(token)
        last = clock()
        after = gauge.now()
        figures = {
            "time_to_first_token_s": first - asked,
            "prefill_tokens_per_s": prompt / (first - asked),
            "decode_tokens_per_s": (answer - 1) / (last - first),
        }
        found.append(Round(between(before, after), figures))
        time.sleep(_PAUSE_S)
        before = gauge.now()
    loaded.close()
    return found[1:]


def _wake(loaded: Loaded, session: Session, prompt: np.ndarray) -> None:
    """Let all threads work: they slept while the speed was measured in one thread.

    A forecast is of answers one after the other, as `onhand bench` times them too.
    """
    begun = time.perf_counter()
    while time.perf_counter() - begun < _AWAKE_S:
        session.rewind(0)
        for _ in generate_tokens(loaded, session, prompt, max_tokens=8):
            pass


def between(before: Speed, after: Speed) -> Speed:
    """Return the speed in the middle of two."""
    return Speed(
        product_s=(before.product_s + after.product_s) / 2,
        step_s=(before.step_s + after.step_s) / 2,
    )
