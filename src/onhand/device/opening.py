"""From a bundle's folder to a conversation: check it, choose an engine, load, and talk."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Unpack

from onhand.core.adapter import Adapter, read_adapter
from onhand.core.bundle import Bundle, read_bundle, verifying_bundle
from onhand.core.errors import EngineUnavailable, InputError
from onhand.core.plugins import ENGINES, plugin_names
from onhand.core.profile import DeviceProfile
from onhand.device.drafters import DraftModel, PromptLookup, check_same_tokens
from onhand.device.engines.base import Engine, KvKind, Loaded
from onhand.device.engines.choosing import (
    EngineWays,
    HeadUse,
    PrefillUse,
    opener_of,
    use_head,
    use_prefill,
)
from onhand.device.engines.named import named_engine
from onhand.device.generate import TextSession
from onhand.device.probe import current_profile
from onhand.device.schedule import Limits
from onhand.device.speculate import Speculator
from onhand.device.text_files import TextFiles, read_text_files
from onhand.device.text_model import TextModel
from onhand.device.threads import usable_threads

__all__ = [
    "PREFERRED_ENGINES",
    "OpenedBundle",
    "able_engines",
    "open",
    "open_bundle",
    "open_engine",
    "open_model",
    "open_text",
]

PREFERRED_ENGINES: Final = ("native", "onnx", "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedBundle:
    """What a bundle holds, ready for use.

    Attributes:
        bundle: the verified bundle.
        files: what its text files say.
        loaded: its weights in an engine.
        engine_name: which engine.
        passed_over: engines preferred to it, and why they were not taken.
    """

    bundle: Bundle
    files: TextFiles
    loaded: Loaded
    engine_name: str
    passed_over: Mapping[str, str]


def open(  # the name that `onhand.open` has
    path: Path | str,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    context: int | None = None,
    adapter: Path | str | None = None,
    head: HeadUse = "full",
    kv: KvKind | None = None,
    prefill: PrefillUse = "exact",
    speculate: Path | str | None = None,
) -> TextSession:
    """Open a bundle for text.

    Args:
        path: the bundle's folder; every file in it is checked, weights while they are opened.
        variant: which of its variants; None for its default.
        engine: as `named_engine` takes it; None for the first of `PREFERRED_ENGINES` that can
            run the bundle here. `TextSession.engine_name` says which, `passed_over` why not others.
        threads: threads of one step; None for what this process may use.
        context: most tokens of prompt and answer together; None for the model's own.
        adapter: a LoRA adapter in PEFT's layout, folder or file, added while it runs; None: none.
        head: "full" scores every token of the vocabulary; "two-stage" looks for candidates in a
            copy of 2 bits first, in engines that can: see `TwoStageHead`.
        kv: what keys and values are kept as, "fp16" or "int8", by an engine that can; None for
            the engine's own way.
        prefill: "exact", or "bf16": prompts take less time and lose exact bits: `Bf16Prefill`.
        speculate: who drafts tokens, to be checked several at a time: "lookup", the text so far;
            a folder ("./lookup" for one of that name), its smaller model; None or "off", nobody.

    Returns:
        The session; close it, or use it in a `with` block.

    Raises:
        InputError: if there is no bundle, variant or engine of that name, a number is out of
            range, the adapter cannot be used, or the draft model has other tokens.
        BundleError: if a file is missing or changed, or its format is a later one.
        EngineUnavailable: if no engine can run it here, with every engine's reason.
        EngineError: if the engine should run it, and fails.
    """
    ways: EngineWays = {"head": head, "kv": kv, "prefill": prefill}
    whole = open_bundle(
        path, variant=variant, engine=engine, threads=threads, adapter=adapter, **ways
    )
    with ExitStack() as opened:
        opened.callback(whole.loaded.close)
        speculator = _open_speculator(speculate, whole, engine=engine, threads=threads)
        if speculator is not None:
            opened.callback(speculator.close)
        session = _join(whole, context=context, speculator=speculator)
        opened.pop_all()
    return session


def _open_speculator(
    speculate: Path | str | None,
    whole: OpenedBundle,
    *,
    engine: str | None,
    threads: int | None,
) -> Speculator | None:
    if speculate is None or speculate == "off":
        return None
    if speculate == "lookup":
        return Speculator(PromptLookup())
    smaller = read_bundle(Path(speculate))
    tokenizer = read_text_files(smaller).tokenizer
    check_same_tokens(whole.files.tokenizer, tokenizer, name=smaller.manifest.name)
    variant, _ = smaller.variant(None)
    guesses, _, _ = open_engine(smaller, variant=variant, engine=engine, threads=threads)
    loaded = whole.loaded
    drafter = DraftModel(guesses, tokenizer, vocab_size=loaded.vocab_size, context=loaded.context)
    return Speculator(drafter)


def open_model(
    path: Path | str,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    adapter: Path | str | None = None,
    head: HeadUse = "full",
    kv: KvKind | None = None,
    prefill: PrefillUse = "exact",
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> TextModel:
    """Open a bundle for several conversations at once.

    Args:
        path: as in `open`.
        variant: as in `open`.
        engine: as in `open`.
        threads: as in `open`.
        adapter: as in `open`.
        head: as in `open`.
        kv: as in `open`.
        prefill: as in `open`.
        limits: how many answers to compute at once, and how many may wait.

    Returns:
        The model; close it, or use it in a `with` block.

    Raises:
        OnhandError: as in `open`.
    """
    ways: EngineWays = {"head": head, "kv": kv, "prefill": prefill}
    whole = open_bundle(
        path, variant=variant, engine=engine, threads=threads, adapter=adapter, **ways
    )
    try:
        return TextModel(
            whole.loaded,
            whole.files,
            name=whole.bundle.manifest.name,
            engine_name=whole.engine_name,
            passed_over=whole.passed_over,
            limits=limits,
        )
    except BaseException:
        whole.loaded.close()
        raise


def open_text(
    bundle: Bundle,
    loaded: Loaded,
    *,
    context: int | None = None,
    engine_name: str = "",
    passed_over: Mapping[str, str] | None = None,
    speculator: Speculator | None = None,
) -> TextSession:
    """Join a bundle's text files and its loaded weights to a session.

    Args:
        bundle: a verified bundle.
        loaded: its weights, opened by an engine; the session owns them from now on.
        context: most tokens to remember; None for the model's own.
        engine_name: the engine of `loaded`.
        passed_over: engines preferred to it, and why they were not taken.
        speculator: drafts tokens to check, owned as well; None for plain decoding.

    Returns:
        The session.

    Raises:
        BundleCorrupt: if a text file is missing or not valid.
        InputError: if `context` is below 1 or above the model's.
    """
    whole = OpenedBundle(
        bundle=bundle,
        files=read_text_files(bundle),
        loaded=loaded,
        engine_name=engine_name,
        passed_over=passed_over or {},
    )
    return _join(whole, context=context, speculator=speculator)


def _join(
    whole: OpenedBundle, *, context: int | None, speculator: Speculator | None
) -> TextSession:
    return TextSession(
        whole.loaded,
        whole.files.tokenizer,
        template=whole.files.template,
        stop_ids=whole.files.stop_ids,
        context=context,
        name=whole.bundle.manifest.name,
        engine_name=whole.engine_name,
        passed_over=whole.passed_over,
        speculator=speculator,
    )


def open_bundle(
    path: Path | str,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    adapter: Path | str | None = None,
    **ways: Unpack[EngineWays],
) -> OpenedBundle:
    """Check a bundle, and meanwhile read its text files and open its weights.

    Args:
        path: as in `open`.
        variant: as in `open`.
        engine: as in `open`.
        threads: as in `open`.
        adapter: as in `open`.
        ways: as in `open`.

    Returns:
        Its parts, all of them checked; the caller closes `loaded`.

    Raises:
        OnhandError: as in `open`.
    """
    with ExitStack() as opened:
        with verifying_bundle(Path(path)) as bundle:
            chosen, _ = bundle.variant(variant)
            added = (
                None if adapter is None else read_adapter(Path(adapter), bundle.manifest.decoder)
            )
            # Before the weights, so that what parsing takes is free again when they come.
            files = read_text_files(bundle)
            loaded, name, passed_over = open_engine(
                bundle, variant=chosen, engine=engine, threads=threads, adapter=added, **ways
            )
            opened.callback(loaded.close)
        opened.pop_all()
    return OpenedBundle(
        bundle=bundle, files=files, loaded=loaded, engine_name=name, passed_over=passed_over
    )


def open_engine(
    bundle: Bundle,
    *,
    variant: str,
    engine: str | None,
    threads: int | None,
    adapter: Adapter | None = None,
    head: HeadUse = "full",
    kv: KvKind | None = None,
    prefill: PrefillUse = "exact",
) -> tuple[Loaded, str, dict[str, str]]:
    """Load a verified bundle in an engine.

    Args:
        bundle: the bundle.
        variant: a key of its manifest's variants.
        engine: name of a registered engine; None for the first of `PREFERRED_ENGINES` that works.
        threads: threads of one step; None for what this process may use.
        adapter: what is added to its matrices; None for nothing.
        head: as in `open`.
        kv: what keys and values are kept as; None for the engine's own way.
        prefill: as in `open`.

    Returns:
        The loaded weights, the engine's name, and why each one before it was passed over.

    Raises:
        InputError: if there is no such engine, use of a head or other way, or `threads` is below 1.
        EngineUnavailable: if no engine can run it here, with every engine's reason.
        EngineError: if the engine should run it, and fails.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, must be 1 or more")
    able, reasons = able_engines(bundle, current_profile(), variant=variant, wanted=engine, kv=kv)
    n_threads = threads or usable_threads()
    for name, candidate in able.items():
        try:
            opener = opener_of(candidate, kv)
            opened = opener(bundle, variant=variant, threads=n_threads, adapter=adapter)
            use_head(opened, head, engine_name=name)
            use_prefill(opened, prefill, engine_name=name)
        except EngineUnavailable as error:
            reasons[name] = str(error)
        else:
            before = _order()[: _order().index(name)] if engine is None else []
            return opened, name, {other: reasons[other] for other in before}
    raise EngineUnavailable(_none_able(bundle, variant, reasons))


