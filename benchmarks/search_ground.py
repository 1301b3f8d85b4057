"""What the benchmarks of the search share: a model, its texts, its planner, real builds."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from examples.house_assistant.evaluate import CALIBRATION

from onhand.core.arrays import FloatArray
from onhand.core.budget import Budget
from onhand.core.bundle import read_bundle
from onhand.core.progress import Quiet
from onhand.device.opening import open_engine
from onhand.device.probe import current_profile
from onhand.device.text_files import parse_text_files
from onhand.host.calibrate import head_logits, run_original
from onhand.host.compare import compare_tokens, quality_figures
from onhand.host.model import Model
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.search.candidates import lend_matrices, take_matrices
from onhand.host.search.choices import SearchSpace
from onhand.host.search.opening import THOROUGH, Basis, Opened, open_planner
from onhand.host.search.treatments import as_quantize, stored_as
from onhand.host.sources import load_model
from onhand.host.texts import Texts, split_texts

__all__ = ["ASSETS", "MODELS", "Builder", "Outcome", "Searched", "make_ground", "model_places"]

ASSETS = Path(os.environ.get("ONHAND_ASSETS", "../shared/assets"))
MODELS = ("tinystories", "house-assistant")


def model_places(name: str) -> tuple[Path, Path]:
    """Return the folder of a model, and its text."""
    if name == "house-assistant":
        return Path("examples/house_assistant/model"), CALIBRATION
    text = ASSETS / "tinystories-text" / "tinystories_sample.txt"
    return ASSETS / "tinystories-656k", text


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a real build gave, on held-out text in its engine."""

    size_bytes: int
    kl: float
    perplexity_increase: float

    def to_json(self) -> dict[str, float]:
        """Return a JSON object."""
        return {
            "size_bytes": self.size_bytes,
            "kl_divergence": self.kl,
            "perplexity_increase": self.perplexity_increase,
        }


@dataclass(slots=True, kw_only=True)
class Builder:
    """Builds bundles for real and judges their quality; each content once, and counts them."""

    model: Model
    texts: Texts
    hidden: list[FloatArray]
    opened: Opened
    method: str
    threads: int
    most_tokens: int | None = None
    known: dict[str, Outcome] = field(default_factory=dict)

    def build(self, choices: Mapping[str, str], *, scale_bits: int | None = None) -> Outcome:
        """Return what a bundle loses; scales as in the search, or of so many bits."""
        own = self.opened.ground.scale_bits
        bits = own if scale_bits is None else scale_bits
        key = repr((bits, sorted(choices.items())))
        if key not in self.known:
            self.known[key] = self._build(choices, bits, is_lent=bits == own)
        return self.known[key]

    def _build(self, choices: Mapping[str, str], scale_bits: int, *, is_lent: bool) -> Outcome:
        store = self.opened.ground.store
        stored = stored_as(self.model, self.opened.ground.statistics, choices)
        plans = plan_variants(
            stored.model.decoder,
            {"candidate": as_quantize(choices, method=self.method, scale_bits=scale_bits)},
        )
        with tempfile.TemporaryDirectory() as scratch:
            root, matrices = Path(scratch) / "bundle", Path(scratch) / "matrices"
            root.mkdir()
            if is_lent:
                lend_matrices(store, choices, matrices / "candidate")
            pack_bundle(
                stored.model,
                plans,
                stored.statistics,
                root,
                accuracy_level=4,
                provenance={},
                threads=self.threads,
                progress=Quiet(),
                work=matrices,
            )
            if is_lent:
                take_matrices(store, choices, matrices / "candidate")
            bundle = read_bundle(root)
            loaded, _, _ = open_engine(
                bundle, variant="candidate", engine=None, threads=self.threads
            )
            n = self._n_sequences()
            tokens = compare_tokens(
                loaded,
                self.texts.heldout.sequences[:n],
                self.hidden[:n],
                head_logits(self.model),
                progress=Quiet(),
                what="",
            )
            loaded.close()
            size = bundle.size_bytes("candidate")
        figures = quality_figures(tokens, how="")
        return Outcome(
            size_bytes=size,
            kl=figures["kl_divergence"].value,
            perplexity_increase=figures["perplexity_increase"].value,
        )

    def _n_sequences(self) -> int:
        if self.most_tokens is None:
            return len(self.texts.heldout.sequences)
        each = self.texts.heldout.sequences[0].size
        return max(self.most_tokens // each, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A model with its planner and its builder."""

    opened: Opened
    builder: Builder


def make_ground(
    name: str,
    space: SearchSpace,
    *,
    budget: Budget,
    home: Path,
    threads: int,
    most_tokens: int | None = None,
) -> Searched:
    """Run the original and measure what layers lose."""
    folder, text = model_places(name)
    model = load_model(str(folder))
    tokenizer = parse_text_files(model.files, where=name).tokenizer
    texts = split_texts(tokenizer, text, model.decoder, max_tokens=65536)
    run = run_original(
        model,
        calibration=texts.calibration.sequences,
        heldout=texts.heldout.sequences,
        threads=threads,
        progress=Quiet(),
        whole=space.method == "gptq",
    )
    basis = Basis(
        model=model,
        statistics=run.statistics,
        sequences=texts.calibration.sequences,
        text_sha256=texts.calibration.sha256,
        profile=current_profile(),
        budget=budget,
        space=space,
        accuracy_level=4,
        threads=threads,
        home=home,
    )
    opened = open_planner(basis, operations=THOROUGH, progress=Quiet())
    builder = Builder(
        model=model,
        texts=texts,
        hidden=run.hidden,
        opened=opened,
        method=space.method,
        threads=threads,
        most_tokens=most_tokens,
    )
    return Searched(opened=opened, builder=builder)
