"""Both exports in their runtimes, beside the bundle in ours and llama.cpp's own rounding.

    python -m benchmarks.exports [--model DIR] [--text FILE] [--max-tokens 4096]
        [--llama-python .venv-llama/bin/python] [--out FILE.json]

Builds int4, int4-asymmetric (both with `gptq`, as --preset good does) and int8, exports each to
GGUF and onnxruntime-genai, and compares perplexity and KL divergence on held-out token ids: with
the original, and with the bundle itself in the `onnx` engine. "llama.cpp Q4_0" and its like are
llama.cpp's reference rounding of the same original (`gguf.quants.quantize`), run in our reference
engine, and in llama.cpp where it is there.

onnxruntime-genai comes with onhand[bench]. llama.cpp has an environment of its own, because its
package is compiled on the spot (cmake and a C++ compiler; some minutes):

    python3 -m venv .venv-llama
    .venv-llama/bin/pip install numpy llama-cpp-python==0.3.36

What is not installed is left out, and a sentence says so.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.decoder import Decoder
from onhand.core.progress import Quiet
from onhand.device.engines.base import Loaded
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.device.text_files import parse_text_files
from onhand.device.threads import usable_threads
from onhand.host.calibrate import OriginalRun, head_logits, run_original
from onhand.host.compare import compare_tokens, quality_figures
from onhand.host.export.genai import export_genai
from onhand.host.export.gguf import export_gguf
from onhand.host.export.gguf_blocks import BLOCK, row_bytes
from onhand.host.export.gguf_layout import gguf_layout
from onhand.host.model import Model, ModelWeights
from onhand.host.pack import ORIGINAL, pack_bundle, pack_original, plan_variants
from onhand.host.passes.quantize import Quantize
from onhand.host.sources import load_model
from onhand.host.texts import split_texts

__all__ = ["main"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
LLAMA = Path(".venv-llama/bin/python")
VARIANTS = {
    "int4": (Quantize(method="gptq"), "Q4_0"),
    "int4-asymmetric": (Quantize(method="gptq", symmetric=False), "Q4_1"),
    "int8": (Quantize(bits=8), "Q8_0"),
}
Answers = Sequence[FloatArray]  # for each sequence its logits after all tokens but the last
Figures = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The model that all are compared with, and its answers."""

    model: Model
    sequences: Sequence[TokenArray]
    run: OriginalRun