def able_engines(
    bundle: Bundle,
    profile: DeviceProfile,
    *,
    variant: str,
    wanted: str | None,
    kv: KvKind | None = None,
) -> tuple[dict[str, Engine], dict[str, str]]:
    """Ask the registered engines whether they can run a variant here.

    Args:
        bundle: a verified bundle.
        profile: what this device has.
        variant: a key of its manifest's variants.
        wanted: name of the only engine to ask; None for all, `PREFERRED_ENGINES` first.
        kv: what keys and values are to be kept as; None for each engine's own way.

    Returns:
        Those that can, in order of preference, at least one; and why each other one cannot.

    Raises:
        InputError: if there is no engine of the wanted name, or no such way.
        EngineUnavailable: if none can, with every engine's reason.
    """
    able: dict[str, Engine] = {}
    reasons: dict[str, str] = {}
    for name in _order() if wanted is None else [wanted]:
        try:
            engine = named_engine(name)
        except InputError as error:
            if wanted is not None:
                raise
            reasons[name] = str(error)
            continue
        reason = engine.why_not(bundle, profile, variant=variant) or _why_not_keep(engine, kv)
        if reason is None:
            able[name] = engine
        else:
            reasons[name] = reason
    if not able:
        raise EngineUnavailable(_none_able(bundle, variant, reasons))
    return able, reasons


def _why_not_keep(engine: Engine, kv: KvKind | None) -> str | None:
    try:
        opener_of(engine, kv)
    except EngineUnavailable as error:
        return str(error)
    return None


def _order() -> list[str]:
    known = plugin_names(ENGINES)
    preferred = [name for name in PREFERRED_ENGINES if name in known]
    return [*preferred, *(name for name in known if name not in PREFERRED_ENGINES)]


def _none_able(bundle: Bundle, variant: str, reasons: dict[str, str]) -> str:
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return (
        f"{bundle.root}: no engine can run variant {variant!r} here: {listed or 'none installed'}"
    )
