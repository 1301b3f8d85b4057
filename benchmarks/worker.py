"""One engine, one process: reads "PROMPT ANSWER" lengths, answers, prints what it took."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onhand.core.bundle import read_bundle
from onhand.device.bench_child import peak_memory_bytes
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.threads import usable_threads

__all__ = ["main"]

_IDS_BELOW = 40000  # ordinary tokens of the tokenizer that both models have
Answer = Callable[[int, int], dict[str, float]]


def ours(folder: Path) -> Answer:
    """Open a bundle in the `onnx` engine."""
    bundle = read_bundle(folder)
    variant, _ = bundle.variant(None)
    loaded = OnnxEngine().open(bundle, variant=variant, threads=usable_threads())

    def answer(n_prompt: int, n_answer: int) -> dict[str, float]:
        prompt = _prompt(n_prompt)
        session = loaded.session(context=n_prompt + n_answer)
        start = time.perf_counter()
        token = loaded.step([(session, prompt)])[0].argmax()
        first = time.perf_counter()
        for _ in range(n_answer - 1):
            token = loaded.step([(session, np.array([token]))])[0].argmax()
        return _figures(start, first, time.perf_counter(), n_prompt, n_answer)

    return answer


def genai(folder: Path) -> Answer:
    """Open a folder of onnxruntime-genai."""
    import onnxruntime_genai as og

    model = og.Model(str(folder))

    def answer(n_prompt: int, n_answer: int) -> dict[str, float]:
        prompt = _prompt(n_prompt).astype(np.int32)[None, :]
        options = og.GeneratorParams(model)
        length = n_prompt + n_answer
        options.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = og.Generator(model, options)
        start = time.perf_counter()
        generator.append_tokens(prompt)
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(n_answer - 1):
            generator.generate_next_token()
        return _figures(start, first, time.perf_counter(), n_prompt, n_answer)

    return answer


def _prompt(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, _IDS_BELOW, length)


def _figures(
    start: float, first: float, end: float, n_prompt: int, n_answer: int
) -> dict[str, float]:
    return {
        "prefill_tokens_per_s": n_prompt / (first - start),
        "decode_tokens_per_s": (n_answer - 1) / (end - first),
    }


def main() -> None:
    """Answer for each line of the standard input until "end"."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    answer = {"onhand": ours, "genai": genai}[name](folder)
    for line in sys.stdin:
        if line.strip() == "end":
            print(json.dumps({"peak_memory_bytes": peak_memory_bytes()}), flush=True)
            return
        n_prompt, n_answer = (int(word) for word in line.split())
        print(json.dumps(answer(n_prompt, n_answer)), flush=True)


if __name__ == "__main__":
    main()
