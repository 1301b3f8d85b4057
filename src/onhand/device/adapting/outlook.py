"""What would run a bundle on a device, with what, and why nothing else: here, or foretold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from onhand import native
from onhand.core.bundle import Bundle
from onhand.core.manifest import LANGUAGE_MODEL, Variant
from onhand.core.profile import DeviceProfile
from onhand.device.adapting.accelerators import with_providers
from onhand.device.adapting.choosing import LAST_RESORT, WayChoice, recall_way
from onhand.device.adapting.races import Race
from onhand.device.engine_opening import able_engines, able_ways
from onhand.device.engines.base import Engine
from onhand.device.engines.ways_engine import WaysEngine
from onhand.device.hardware.execution_providers import provider_options
from onhand.device.networks.base import NetworkEngine
from onhand.device.networks.opening import able_engines as able_network_engines
from onhand.device.networks.opening import recall_network
from onhand.device.networks.ways import WaysNetworkEngine

__all__ = ["Outlook", "WayOutlook", "look_ahead", "look_here", "predicted_kernels"]

_AVX512: Final = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_vnni"})
_AMX: Final = frozenset({"amx_tile", "amx_int8", "amx_bf16", "avx512_bf16"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOutlook:
    """One way to run a bundle.

    Attributes:
        engine: its name, with an accelerator behind a colon.
        is_chosen: whether opening takes it.
        kernels: what computes: instructions, or an execution provider.
        precision: what products are computed in.
        threads: of one step; 0 where the engine chooses.
        why: why it is taken, or why not, with figures where there are some.
    """

    engine: str
    is_chosen: bool
    kernels: str
    precision: str
    threads: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What would run a variant on a device.

    Attributes:
        device: its name.
        variant: which is run.
        is_predicted: whether the device is another than this one, so that nothing could be asked.
        ways: all that are known, the one that is taken first.
        notes: what the reader should know.
    """

    device: str
    variant: str
    is_predicted: bool
    ways: tuple[WayOutlook, ...]
    notes: tuple[str, ...] = field(default=())


def look_here(bundle: Bundle, variant: str, profile: DeviceProfile, *, home: Path) -> Outlook:
    """Say what runs a variant on this device, as far as it is known without running anything.

    Args:
        bundle: its files need not be verified: only the manifest is read.
        variant: one of its variants.
        profile: of this device.
        home: the state folder, with what was timed before.

    Returns:
        The outlook.

    Raises:
        EngineUnavailable: if no engine can run it here, with every engine's reason.
    """
    able, reasons, choice = _asked(bundle, variant, profile, home=home)
    notes = () if choice is not None else (
        "nothing was timed yet: the first opening times these ways and remembers the quickest",
    )  # fmt: skip
    taken = choice or WayChoice(engine=able[0], threads=profile.usable_threads, source="preferred")
    return Outlook(
        device=profile.name,
        variant=variant,
        is_predicted=False,
        ways=_ways(bundle, variant, able, reasons, taken, _kernels_here()),
        notes=notes,
    )


def look_ahead(bundle: Bundle, variant: str, profile: DeviceProfile) -> Outlook:
    """Foretell what would run a variant on another device with the same packages.

    Args:
        bundle: as in `look_here`.
        variant: as there.
        profile: of the other device.

    Returns:
        The outlook; nothing of it was measured.

    Raises:
        EngineUnavailable: if no engine could run it.
    """
    able, reasons, _ = _asked(bundle, variant, profile, home=None)
    taken = WayChoice(engine=able[0], threads=profile.usable_threads, source="preferred")
    return Outlook(
        device=profile.name,
        variant=variant,
        is_predicted=True,
        ways=_ways(bundle, variant, able, reasons, taken, predicted_kernels(profile)),
        notes=(
            "foretold from the device's profile, with the packages that are installed here; the "
            "first opening on the device times these ways and may find another quicker",
        ),
    )


def predicted_kernels(profile: DeviceProfile) -> str:
    """Return the instruction set that the native engine would use on a device.

    Args:
        profile: with what the system there calls its instruction sets.

    Returns:
        A name of `native.module.instruction_sets()`.
    """
    sets = frozenset(profile.instruction_sets)
    if profile.machine.lower() in {"aarch64", "arm64"}:
        if "dotprod" not in sets:
            return "portable"
        return "neon-i8mm" if "i8mm" in sets else "neon"
    if sets >= _AVX512:
        return "amx" if sets >= _AMX else "avx512"
    if not sets >= {"avx2", "fma", "f16c"}:
        return "portable"
    return "avx2-vnni" if "avx_vnni" in sets else "avx2"


