"""Language models with weights of zero: what each method loses, and what the bundle takes."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from examples.house_assistant.actions import Example
from examples.house_assistant.evaluate import HELD_OUT
from examples.house_assistant.generate import read_examples

from benchmarks.house_assistant import ask
from benchmarks.methods import MODELS, Ground, prepare
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.progress import Quiet
from onhand.core.sparse import parse_pattern
from onhand.device.opening import open_engine
from onhand.host.calibrate import head_logits, run_original
from onhand.host.compare import compare_tokens, quality_figures
from onhand.host.model import Model
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.base import ShapeWork
from onhand.host.passes.distil import Distil
from onhand.host.passes.quantize import Quantize
from onhand.host.prune import prune_matrices
from onhand.host.sparsify import Share
from onhand.host.stored_model import write_model

__all__ = ["Keep", "judge_decoders"]

Keep = Callable[[str, str, Mapping[str, object]], None]
_VARIANT = "v"


@dataclass(frozen=True, slots=True)
class _Setting:
    """One row: how weights are made zero, if at all, and how the rest is rounded."""

    method: str
    ratio: float
    pattern: str
    bits: int
    train: int = 0

    @property
    def name(self) -> str:
        """For the table."""
        if not self.method:
            return f"int{self.bits}"
        trained = f", {self.train} steps of distil" if self.train else ""
        return f"int{self.bits}, {self.method} {self.pattern or f'{self.ratio:.0%}'}{trained}"

    def share(self) -> Share:
        """What goes of each row."""
        return Share(self.ratio, parse_pattern(self.pattern) if self.pattern else None)


_SETTINGS = (
    *(_Setting("", 0.0, "", bits) for bits in (8, 4)),
    *(
        _Setting(method, ratio, "", 4)
        for ratio in (0.25, 0.5)
        for method in ("magnitude", "wanda", "sparsegpt")
    ),
    *(_Setting(method, 0.5, "2:4", 4) for method in ("magnitude", "wanda", "sparsegpt")),
    _Setting("sparsegpt", 0.5, "", 8),
    _Setting("sparsegpt", 0.5, "2:4", 8),
)


def judge_decoders(names: Sequence[str], *, commands: int, train: int, keep: Keep) -> None:
    """Prune, round and judge some of the models of `benchmarks.methods`.

    Args:
        names: keys of its `MODELS`; one that is absent is left out, and said so.
        commands: that the house assistant is asked.
        train: steps of distillation behind pruning in one more row; 0 for no such row.
        keep: is handed model, setting and figures of each row.
    """
    for name in names:
        folder, text = MODELS[name]
        if not folder.is_dir():
            sys.stdout.write(f"{folder} is absent: set ONHAND_ASSETS\n")
            continue
        ground = prepare(folder, text)
        asked = list(read_examples(HELD_OUT))[:commands] if name == "house-assistant" else []
        trained = _Setting("sparsegpt", 0.5, "", 4, train)
        for setting in (*_SETTINGS, *([trained] if train else [])):
            keep(name, setting.name, _judge(ground, setting, asked))


def _judge(ground: Ground, setting: _Setting, asked: Sequence[Example]) -> Mapping[str, object]:
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.perf_counter()
        bundle = _build(ground, setting, Path(scratch))
        seconds = time.perf_counter() - begun
        loaded, engine, _ = open_engine(
            bundle, variant=_VARIANT, engine=None, threads=ground.threads
        )
        compared = compare_tokens(
            loaded,
            ground.texts.heldout.sequences,
            ground.hidden,
            head_logits(ground.model),
            progress=Quiet(),
            what=setting.name,
        )
        figures = quality_figures(compared, how="python -m benchmarks.sparse")
        stored, whole = bundle.manifest.variants[_VARIANT].sparse_bytes()
        row: dict[str, object] = {
            "engine": engine,
            "seconds": seconds,
            "size_bytes": bundle.size_bytes(_VARIANT),
            "size_bytes_with_zeros": bundle.size_bytes(_VARIANT) - stored + whole,
            **{name: one.value for name, one in figures.items()},
        }
        if asked:
            answers = ask(bundle, _VARIANT, asked)
            row |= {"exact_match": answers["exact_match"], "commands": len(asked)}
        return row


def _trained(ground: Ground, model: Model, steps: int, folder: Path) -> Model:
    """Teach a pruned model on the calibration text; its zeros stay."""
    work = ShapeWork(
        original=ground.model,
        calibration=ground.texts.calibration.sequences,
        training=(),
        folder=folder,
        threads=ground.threads,
        progress=Quiet(),
    )
    return Distil(steps=steps, precision="float32").shape(model, work)


def _build(ground: Ground, setting: _Setting, scratch: Path) -> Bundle:
    """Prune, observe the pruned model's inputs, round by GPTQ, and pack."""
    model, statistics = ground.model, ground.statistics
    if setting.method:
        pruned = prune_matrices(model, statistics, setting.share(), method=setting.method)
        model = write_model(scratch / "pruned", pruned)
        if setting.train:
            model = _trained(ground, model, setting.train, scratch / "trained")
        statistics = run_original(
            model,
            calibration=ground.texts.calibration.sequences,
            heldout=(),
            progress=Quiet(),
            whole=True,
        ).statistics
    transform = Quantize(bits=setting.bits, method="gptq")
    (scratch / "bundle").mkdir()
    pack_bundle(
        replace(model, name="sparse"),
        plan_variants(model.decoder, {_VARIANT: transform}),
        statistics,
        scratch / "bundle",
        accuracy_level=4,
        provenance={},
        threads=ground.threads,
        progress=Quiet(),
    )
    return read_bundle(scratch / "bundle")
