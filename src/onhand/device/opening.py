"""From a bundle's folder to a conversation: check it, choose an engine, load, and talk."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from onhand.core.adapter import Adapter, read_adapter
from onhand.core.bundle import Bundle, verifying_bundle
from onhand.core.errors import InputError
from onhand.core.progress import Progress
from onhand.core.scope import Scope
from onhand.device.adapting.choosing import WayChoice
from onhand.device.engine_opening import (
    PREFERRED_ENGINES,
    OpenedEngine,
    able_engines,
    open_chosen,
    open_engine,
)
from onhand.device.engines.base import KvKind, Loaded
from onhand.device.engines.choosing import EngineWays, HeadUse, PrefillUse
from onhand.device.generate import TextSession
from onhand.device.learning.in_use import (
    AS_BUILT,
    InUse,
    choose_version,
    learned_adapter,
)
from onhand.device.schedule import Limits
from onhand.device.speculate import Speculator
from onhand.device.speculator_opening import open_speculator
from onhand.device.text_files import TextFiles, read_text_files
from onhand.device.text_model import TextModel
from onhand.device.tracks import SCOPE_ENGINE, let_leave_out

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


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedBundle:
    """What a bundle holds, ready for use.

    Attributes:
        bundle: the verified bundle.
        files: what its text files say.
        loaded: its weights in an engine.
        engine_name: which engine.
        passed_over: engines preferred to it, or timed and slower, and why they were not taken.
        choice: how engine and threads were chosen; None where nobody says.
        learned: which learned version is used.
        scope: which prompts it answers; None for all.
    """

    bundle: Bundle
    files: TextFiles
    loaded: Loaded
    engine_name: str
    passed_over: Mapping[str, str]
    choice: WayChoice | None = None
    learned: InUse = AS_BUILT
    scope: Scope | None = None


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
    version: int | None = None,
    home: Path | None = None,
    trials: bool = True,
    progress: Progress | None = None,
) -> TextSession:
    """Open a bundle for text.

    Args:
        path: the bundle's folder; every file in it is checked, weights while they are opened.
        variant: which of its variants; None for its default.
        engine: as in `open_bundle`.
        threads: as in `open_bundle`.
        context: most tokens of prompt and answer together; None for the model's own.
        adapter: a LoRA adapter in PEFT's layout, folder or file, added while it runs; None: none.
        head: as in `open_bundle`.
        kv: as in `open_bundle`.
        prefill: "exact", or "bf16": prompts take less time and lose exact bits: `Bf16Prefill`.
        speculate: who drafts tokens, to be checked several at a time: "lookup", the text so far;
            a folder ("./lookup" for one of that name), its smaller model; None or "off", nobody.
        version: as in `open_bundle`.
        home: as in `open_bundle`.
        trials: whether ways to run it may be timed.
        progress: told of a trial.

    Returns:
        The session; close it, or use it in a `with` block.

    Raises:
        InputError: if there is no bundle, variant, engine or version of that name, a number is out
            of range, the adapter cannot be used (or a version is), or the draft has other tokens.
        BundleError: if a file is missing or changed, or its format is a later one.
        EngineUnavailable: if no engine can run it here, with every engine's reason.
        EngineError: if the engine should run it, and fails.
    """
    ways: EngineWays = {"head": head, "kv": kv, "prefill": prefill}
    whole = open_bundle(
        path,
        variant=variant,
        engine=engine,
        threads=threads,
        adapter=adapter,
        version=version,
        home=home,
        trials=trials,
        progress=progress,
        **ways,
    )
    return _talking(whole, speculate, engine=engine, threads=threads, context=context)


def _talking(
    whole: OpenedBundle,
    speculate: Path | str | None,
    *,
    engine: str | None,
    threads: int | None,
    context: int | None,
) -> TextSession:
    """Start a conversation with opened weights, which are closed where that fails."""
    with ExitStack() as opened:
        opened.callback(whole.loaded.close)
        speculator = open_speculator(
            speculate, whole.files.tokenizer, whole.loaded, engine=engine, threads=threads
        )
        if speculator is not None:
            opened.callback(speculator.close)
        session = _join(whole, context=context, speculator=speculator)
        opened.pop_all()
    return session


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
    version: int | None = None,
    home: Path | None = None,
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
        version: as in `open`.
        home: as in `open`.

    Returns:
        The model; close it, or use it in a `with` block.

    Raises:
        OnhandError: as in `open`.
    """
    ways: EngineWays = {"head": head, "kv": kv, "prefill": prefill}
    whole = open_bundle(
        path,
        variant=variant,
        engine=engine,
        threads=threads,
        adapter=adapter,
        version=version,
        home=home,
        **ways,
    )
    try:
        return _shared(whole, limits)
    except BaseException:
        whole.loaded.close()
        raise