def _kernels_here() -> str:
    return "portable" if native.module is None else str(native.module.instruction_sets()[0])


def _asked(
    bundle: Bundle, variant: str, profile: DeviceProfile, *, home: Path | None
) -> tuple[tuple[str, ...], dict[str, str], WayChoice | None]:
    """Return the ways that can, why others cannot, and what was chosen before."""
    if bundle.manifest.kind == LANGUAGE_MODEL:
        if home is None:
            engines, reasons = able_engines(bundle, profile, variant=variant, wanted=None)
            return (*engines, *_accelerated(engines, profile)), reasons, None
        names, reasons = able_ways(bundle, with_providers(profile), variant=variant)
        return names, reasons, recall_way(bundle, variant, profile, home=home)
    networks, reasons = able_network_engines(bundle, profile, variant=variant)
    if home is None:
        return (*networks, *_accelerated(networks, profile)), reasons, None
    known = recall_network(bundle, variant, profile, home=home)
    if known is None:
        return (*networks, *_accelerated(networks, with_providers(profile))), reasons, None
    race, threads = known
    return tuple({**networks, **race.latency_s}), reasons, _of_race(race, threads)


def _accelerated(
    engines: Mapping[str, Engine] | Mapping[str, NetworkEngine], profile: DeviceProfile
) -> tuple[str, ...]:
    """Return the names of what engines could compute on beside the processor."""
    return tuple(
        f"{name}:{way}"
        for name, engine in engines.items()
        if isinstance(engine, WaysEngine | WaysNetworkEngine)
        for way in engine.ways(profile)
    )


def _of_race(race: Race, threads: int) -> WayChoice:
    winner = race.winner()
    slower = {name: why for name, why in race.reasons().items() if name not in race.failed}
    return WayChoice(
        engine=winner,
        threads=threads,
        source="remembered",
        slower=slower,
        failed=race.failed,
        figures={"latency_s": race.latency_s[winner]},
    )


def _ways(
    bundle: Bundle,
    variant: str,
    able: tuple[str, ...],
    reasons: Mapping[str, str],
    taken: WayChoice,
    kernels: str,
) -> tuple[WayOutlook, ...]:
    form = bundle.manifest.variants[variant]
    others = taken.others()

    def outlook(name: str, why: str) -> WayOutlook:
        computes, precision = _computes(name, form, kernels)
        threads = 0 if name in {LAST_RESORT, "torch"} or ":" in name else taken.threads
        return WayOutlook(
            engine=name,
            is_chosen=name == taken.engine,
            kernels=computes,
            precision=precision,
            threads=threads,
            why=why,
        )

    first = outlook(taken.engine, _why_taken(taken, bundle.manifest.kind == LANGUAGE_MODEL))
    rest = [name for name in able if name != taken.engine]
    said = {name: others.get(name, _untimed(name, taken)) for name in rest}
    said |= {name: why for name, why in {**others, **reasons}.items() if name not in said}
    said.pop(taken.engine, None)
    return (first, *(outlook(name, why) for name, why in said.items()))


def _why_taken(taken: WayChoice, is_language: bool) -> str:
    if taken.source != "remembered":
        return "taken: the first of the preferred ones that can"
    if is_language:
        return f"taken: {taken.sentence()}"
    return f"taken: {taken.figures['latency_s'] * 1e3:.3g} ms, timed here"


def _untimed(name: str, taken: WayChoice) -> str:
    if name == LAST_RESORT:
        return "able, but slow: for what no other engine can run"
    return f"able; {taken.engine} is preferred until they are timed"


def _computes(name: str, form: Variant, kernels: str) -> tuple[str, str]:
    """Return what computes and in which precision, in words."""
    plain, _, way = name.partition(":")
    bits = sorted({one.bits for one in form.matrices.values() if one is not None})
    stored = f"weights of {', '.join(map(str, bits))} bits" if bits else "weights as stored"
    inputs = "int8 inputs" if form.accuracy_level == 4 and bits else "float32 inputs"
    if plain == "native":
        return f"own kernels, {way or kernels}", f"{stored}, int8 inputs"
    if plain == "onnx":
        called = provider_options(way).name if way else "CPUExecutionProvider"
        return f"ONNX Runtime, {called}", f"{stored}, {inputs}"
    if plain == "openvino":
        return f"OpenVINO, {way or 'CPU'}", "float16" if way.startswith("NPU") else "float32"
    if plain == "torch":
        where = way or "the graphics processor"
        return f"PyTorch, {where}", f"{stored}, {'float32' if way == 'cpu' else 'float16'} inputs"
    if plain == LAST_RESORT:
        return "numpy", "float32"
    return "its own", "not known"
