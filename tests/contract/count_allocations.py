"""Decode with the native engine, and print what its steps ask of the heap: see the test.

LD_PRELOAD=malloc_count.so python count_allocations.py BUNDLE VARIANT THREADS HEAD
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from onhand.core.bundle import read_bundle
from onhand.core.weights import open_weights
from onhand.device.engines.choosing import use_head
from onhand.device.engines.native import NativeLoaded, chooser_of
from onhand.device.sampling import Sampler, Sampling

HOW = {
    "greedy": Sampling(),
    "sampled": Sampling(temperature=0.8, top_k=40, top_p=0.9, repetition_penalty=1.1, seed=1),
    "all": Sampling(temperature=1.0, top_p=0.99, seed=1),
}
STEPS = 100  # more than a page of keys and values


def count(loaded: NativeLoaded, sampling: Sampling) -> int:
    """Allocations of the native part in `STEPS` steps of two conversations, a second time."""
    so_far = ctypes.CDLL(None).allocations_so_far
    so_far.restype = ctypes.c_long
    sessions = [loaded.session() for _ in range(2)]
    for session in sessions:  # rotary positions are made as a session reaches them
        loaded.step([(session, np.zeros(STEPS, dtype=np.int64))])
    inner: list[Any] = [session.inner for session in sessions]
    loaded.step([(sessions[0], np.array([1]))])  # rotary positions are there from now on
    choosers = [chooser_of(Sampler(sampling), loaded.vocab_size) for _ in sessions]
    asked = 0
    for _ in range(2):
        for session in sessions:
            session.rewind(0)
        tokens, asked = [3, 5], 0
        for step in range(STEPS):
            chosen = [step / STEPS, 1 - step / STEPS]
            before = so_far()
            loaded.inner.choose(inner, tokens, choosers, chosen)
            asked += so_far() - before
            tokens = chosen  # type: ignore[assignment]  # numbers were replaced by ids
    return asked


def main() -> None:
    """Print allocations by sampling, and those of one array, which must be seen."""
    root, variant, threads, head = sys.argv[1:]
    loaded = NativeLoaded(open_weights(read_bundle(Path(root)), variant), b"", int(threads))
    use_head(loaded, "two-stage" if head == "two-stage" else "full", engine_name="native")
    so_far = ctypes.CDLL(None).allocations_so_far
    before = so_far()
    np.zeros(100_000)
    seen = so_far() - before
    counts = {name: count(loaded, how) for name, how in HOW.items()}
    sys.stdout.write(json.dumps({"an array": seen, **counts}))


if __name__ == "__main__":
    main()