def _shared(whole: OpenedBundle, limits: Limits) -> TextModel:
    return TextModel(
        whole.loaded,
        whole.files,
        name=whole.bundle.manifest.name,
        engine_name=whole.engine_name,
        passed_over=whole.passed_over,
        choice=whole.choice,
        learned=whole.learned,
        scope=whole.scope,
        limits=limits,
    )


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
        choice=whole.choice,
        learned=whole.learned,
        scope=whole.scope,
        speculator=speculator,
    )


def open_bundle(
    path: Path | str,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    adapter: Path | str | None = None,
    version: int | None = None,
    home: Path | None = None,
    trials: bool = True,
    progress: Progress | None = None,
    **ways: Unpack[EngineWays],
) -> OpenedBundle:
    """Check a bundle, and meanwhile read its text files and open its weights.

    Args:
        path: as in `open`.
        variant: as in `open`.
        engine: as `named_engine` takes it; None for the quickest here, or without `home` for the
            first of `PREFERRED_ENGINES` that can run the bundle. `TextSession.engine_name` says
            which, `passed_over` why not others.
        threads: threads of one step; None for the quickest number, or without `home` for what
            this process may use.
        adapter: as in `open`.
        version: learned on this device; 0 for the bundle as it was built; None for the one in use,
            or without `home` for 0.
        home: the state folder: ways to run it are timed at the first opening, for a few seconds,
            and what is quickest is kept there, as is what was learned; None for neither.
        trials: as in `open`.
        progress: as in `open`.
        ways: head, "full" or "two-stage" (see `TwoStageHead`); kv, "fp16" or "int8", or None for
            the engine's own way; prefill as in `open`.

    Returns:
        Its parts, all of them checked; the caller closes `loaded`.

    Raises:
        OnhandError: as in `open`.
    """
    with ExitStack() as opened:
        with verifying_bundle(Path(path)) as bundle:
            chosen, _ = bundle.variant(variant)
            learned, added = _added(bundle, adapter, version=version, home=home)
            # Before the weights, so that what parsing takes is free again when they come.
            files = read_text_files(bundle)
            opening = open_chosen(
                bundle,
                variant=chosen,
                engine=_engine_for(added, engine),
                threads=threads,
                home=home if trials else None,
                progress=progress,
                adapter=added,
                **ways,
            )
            opened.callback(opening.loaded.close)
            made = _opened(bundle, files, opening, learned, added)
        opened.pop_all()
    return made


def _engine_for(added: Adapter | None, engine: str | None) -> str | None:
    """Return the engine that is asked for: what has a scope needs one that can leave it out."""
    return engine or (None if added is None or added.scope is None else SCOPE_ENGINE)


def _opened(
    bundle: Bundle,
    files: TextFiles,
    opening: OpenedEngine,
    learned: InUse,
    added: Adapter | None,
) -> OpenedBundle:
    scope = None if added is None else added.scope
    if scope is not None:
        let_leave_out(opening.loaded, opening.choice.engine, learned.sentence())
    return OpenedBundle(
        bundle=bundle,
        files=files,
        loaded=opening.loaded,
        engine_name=opening.choice.engine,
        passed_over=opening.passed_over,
        choice=opening.choice,
        learned=learned,
        scope=scope,
    )


def _added(
    bundle: Bundle, adapter: Path | str | None, *, version: int | None, home: Path | None
) -> tuple[InUse, Adapter | None]:
    """Return which learned version is used, and what is added to the bundle's matrices.

    Raises:
        InputError: if both an adapter and a learned version would be.
    """
    learned, found = choose_version(bundle, home, version)
    if adapter is not None and found is not None:
        # Nobody has looked at the two together: the version was learned, and passed its gate,
        # without that adapter.
        raise InputError(
            f"{bundle.root}: version {learned.number} was learned without the adapter {adapter}; "
            "open the bundle as it was built (version base), or without the adapter"
        )
    if adapter is not None:
        return learned, read_adapter(Path(adapter), bundle.manifest.decoder)
    if found is None or home is None:
        return learned, None
    return learned, learned_adapter(bundle, home, found)