@dataclass(frozen=True, slots=True)
class Rounded:
    """A source's weights after llama.cpp's reference rounding. See `ModelWeights`."""

    inner: ModelWeights
    kind: str

    @property
    def decoder(self) -> Decoder:
        """See `ModelWeights`."""
        return self.inner.decoder

    def matrix(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return _dequantized(_quantized(self.inner.matrix(name), self.kind), self.kind)

    def block(self, name: str, start: int, stop: int) -> FloatArray:
        """See `ModelWeights`."""
        return self.matrix(name)[start:stop]

    def rows(self, name: str, ids: TokenArray) -> FloatArray:
        """See `ModelWeights`."""
        return self.matrix(name)[ids]

    def vector(self, name: str) -> FloatArray:
        """See `ModelWeights`."""
        return self.inner.vector(name)


def _quantized(matrix: FloatArray, kind: str) -> np.ndarray:
    import gguf

    made: np.ndarray = gguf.quants.quantize(matrix, gguf.GGMLQuantizationType[kind])
    return made


def _dequantized(data: np.ndarray, kind: str) -> FloatArray:
    import gguf

    made: FloatArray = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    return made


def main() -> None:
    """Run the benchmark and print a table."""
    given = _arguments()
    if not given.model.is_dir() or not given.text.is_file():
        sys.exit(f"{given.model} or {given.text} is absent: set ONHAND_ASSETS, or give both")
    skipped: list[str] = []
    has_genai = importlib.util.find_spec("onnxruntime_genai") is not None
    if not has_genai:
        skipped.append('onnxruntime-genai is not installed: pip install "onhand[bench]"')
    if not given.llama_python.is_file():
        skipped.append(f"llama.cpp is left out: {given.llama_python} is absent; see --help")
    results: dict[str, object] = {
        "command": " ".join(["python -m benchmarks.exports", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "skipped": skipped,
        "threads": usable_threads(),
        "versions": {name: version(name) for name in ("gguf", "onnxruntime")},
    }
    with tempfile.TemporaryDirectory() as scratch:
        work = Work(Path(scratch), given, has_genai=has_genai)
        results |= work.all()
    for sentence in skipped:
        print(sentence)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ASSETS / "tinystories-656k")
    text = ASSETS / "tinystories-text" / "tinystories_sample.txt"
    parser.add_argument("--text", type=Path, default=text)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--llama-python", type=Path, default=LLAMA)
    parser.add_argument("--out", type=Path, default=Path("out/exports.json"))
    return parser.parse_args()


class Work:
    """One model: its bundle, the exports, and what each of them answers."""

    def __init__(self, scratch: Path, given: argparse.Namespace, *, has_genai: bool) -> None:
        self.scratch = scratch
        self.llama = given.llama_python if given.llama_python.is_file() else None
        self.has_genai = has_genai
        model = load_model(str(given.model))
        tokenizer = parse_text_files(model.files, where="model").tokenizer
        texts = split_texts(tokenizer, given.text, model.decoder, max_tokens=given.max_tokens)
        run = run_original(
            model,
            calibration=texts.calibration.sequences,
            heldout=texts.heldout.sequences,
            progress=Quiet(),
            whole=True,
        )
        self.original = Original(model=model, sequences=texts.heldout.sequences, run=run)
        (scratch / "bundle").mkdir()
        transforms = {name: transform for name, (transform, _) in VARIANTS.items()}
        pack_bundle(
            model,
            plan_variants(model.decoder, transforms),
            run.statistics,
            scratch / "bundle",
            accuracy_level=4,
            provenance={},
            threads=usable_threads(),
            progress=Quiet(),
        )
        self.bundle = read_bundle(scratch / "bundle")

    def all(self) -> dict[str, object]:
        """Return the figures of every variant and every way to run it."""
        rows: dict[str, object] = {}
        for name, (_, kind) in VARIANTS.items():
            rows[name] = found = self.variant(name, kind)
            print(_table(name, found), flush=True)
        return {
            "n_tokens": sum(row.size - 1 for row in self.original.sequences),
            "source_sha256": self.original.model.sha256,
            "variants": rows,
        }

    def variant(self, name: str, kind: str) -> Figures:
        """Compare one variant, its exports, and llama.cpp's type of the same width."""
        shipped = _scored(
            OnnxEngine().open(self.bundle, variant=name, threads=usable_threads()), self
        )
        judged: dict[str, Answers] = {
            "onhand, onnx engine": shipped,
            "onhand, reference engine": _scored(_reference(self.bundle, name), self),
            f"llama.cpp {kind}, reference engine": self._rounded(kind),
        }
        file = self.scratch / f"{name}.gguf"
        exported = export_gguf(self.bundle, name, file, progress=Quiet())
        if self.has_genai:
            folder = self.scratch / f"{name}-genai"
            export_genai(self.bundle, name, folder, progress=Quiet())
            judged["onhand, onnxruntime-genai"] = _genai(folder, self.original.sequences)
        if self.llama is not None:
            judged["onhand, llama.cpp"] = self._llama(file)
            self._round_file(file, kind)
            judged[f"llama.cpp {kind}, llama.cpp"] = self._llama(file)
        rows = {label: self._compare(answers, shipped) for label, answers in judged.items()}
        ours, theirs = (
            float(cast(float, rows[label]["kl_divergence"]))
            for label in ("onhand, reference engine", f"llama.cpp {kind}, reference engine")
        )
        return {
            "bits_per_weight": self._bits(name),
            "gguf_bits_per_weight": row_bytes(kind, BLOCK) * 8 / BLOCK,
            "kl_is_not_above_llama_cpps": ours <= theirs,
            "largest_error_steps": exported.largest_error_steps,
            "runs": rows,
        }

    def _bits(self, name: str) -> float:
        """Return the bits of a weight in the bundle, scales and zero points included."""
        shapes = self.original.model.decoder.matrices()
        forms = self.bundle.manifest.variants[name].matrices
        size = sum(form.size_bytes(shapes[matrix]) for matrix, form in forms.items() if form)
        return size * 8 / sum(n * k for n, k in shapes.values())

    def _rounded(self, kind: str) -> Answers:
        model = self.original.model
        folder = self.scratch / f"rounded-{kind}"
        folder.mkdir()
        bundle = pack_original(
            Model(
                name=model.name,
                location=model.location,
                family=model.family,
                weights=Rounded(model.weights, kind),
                files=model.files,
                sha256=model.sha256,
                source_bytes=model.source_bytes,
                weight_bits=model.weight_bits,
            ),
            folder,
        )
        return _scored(_reference(bundle, ORIGINAL), self)

    def _round_file(self, file: Path, kind: str) -> None:
        """Put llama.cpp's rounding of the original in the place of ours, tensor by tensor."""
        import gguf

        weights = self.original.model.weights
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file, "r+").tensors}
        for entry in gguf_layout(weights.decoder).tensors:
            if tensors[entry.name].tensor_type.name == kind:
                matrix = weights.matrix(entry.source)[entry.rows()]
                tensors[entry.name].data[:] = _quantized(matrix, kind)

    def _llama(self, file: Path) -> Answers:
        """Ask llama.cpp in its own environment."""
        tokens, out = self.scratch / "tokens.npz", self.scratch / "logits.npy"
        sequences = [row[:-1] for row in self.original.sequences]
        arrays: dict[str, Any] = {str(i): row for i, row in enumerate(sequences)}
        np.savez(tokens, **arrays)
        script = Path(__file__).with_name("exports_llama.py")
        words = [str(self.llama), str(script), str(file), str(tokens), str(out)]
        subprocess.run([*words, str(usable_threads())], check=True)
        logits = np.load(out)
        ends = np.cumsum([row.size for row in sequences])
        return np.split(logits, ends[:-1])

    def _compare(self, answers: Answers, shipped: Answers) -> Figures:
        original = self.original
        with_original = _figures(
            answers, original.sequences, original.run.hidden, head_logits(original.model)
        )
        with_bundle = _figures(answers, original.sequences, shipped, np.copy)
        return with_original | {
            "kl_from_bundle": with_bundle["kl_divergence"],
            "top1_agreement_with_bundle": with_bundle["top1_agreement"],
        }


