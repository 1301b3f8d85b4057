"""How much a bundle lost against its original, on any text."""

from contextlib import closing
from functools import partial
from pathlib import Path

from onhand.core.arrays import TokenArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.measurement import Measurement
from onhand.core.progress import Progress, Quiet
from onhand.device.engines.base import KvKind
from onhand.device.engines.choosing import PrefillUse
from onhand.device.learning.in_use import LearnedVersion, adapter_for
from onhand.device.opening import able_engines, open_engine
from onhand.device.probe import current_profile
from onhand.device.state import recall, remember
from onhand.device.text_files import read_text_files
from onhand.host.adapters import merge_adapter
from onhand.host.calibrate import head_logits, run_original
from onhand.host.compare import compare_tokens, quality_figures
from onhand.host.documents import read_documents
from onhand.host.model import Model
from onhand.host.sources import load_model
from onhand.host.texts import cut_sequences

__all__ = ["evaluate_bundle", "record_original", "recorded_place"]

_RECORD = "original"


def record_original(
    home: Path,
    manifest_sha256: str,
    location: str,
    sha256: str,
    *,
    adapter: Path | None = None,
) -> None:
    """Remember, in the builder's own state, what a bundle was made from.

    The bundle itself holds no path: it may travel, and a path says much about its builder.

    Args:
        home: the state folder.
        manifest_sha256: the bundle's identity.
        location: the source as the user gave it, made absolute if it is a folder.
        sha256: of the source.
        adapter: the adapter merged into it.
    """
    value = {"location": location, "sha256": sha256}
    if adapter is not None:
        value["adapter"] = str(adapter.resolve())
    remember(home, manifest_sha256, _RECORD, value)


def find_original(home: Path, bundle: Bundle, original: Path | None, adapter: Path | None) -> Model:
    """Open the model that a bundle was made from, its adapter merged.

    Args:
        home: the state folder.
        bundle: the bundle.
        original: the folder, if the user gave one; else what the build recorded.
        adapter: the same of the adapter, for a bundle with one merged.

    Returns:
        The model.

    Raises:
        InputError: if nothing is recorded, the source is gone, or it is another model.
    """
    provenance = bundle.manifest.provenance
    location = _recorded(home, bundle, "location") if original is None else str(original)
    if original is None and Path(location).is_absolute() and not Path(location).is_dir():
        raise InputError(f"{bundle.root}: its original {location} is gone; give --original DIR")
    model = load_model(location)
    if "adapter_sha256" in provenance:
        model = merge_adapter(model, adapter or Path(_recorded(home, bundle, "adapter")))
    elif adapter is not None:
        raise InputError(f"{bundle.root}: no adapter was merged into its original")
    if model.sha256 != (expected := provenance.get("source_sha256")):
        raise InputError(
            f"{location} is not what {bundle.root} was made from: SHA-256 {model.sha256}, "
            f"expected {expected}; give --original DIR"
        )
    return model


def recorded_place(home: Path, bundle: Bundle) -> str:
    """Return where a bundle's original was when it was built.

    Raises:
        InputError: if nothing is recorded.
    """
    return _recorded(home, bundle, "location")


def _recorded(home: Path, bundle: Bundle, key: str) -> str:
    """Return a place that the build recorded.

    Raises:
        InputError: if it recorded none.
    """
    record = recall(home, bundle.manifest_sha256, _RECORD)
    place = record.get(key) if isinstance(record, dict) else None
    if not isinstance(place, str):
        what, option = (
            ("adapter", "--original-adapter") if key == "adapter" else ("original", "--original")
        )
        raise InputError(
            f"{bundle.root}: this machine has no record of its {what}; give {option} DIR"
        )
    return place


def evaluate_bundle(
    root: Path,
    text: Path,
    *,
    original: Path | None = None,
    original_adapter: Path | None = None,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    kv: KvKind | None = None,
    prefill: PrefillUse = "exact",
    max_tokens: int | None = None,
    version: LearnedVersion | None = None,
    home: Path,
    progress: Progress | None = None,
) -> dict[str, Measurement]:
    """Compare a bundle with its original on a text, in the engine that ships.

    Args:
        root: the bundle's folder.
        text: a UTF-8 text that calibration has not seen.
        original: the original's folder; None for what the build recorded.
        original_adapter: the adapter merged into it; None for what the build recorded.
        variant: which variant; None for the default one.
        engine: engine name; None for the best that works.
        threads: threads to use; None for all usable ones.
        kv: what keys and values are kept as, by an engine that can; None for its own way.
        prefill: "exact", or "bf16" in an engine that can, on a processor that can.
        max_tokens: most tokens of the text, from its beginning; None for all.
        version: learned on this device; None for the bundle as it was built.
        home: the builder's state folder.
        progress: told how far it is.

    Returns:
        By name: perplexity, original_perplexity, perplexity_increase, kl_divergence,
        top1_agreement, flip_rate; each with a 95 % confidence interval.

    Raises:
        InputError: if bundle, text or original cannot be used.
        BundleCorrupt: if the bundle is damaged.
        EngineUnavailable: if no engine runs it here.
    """
    shown = progress or Quiet()
    bundle = read_bundle(root)
    chosen, _ = bundle.variant(variant)
    # Both are asked before the original runs, which takes long; only weights know of `prefill`.
    able_engines(bundle, current_profile(), variant=chosen, wanted=engine, kv=kv)
    opened = partial(open_engine, bundle, variant=chosen, engine=engine, threads=threads, kv=kv,
                     adapter=adapter_for(bundle, version))  # fmt: skip
    if prefill != "exact":
        opened(prefill=prefill)[0].close()
    model = find_original(home, bundle, original, original_adapter)
    heldout = _sequences(bundle, model, text, max_tokens)
    run = run_original(model, calibration=[], heldout=heldout, threads=threads, progress=shown)
    what = f"comparing {chosen} with the original"
    with closing(opened(prefill=prefill)[0]) as loaded:
        logits = head_logits(model)
        figures = compare_tokens(loaded, heldout, run.hidden, logits, progress=shown, what=what)
    how = _how(bundle, text, variant=variant, kv=kv, prefill=prefill, max_tokens=max_tokens)
    return quality_figures(figures, how=how + ("" if version is None else version.option()))


def _sequences(
    bundle: Bundle, model: Model, text: Path, max_tokens: int | None
) -> tuple[TokenArray, ...]:
    files = read_text_files(bundle)
    part = cut_sequences(
        files.tokenizer,
        read_documents(text),
        model.decoder,
        what=f"the text {text.name}",
        max_tokens=max_tokens,
        template=files.template,
    )
    return part.sequences


def _how(
    bundle: Bundle,
    text: Path,
    *,
    variant: str | None,
    kv: KvKind | None,
    prefill: PrefillUse,
    max_tokens: int | None,
) -> str:
    options = "" if variant is None else f" --variant {variant}"
    options += "" if kv is None else f" --kv {kv}"
    options += "" if prefill == "exact" else f" --prefill {prefill}"
    options += "" if max_tokens is None else f" --max-tokens {max_tokens}"
    return f"onhand evaluate {bundle.manifest.name} --text {text.name}{options}"
