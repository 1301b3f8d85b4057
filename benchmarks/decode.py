r"""Decoding and prefill beside other runtimes: the same shape, taking turns in one run.

    python -m benchmarks.decode [--shape qwen2.5-0.5b] [--bits 4] [--group 32] [--rounds 5]
        [--threads 2] [--prefill exact|bf16] [--disturb] [--contexts 0,512,1024,2048,4096,8192]
        [--models DIR] [--llama-python .venv-llama/bin/python]
        [--openvino-python .venv-openvino/bin/python] [--json] [--out FILE.json]

Makes a random-weight checkpoint, builds it with `onhand build --method rtn --group 32`, exports
that bundle to GGUF (the same codes and scales, so equal bytes), and gives the checkpoint to the
builders of onnxruntime-genai (block 32, accuracy level 4, pruned head) and of OpenVINO (int4,
symmetric, groups of 64, all layers). With another --group only the bundle changes, and llama.cpp,
whose blocks have 32, is left out. Then:

- Speed. The engines answer the same prompt of 512 tokens, another in each round, with 128 more,
  greedily, one after the other, each in a process of its own; memory's read bandwidth is measured
  between rounds. Ours goes the way of `onhand run`: tokens chosen, text put together. With
  --disturb every round is done twice, the second time while other processes keep half of the
  cores busy: `disturbed`. With --prefill bf16 ours takes its turn that way as well, where the
  processor can: `onhand:native+bf16`, and `prefill_bf16_ratio_vs_*` beside the ratios of the exact
  way.
- Energy of a token while decoding, from what `onhand bench` uses: the processor's counter, or
  watts and the CPU seconds of the engine's process. `energy` says which.
- The first token, from a fresh process, the files in the page cache: see `first_tokens`.
- What a step costs that reads several tokens at once behind 512 others (`cost_of_rows_*`, over a
  step of one), and a step of one behind contexts of several lengths (`cost_of_context_*`), as far
  as the shape's context goes.

Ratios are ours over theirs, round by round: of seconds and joules, less than 1 is better.

onnxruntime-genai comes with onhand[bench]. The others have environments of their own:

    python3 -m venv .venv-llama && .venv-llama/bin/pip install numpy llama-cpp-python==0.3.36
    (with CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON
    -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON" where its kernels for AMX end the process)
    python3 -m venv .venv-openvino && .venv-openvino/bin/pip install torch==2.13.0 \
        openvino-genai==2026.4.1.0 optimum-intel==2.2.0 nncf

What is not installed is left out, and a sentence says so. llama.cpp's kernels for AMX end the
process where a system keeps these instructions from it; it then runs without them, and the result
says so.
"""

import argparse
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.decode_figures import plain, summary, table
from benchmarks.decode_models import OURS, Models, Wanted, able, bytes_per_token, make_models
from benchmarks.decode_rounds import answers, curves, first_tokens, fitting
from benchmarks.shapes import SHAPES
from onhand.device.threads import usable_threads

__all__ = ["main"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
CONTEXTS = (0, 512, 1024, 2048, 4096, 8192)


def main() -> None:
    """Run the benchmark and print what it found."""
    given = _options()
    tokenizer = ASSETS / "tokenizers" / "smollm2" / "tokenizer.json"
    if not tokenizer.is_file():
        sys.exit(f"{tokenizer} is absent: set ONHAND_ASSETS to the folder of models and data")
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Wanted(
            shape=given.shape,
            bits=given.bits,
            group=given.group,
            prefill=given.prefill,
            folder=given.models or Path(scratch),
            tokenizer=tokenizer,
            llama_python=given.llama_python,
            openvino_python=given.openvino_python,
        )
        models = make_models(wanted, notes)
        if given.rounds == 0:
            return
        found = measure(able(models, given.threads, notes), given, notes)
    made = summary(found)
    results = {
        "command": " ".join(["python -m benchmarks.decode", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "shape": given.shape,
        "threads": given.threads,
        "group": given.group,
        "prefill": given.prefill,
        "versions": {"onnxruntime": version("onnxruntime")},
        "notes": notes,
        **made,
        **{key: value for key, value in found.items() if key not in made},
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(plain(results)) if given.json else table(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--bits", type=int, choices=(4,), default=4)
    parser.add_argument("--group", type=int, choices=(32, 64, 128), default=32)
    parser.add_argument("--rounds", type=_count, default=5, help="0 builds the models only")
    parser.add_argument("--threads", type=_count, default=usable_threads())
    parser.add_argument("--prefill", choices=("exact", "bf16"), default="exact")
    parser.add_argument("--disturb", action="store_true")
    parser.add_argument("--contexts", type=_counts, default=CONTEXTS)
    parser.add_argument("--llama-python", type=Path, default=Path(".venv-llama/bin/python"))
    parser.add_argument("--openvino-python", type=Path, default=Path(".venv-openvino/bin/python"))
    parser.add_argument("--models", type=Path, help="keep the models here, and use what is here")
    parser.add_argument("--json", action="store_true", help="print the plain numbers only")
    parser.add_argument("--out", type=Path, default=Path("out/decode.json"))
    given = parser.parse_args()
    if given.threads < 1:
        parser.error("--threads must be 1 or more")
    return given


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is below 0")
    return number


def _counts(text: str) -> list[int]:
    try:
        return sorted({_count(word) for word in text.split(",")})
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas") from error


def measure(models: Models, given: argparse.Namespace, notes: list[str]) -> dict[str, Any]:
    """Measure all that `benchmarks.decode_rounds` can; return every sample."""
    n_rounds, threads = given.rounds, given.threads
    found = answers(models, n_rounds=n_rounds, threads=threads, disturb=given.disturb)
    for name, seconds in first_tokens(models, n_rounds=n_rounds, threads=threads).items():
        found["samples"][name]["first_token_s"] = seconds
    limit = SHAPES[given.shape].context
    contexts = fitting(given.contexts, limit)
    if long := [str(n) for n in given.contexts if n not in contexts]:
        notes.append(f"no step behind {', '.join(long)} tokens: the shape's context is {limit}")
    costs = curves(models, contexts=contexts, threads=threads)
    found |= {"verify": costs["rows"], "contexts": costs["contexts"]}
    return found | {"bytes_per_token": bytes_per_token(models[OURS].place)}


if __name__ == "__main__":
    main()
