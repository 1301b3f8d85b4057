"""Logits of llama.cpp for given tokens, in an environment of its own: numpy and llama_cpp alone.

    python exports_llama.py MODEL.gguf TOKENS.npz LOGITS.npy THREADS

TOKENS.npz holds the sequences as arrays 0, 1, …; LOGITS.npy gets their rows behind each other,
(tokens, V) float32.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main"]


def main() -> None:
    """Run every sequence from an empty memory."""
    import llama_cpp

    _use_plain_kernels(llama_cpp.llama_cpp)
    model, tokens, out, threads = sys.argv[1:]
    with np.load(tokens) as content:
        sequences = [content[str(i)] for i in range(len(content.files))]
    longest = max(row.size for row in sequences)
    loaded = llama_cpp.Llama(
        model_path=model,
        n_ctx=longest,
        n_batch=longest,
        n_threads=int(threads),
        n_threads_batch=int(threads),
        logits_all=True,
        verbose=False,
    )
    shape = (sum(row.size for row in sequences), loaded.n_vocab())
    logits = np.lib.format.open_memmap(Path(out), mode="w+", dtype=np.float32, shape=shape)
    low = 0
    for row in sequences:
        loaded.reset()
        loaded.eval(row.tolist())
        logits[low : low + row.size] = loaded.scores[: row.size]
        low += row.size
    logits.flush()


def _use_plain_kernels(api: Any) -> None:
    """Leave repacked weights out.

    llama.cpp repacks for AMX wherever the processor has it, and dies in its first tile
    instruction where the system does not let the process use it, as in many virtual machines.
    """
    defaults = api.llama_model_default_params

    def changed() -> object:
        found = defaults()
        found.use_extra_bufts = False
        return found

    api.llama_model_default_params = changed


if __name__ == "__main__":
    main()