class Recorded:
    """Answers that are there already, in the order they are asked for. See `Loaded`."""

    def __init__(self, answers: Answers) -> None:
        self._rows = iter(np.concatenate(answers))

    def session(self, *, context: int | None = None) -> "Recorded":
        """See `Loaded`."""
        return self

    def score(self, session: object, tokens: TokenArray) -> FloatArray:
        """See `Loaded`."""
        return np.stack([next(self._rows) for _ in tokens])

    def close(self) -> None:
        """See `Session`."""


def _figures(
    answers: Answers,
    sequences: Sequence[TokenArray],
    hidden: Sequence[FloatArray],
    head: Callable[[FloatArray], FloatArray],
) -> Figures:
    figures = quality_figures(
        compare_tokens(
            cast(Loaded, Recorded(answers)), sequences, hidden, head, progress=Quiet(), what="x"
        ),
        how="python -m benchmarks.exports",
    )
    found: Figures = {name: figure.value for name, figure in figures.items()}
    found |= {f"{name}_interval": figure.interval for name, figure in figures.items()}
    return found


def _reference(bundle: Bundle, variant: str) -> Loaded:
    return ReferenceEngine().open(bundle, variant=variant, threads=usable_threads())


def _scored(loaded: Loaded, work: Work) -> Answers:
    answers = [
        loaded.score(loaded.session(context=row.size), row[:-1]) for row in work.original.sequences
    ]
    loaded.close()
    return answers


def _genai(folder: Path, sequences: Sequence[TokenArray]) -> Answers:
    """Ask onnxruntime-genai token by token: its graph gives the last row alone."""
    import onnxruntime_genai as og

    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = usable_threads()
    path.write_text(json.dumps(config))
    model = og.Model(str(folder))
    answers: list[FloatArray] = []
    for row in sequences:
        options = og.GeneratorParams(model)
        # One more than is fed: a generator that is full gives no logits.
        options.set_search_options(max_length=row.size, min_length=row.size)
        generator = og.Generator(model, options)
        rows: list[FloatArray] = []
        for token in row[:-1]:
            generator.append_tokens(np.array([[token]], dtype=np.int32))
            rows.append(generator.get_logits()[0, -1].copy())
        answers.append(np.stack(rows))
    return answers


def _table(name: str, found: Figures) -> str:
    """Lay the figures out for people."""
    ours, theirs = found["bits_per_weight"], found["gguf_bits_per_weight"]
    lines = [f"{name}: {ours:.3f} bits for each weight, in GGUF {theirs:.3f}"]
    for label, row in cast(Mapping[str, Mapping[str, float]], found["runs"]).items():
        lines.append(
            f"  {label:36} perplexity {row['perplexity']:.4f}, KL {row['kl_divergence']:.6f}, "
            f"KL from the bundle {row['kl_from_bundle']:.6f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
