"""One shape's model in the form of every engine that is installed; see `benchmarks.decode`."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.beside_genai import build_peer
from benchmarks.processes import Worker
from benchmarks.shapes import SHAPES, make_checkpoint
from onhand.core.bundle import read_bundle
from onhand.core.quantized import QuantTensor
from onhand.core.weights import open_weights
from onhand.device.engines.choosing import PrefillUse

__all__ = [
    "BF16",
    "LLAMA",
    "OURS",
    "Models",
    "Wanted",
    "able",
    "bytes_per_token",
    "make_models",
    "say",
]

OURS, BF16, LLAMA, PLAIN_LLAMA = (
    "onhand:native",
    "onhand:native+bf16",
    "llama",
    "llama:plain",
)
_SHOWN = {
    BF16: "native, --prefill bf16, which needs a processor with AMX,",
    LLAMA: "llama.cpp with repacked weights",
    PLAIN_LLAMA: "llama.cpp without repacked weights",
}
GGUF_GROUP = 32  # inputs that share a scale in the blocks of a GGUF file


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One engine's copy of the model.

    Attributes:
        engine: as `benchmarks.worker` names it.
        place: a folder or a file.
        python: the interpreter that has the engine.
    """

    engine: str
    place: Path
    python: Path

    def start(self, threads: int) -> Worker:
        """Open it in a process of its own."""
        return Worker(self.engine, self.place, threads, python=self.python)


Models = dict[str, Model]  # by the engine's name in results


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be built.

    Attributes:
        shape: a key of `SHAPES`.
        bits: of a weight in our bundle.
        group: inputs that share a scale in our bundle.
        prefill: "bf16" to measure ours that way as well.
        folder: where to; what is there already is used.
        tokenizer: a `tokenizer.json`.
        llama_python: interpreter of llama.cpp's environment.
        openvino_python: interpreter of OpenVINO's environment.
    """

    shape: str
    bits: int
    group: int
    prefill: PrefillUse
    folder: Path
    tokenizer: Path
    llama_python: Path
    openvino_python: Path


def make_models(wanted: Wanted, notes: list[str]) -> Models:
    """Build the model for every engine that is installed.

    Args:
        wanted: what to build.
        notes: a sentence is added for each engine that is left out.

    Returns:
        The models, ours first.
    """
    source = wanted.folder / "source"
    wanted.folder.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        make_checkpoint(wanted.shape, source, tokenizer=wanted.tokenizer)
    width = json.loads((source / "config.json").read_text())["hidden_size"]
    if width != SHAPES[wanted.shape].width:
        sys.exit(f"{source} has a width of {width}: it is not of the shape {wanted.shape}")
    models = _ours(wanted, source)
    bundle = models[OURS].place
    for made in (_llama(wanted, bundle), _genai(wanted, source), _openvino(wanted, source)):
        if isinstance(made, Model):
            models[made.engine] = made
        else:
            _note(notes, made)
    return models


def able(models: Models, threads: int, notes: list[str]) -> Models:
    """Try each engine on a few tokens; one whose process ends is left out, and a note says so.

    llama.cpp may still do without repacked weights.

    Args:
        models: by the engine's name.
        threads: of one step.
        notes: a sentence is added for each engine that fails.

    Returns:
        The models that can be measured; ours is always one of them.
    """
    found: Models = {}
    for name, model in models.items():
        ways = [model, replace(model, engine=PLAIN_LLAMA)] if name == LLAMA else [model]
        for way in ways:
            say(f"trying {way.engine}")
            try:
                with way.start(threads) as worker:
                    worker.ask(answer=[8, 2])
            except RuntimeError as error:
                _note(notes, f"{_SHOWN.get(way.engine, way.engine)} is left out: {error}")
            else:
                found[name] = way
                break
    if OURS not in found:
        sys.exit(f"{OURS} cannot run, and nothing can be compared without it")
    return found


def bytes_per_token(bundle_folder: Path) -> int:
    """Return the bytes of weights that a decoding step reads: every matrix once."""
    bundle = read_bundle(bundle_folder)
    weights = open_weights(bundle, bundle.variant(None)[0])
    total = 0
    for name in weights.decoder.matrices():
        stored = weights.stored(name)
        if name == "positions" or (name == "embed" and weights.decoder.head != "embed"):
            continue
        if isinstance(stored, QuantTensor):
            total += stored.codes.nbytes + stored.scales.nbytes
            total += 0 if stored.zeros is None else stored.zeros.nbytes
        else:
            total += stored.nbytes
    return total


def say(text: str) -> None:
    """Tell people how far it is."""
    print(text, file=sys.stderr, flush=True)


def _ours(wanted: Wanted, source: Path) -> Models:
    name = "bundle" if wanted.group == GGUF_GROUP else f"bundle-{wanted.group}"
    bundle, here = wanted.folder / name, Path(sys.executable)
    if not bundle.exists():
        say("building with onhand")
        sizes = ["--bits", str(wanted.bits), "--group", str(wanted.group)]
        build = [here, "-m", "onhand", "build", source, "-o", bundle, "--method", "rtn"]
        _run([*build, *sizes, "--no-original"], _environment(wanted))
    names = (OURS, *((BF16,) if wanted.prefill == "bf16" else ()), "onhand:onnx")
    return {name: Model(engine=name, place=bundle, python=here) for name in names}


# Each of these returns why an engine is left out, if it is.
def _llama(wanted: Wanted, bundle: Path) -> Model | str:
    if not wanted.llama_python.is_file():
        return f"{wanted.llama_python} is absent: llama.cpp is left out"
    if wanted.group != GGUF_GROUP:
        sizes = f"the GGUF export has groups of {GGUF_GROUP}, the bundle of {wanted.group}"
        return f"{sizes}: llama.cpp is left out"
    file = wanted.folder / "model.gguf"
    if not file.exists():
        say("exporting to GGUF")
        export = [sys.executable, "-m", "onhand", "export", bundle, "--to", "gguf", "-o", file]
        _run(export, _environment(wanted))
    return Model(engine=LLAMA, place=file, python=wanted.llama_python)


def _genai(wanted: Wanted, source: Path) -> Model | str:
    if importlib.util.find_spec("onnxruntime_genai") is None:
        return "onnxruntime-genai is not installed and left out"
    place = wanted.folder / "genai"
    if not place.exists():
        say("building with onnxruntime-genai")
        build_peer(source, place, wanted.folder / "cache")
    return Model(engine="genai", place=place, python=Path(sys.executable))


def _openvino(wanted: Wanted, source: Path) -> Model | str:
    if not wanted.openvino_python.is_file():
        return f"{wanted.openvino_python} is absent: OpenVINO is left out"
    place = wanted.folder / "openvino"
    if not place.exists():
        say("building with OpenVINO")
        tool = wanted.openvino_python.with_name("optimum-cli")
        task = ["--task", "text-generation-with-past", "--weight-format", "int4", "--sym"]
        sizes = ["--group-size", "64", "--ratio", "1.0", "--all-layers"]
        export = [tool, "export", "openvino", "-m", source, *task, *sizes, place]
        _run(export, _environment(wanted))
    return Model(engine="openvino", place=place, python=wanted.openvino_python)


def _environment(wanted: Wanted) -> Mapping[str, str]:
    return os.environ | {"ONHAND_HOME": str(wanted.folder / "home")}


def _run(command: Sequence[object], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{command[0]} failed with status {done.returncode}:\n{done.stderr[-2000:]}")


def _note(notes: list[str], sentence: str) -> None:
    notes.append(sentence)
    say(sentence)
