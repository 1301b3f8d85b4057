"""Put a large model on the device in the user's hand, prove that it fits, and talk to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onhand.core.budget import Breach, Budget, parse_budget
from onhand.core.errors import OnhandError
from onhand.core.measurement import Measurement
from onhand.deciding import decided
from onhand.learning import learn, open_versions

if TYPE_CHECKING:
    from onhand.core.progress import Progress
    from onhand.device.engines.base import KvKind
    from onhand.device.generate import TextSession
    from onhand.device.networks.session import NetworkSession
    from onhand.device.serving.inprocess import Service
    from onhand.device.text_model import TextModel
    from onhand.host.build import BuildResult
    from onhand.host.export.result import ExportResult
    from onhand.host.learning.wanted import Learnable
    from onhand.host.networks.model import NetworkModel
    from onhand.host.networks.steps import Step
    from onhand.host.passes.base import Pass, ShapingStep
    from onhand.host.search.choices import SearchSpace

__all__ = [
    "Breach",
    "Budget",
    "Measurement",
    "OnhandError",
    "__version__",
    "build",
    "build_network",
    "export_bundle",
    "learn",
    "open",
    "open_model",
    "open_network",
    "open_service",
    "open_versions",
]

__version__ = "0.1.0"


@decided(checks=True)
def open(
    path: str | Path,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    context: int | None = None,
    adapter: str | Path | None = None,
    head: Literal["full", "two-stage"] = "full",
    kv: "KvKind | None" = None,
    prefill: Literal["exact", "bf16"] = "exact",
    speculate: str | Path | None = None,
    version: int | None = None,
    home: str | Path | None = None,
) -> "TextSession":
    """Open a bundle and start a conversation. See `onhand.device.opening.open`.

    Args:
        path: the bundle's folder; every file in it is checked, weights while they are opened,
            and its signature as by the commands (`docs/signing.md`).
        variant: which of its variants; None for its default.
        engine: name of an engine; None for the best that can run the bundle here.
        threads: threads of one step; None for what this process may use, or what is quickest.
        context: most tokens of prompt and answer together; None for the model's own.
        adapter: a LoRA adapter in PEFT's layout, added to the model while it runs; None for none.
        head: "full" scores every token of the vocabulary; "two-stage" looks for candidates in a
            copy of 2 bits first, which is faster and now and then takes another token.
        kv: "int8" halves the memory of conversations in engines that can; None for their own way.
        prefill: "bf16" reads prompts faster on processors with AMX, near "exact" but not to the
            same bits, nor to the same ones however a prompt is cut.
        speculate: "lookup", or the folder of a smaller bundle, drafts tokens to be checked several
            at a time; None or "off" does not.
        version: learned on this device; 0 for the bundle as it was built; None for the one in use,
            or without `home` for 0.
        home: the state folder: what runs the bundle quickest here is timed at its first opening,
            for a few seconds, and kept there, as is what was learned; None for neither.

    Returns:
        The session; close it, or use it in a `with` block.

    Raises:
        OnhandError: if the bundle is damaged, or cannot run here.
    """
    from onhand.device import opening

    return opening.open(
        path,
        variant=variant,
        engine=engine,
        threads=threads,
        context=context,
        adapter=adapter,
        head=head,
        kv=kv,
        prefill=prefill,
        speculate=speculate,
        version=version,
        home=None if home is None else Path(home),
    )


@decided(checks=True)
def open_model(
    path: str | Path,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    adapter: str | Path | None = None,
    head: Literal["full", "two-stage"] = "full",
    kv: "KvKind | None" = None,
    prefill: Literal["exact", "bf16"] = "exact",
    max_active: int | None = None,
    max_waiting: int | None = None,
    version: int | None = None,
    home: str | Path | None = None,
) -> "TextModel":
    """Open a bundle for several conversations at once. See `onhand.device.opening.open_model`.

    Args:
        path: as in `open`.
        variant: as in `open`.
        engine: as in `open`.
        threads: as in `open`.
        adapter: as in `open`.
        head: as in `open`.
        kv: as in `open`.
        prefill: as in `open`.
        max_active: answers computed in one step; None for the default of `Limits`.
        max_waiting: answers that may wait for their turn; None for the default of `Limits`.
        version: as in `open`.
        home: as in `open`.

    Returns:
        The model; its `session()` starts a conversation. Close it, or use it in a `with` block.

    Raises:
        OnhandError: if the bundle is damaged, or cannot run here.
    """
    from onhand.device import opening
    from onhand.device.schedule import Limits

    given = {"max_active": max_active, "max_waiting": max_waiting}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    return opening.open_model(
        path,
        variant=variant,
        engine=engine,
        threads=threads,
        adapter=adapter,
        head=head,
        kv=kv,
        prefill=prefill,
        limits=limits,
        version=version,
        home=None if home is None else Path(home),
    )


@decided(checks=False)
def build(
    source: str | Path,
    out: str | Path,
    *,
    transforms: "Mapping[str, Pass] | None" = None,
    shaping: "Sequence[ShapingStep]" = (),
    adapter: str | Path | None = None,
    budget: Budget | str | None = None,
    calibrate: str | Path | None = None,
    home: str | Path | None = None,
    accept_estimates: bool = False,
    progress: "Progress | None" = None,
    space: "SearchSpace | None" = None,
    n_variants: int = 1,
    learnable: "Learnable | None" = None,
) -> "BuildResult":
    """Compress a model into a bundle, and prove it. See `onhand.host.build.build_bundle`.

    Args:
        source: a folder, or an id on a hub.
        out: the bundle's folder; must not exist.
        transforms: variant name -> its pass, the first is the default; None for a search under the
            budget; without one for int4 in groups of 32, or a quantised source's own codes.
        shaping: steps that change the model before that, with `Prune` or `Distil`, in order.
        adapter: a LoRA adapter in PEFT's layout, merged into the source first; None for none.
        budget: limits, as `Budget` or as text: "disk=400MiB,quality=1%".
        calibrate: a text of the model's use; None for the built-in sample.
        home: the builder's state folder; None for the user's own.
        accept_estimates: whether an estimated figure may satisfy a limit.
        progress: told how far it is; None shows nothing.
        space: what a search may choose from, also beside `shaping`; None for all it usually does.
        n_variants: points of the front that a search puts into the bundle.
        learnable: what it should learn on a device, as `parse_learnable("lora,rank=8")` reads it.

    Returns:
        The bundle's place and its report.

    Raises:
        OnhandError: if the source cannot be used, or the budget does not hold.
    """
    from onhand.host.build import build_bundle
    from onhand.host.options import BuildOptions
    from onhand.host.passes.quantize import Quantize
    from onhand.host.search.choices import SearchSpace

    limits = parse_budget(budget) if isinstance(budget, str) else budget or Budget()
    searches = not transforms and not shaping and limits != Budget()
    options = BuildOptions(
        transforms=transforms or {"int4": Quantize()},
        shaping=tuple(shaping),
        keep_codes=not transforms and not shaping,
        budget=limits,
        search=space or (SearchSpace() if searches else None),
        n_variants=n_variants,
        calibrate=None if calibrate is None else Path(calibrate),
        accept_estimates=accept_estimates,
        adapter=None if adapter is None else Path(adapter),
        learnable=learnable,
    )
    return build_bundle(str(source), Path(out), options, home=_home(home), progress=progress)


@decided(checks=True)
def open_network(
    path: str | Path,
    *,
    variant: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    version: int | None = None,
    home: str | Path | None = None,
) -> "NetworkSession":
    """Open a bundle that holds no language model. See `onhand.device.networks.session`.

    Args:
        path: the bundle's folder; every file in it is checked.
        variant: which of its variants; None for the one that is quickest here, of those that hold
            the bundle's budget.
        engine: name of an engine; None for the quickest. Both are timed once.
        threads: threads of one run; None for what this process may use.
        version: learned on this device; 0 for the bundle as it was built; None for the one in use.
        home: the state folder, which keeps all this; None for the user's own.

    Returns:
        The network; close it, or use it in a `with` block.

    Raises:
        OnhandError: if the bundle is damaged, or cannot run here.
    """
    from onhand.device.networks.session import open_session

    where = None if home is None else Path(home)
    return open_session(
        path, variant=variant, engine=engine, threads=threads, version=version, home=where
    )


def open_service(
    *bundles: str | Path,
    config: str | Path | None = None,
    home: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> "Service":
    """Open bundles behind the API of `onhand serve`, without a socket.

    Args:
        bundles: folders; the first answers requests that name none.
        config: a `serve.toml`, whose models come after those; None for none.
        home: the state folder; None for the user's own.
        environment: where secrets stand that the settings name; None for nowhere.

    Returns:
        The service: `post` and `stream` take what the routes take, and `http` is a client for
        OpenAI's. Close it, or use it in a `with` block.

    Raises:
        OnhandError: if settings are wrong, or a bundle cannot be opened here.
    """
    from onhand.device.serving.assembling import opened_state, read_settings, with_bundles
    from onhand.device.serving.inprocess import Service
    from onhand.device.serving.settings import ServeSettings
    from onhand.device.trust.usual import usual_trust, within

    settings = ServeSettings()
    if config is not None:
        settings = read_settings(Path(config), environment=environment or {})
    settings = with_bundles(settings, [Path(one) for one in bundles])
    state = opened_state(settings, home=_home(home), told=_quiet)
    return Service(within(usual_trust(home, checks=True), state), settings)


def _quiet(_: str) -> None:
    """Say nothing."""


@decided(checks=False)
def build_network(
    source: "str | Path | NetworkModel",
    out: str | Path,
    *,
    task: str,
    data: str | Path | None = None,
    heldout: str | Path | None = None,
    variants: "Mapping[str, Sequence[Step]] | None" = None,
    calibration_examples: int = 100,
    feed: str | None = None,
    labels: str | Path | None = None,
    budget: Budget | str | None = None,
    home: str | Path | None = None,
    accept_estimates: bool = False,
    progress: "Progress | None" = None,
) -> "BuildResult":
    """Compress a network that is no language model. See `onhand.host.networks.build`.

    Args:
        source: a file or a folder; or what `model_from_torch` made of a module.
        out: the bundle's folder; must not exist.
        task: one of `onhand.core.network.TASKS`.
        data: examples, see `onhand.host.networks.data`; None for none.
        heldout: examples that judge; None for those of `data` that no step saw.
        variants: name -> steps, the first is the default; None for int8.
        calibration_examples: that steps may see.
        feed: how pictures are scaled, or a `.toml` file that says how inputs are made.
        labels: a file with the names of the classes.
        budget: limits, as `Budget` or as text: "loss=1%,latency=5ms".
        home: the builder's state folder; None for the user's own.
        accept_estimates: whether an estimated figure may satisfy a limit.
        progress: told how far it is; None shows nothing.

    Returns:
        The bundle's place and its report.

    Raises:
        OnhandError: if the source cannot be used, or the budget does not hold.
    """
    from onhand.host.networks.build import build_network as build
    from onhand.host.networks.options import NetworkOptions
    from onhand.host.networks.passes.quantize import QuantizeNetwork
    from onhand.host.networks.steps import Step

    options = NetworkOptions(
        task=task,
        variants={name: tuple(steps) for name, steps in (variants or {}).items()}
        or {"int8": (Step(QuantizeNetwork()),)},
        data=None if data is None else Path(data),
        heldout=None if heldout is None else Path(heldout),
        n_calibration=calibration_examples,
        feed=feed,
        labels=None if labels is None else Path(labels),
        budget=parse_budget(budget) if isinstance(budget, str) else budget or Budget(),
        accept_estimates=accept_estimates,
    )
    place = str(source) if isinstance(source, Path) else source
    return build(place, Path(out), options, home=_home(home), progress=progress)


@decided(checks=True)
def export_bundle(
    path: str | Path,
    out: str | Path,
    *,
    to: str,
    variant: str | None = None,
    progress: "Progress | None" = None,
) -> "ExportResult":
    """Write a bundle for another runtime. See `onhand.host.export.bundle_export`.

    Args:
        path: the bundle's folder; every file in it is checked first.
        out: the file or folder to make; must not exist.
        to: "gguf" for llama.cpp, "genai" for onnxruntime-genai.
        variant: which of its variants; None for its default.
        progress: told how far it is; None shows nothing.

    Returns:
        What was written, and what was lost.

    Raises:
        OnhandError: if the bundle is damaged, or the other format cannot hold it.
    """
    from onhand.host.export.bundle_export import export_bundle

    return export_bundle(Path(path), Path(out), to=to, variant=variant, progress=progress)


def _home(given: str | Path | None) -> Path:
    """Return the state folder: the user's own for None."""
    from onhand.device.state import default_home

    return default_home() if given is None else Path(given)
