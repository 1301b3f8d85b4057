"""ONNX Runtime's execution providers: short names, options, and what a provider left to others."""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from onhand.core.errors import EngineUnavailable, InputError
from onhand.core.profile import DeviceProfile
from onhand.device.hardware.reach import Reached, reached_by, sources
from onhand.device.telemetry import refuse_telemetry

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = [
    "EXECUTION_PROVIDERS",
    "ExecutionProvider",
    "check_provider",
    "left_to_processor",
    "provider_options",
    "usable_providers",
    "use_provider",
]

_PROCESSOR: Final = "CPUExecutionProvider"
_ASSIGNMENT: Final = "session.record_ep_graph_assignment_info"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionProvider:
    """One way for ONNX Runtime to compute beside the processor.

    Attributes:
        name: as ONNX Runtime calls it.
        options: it is given; what depends on the machine is left to it.
        memory: name of its memory in ONNX Runtime where inputs and outputs may stay in it; "" for
            a provider that takes them from the processor's.
        plans_memory: whether ONNX Runtime may plan memory ahead; DirectML cannot work with that.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    memory: str = ""
    plans_memory: bool = True


EXECUTION_PROVIDERS: Final[Mapping[str, ExecutionProvider]] = {
    "cuda": ExecutionProvider(
        name="CUDAExecutionProvider",
        # Growing by what is asked for, not by doubling: a bundle was sized to fit.
        options={"arena_extend_strategy": "kSameAsRequested"},
        memory="cuda",
    ),
    "migraphx": ExecutionProvider(name="MIGraphXExecutionProvider"),
    "coreml": ExecutionProvider(
        name="CoreMLExecutionProvider",
        options={"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"},
    ),
    "directml": ExecutionProvider(name="DmlExecutionProvider", plans_memory=False),
    "qnn": ExecutionProvider(name="QNNExecutionProvider", options={"backend_type": "htp"}),
    "openvino-gpu": ExecutionProvider(
        name="OpenVINOExecutionProvider", options={"device_type": "GPU"}
    ),
    "openvino-npu": ExecutionProvider(
        name="OpenVINOExecutionProvider", options={"device_type": "NPU"}
    ),
    "webgpu": ExecutionProvider(name="WebGpuExecutionProvider"),
}
"""Short name -> provider; the names go behind the colon of "onnx:cuda"."""


def usable_providers(profile: DeviceProfile) -> tuple[str, ...]:
    """Return short names of the providers that a device's profile calls usable.

    Args:
        profile: with its list of providers; OpenVINO's count by the devices that it has.

    Returns:
        The names, in the order of `EXECUTION_PROVIDERS`.
    """
    usable = {one.name for one in profile.providers if one.is_usable}
    devices = {
        one.name.partition(".")[0].lower()
        for one in profile.providers
        if one.is_usable and one.package == "openvino"
    }
    found: list[str] = []
    for short, provider in EXECUTION_PROVIDERS.items():
        kind = provider.options.get("device_type", "").lower()
        if provider.name in usable and (not kind or kind in devices):
            found.append(short)
    return tuple(found)


def provider_options(short: str) -> ExecutionProvider:
    """Return a provider by its short name.

    Args:
        short: a key of `EXECUTION_PROVIDERS`.

    Returns:
        The provider.

    Raises:
        InputError: if there is no such name.
    """
    if short not in EXECUTION_PROVIDERS:
        known = ", ".join(EXECUTION_PROVIDERS)
        raise InputError(f"there is no execution provider {short!r}; known are {known}")
    return EXECUTION_PROVIDERS[short]


def use_provider(
    options: "ort.SessionOptions", provider: ExecutionProvider | None
) -> list[str | tuple[str, dict[str, str]]] | None:
    """Prepare a session's options for a provider.

    Args:
        options: of the session that is made next; they are changed.
        provider: what computes; None for the processor alone.

    Returns:
        The `providers` of the session, None where the options name it: what the provider cannot
        do, the processor does.

    Raises:
        EngineUnavailable: if the installed package was built without it.
    """
    if provider is None:
        return [_PROCESSOR]
    refuse_telemetry()
    import onnxruntime as ort

    options.enable_mem_pattern = provider.plans_memory
    options.add_session_config_entry(_ASSIGNMENT, "1")
    given = dict(provider.options)
    if provider.name == _PROCESSOR:
        return [(provider.name, given)]
    if provider.name in ort.get_available_providers():
        return [(provider.name, given), _PROCESSOR]
    devices = [one.device for one in _plugged_in() if one.name.split(".")[0] == provider.name]
    if not devices:
        raise EngineUnavailable(
            f"the installed onnxruntime was built without {provider.name}, and no plug-in has it: "
            f"it has {', '.join(ort.get_available_providers())}"
        )
    options.add_provider_for_devices(devices[:1], given)
    return None


@functools.cache
def _plugged_in() -> "tuple[Reached, ...]":
    """Return the devices of plug-ins; each can be registered once in a process.

    Raises:
        EngineUnavailable: if a plug-in cannot be registered.
    """
    try:
        plug_ins = [source for source in sources() if source.startswith("plug-in ")]
        return tuple(one for source in plug_ins for one in reached_by(source))
    except Exception as error:  # a plug-in may raise anything
        raise EngineUnavailable(f"a plug-in of onnxruntime cannot be used: {error}") from error


def check_provider(session: "ort.InferenceSession", provider: ExecutionProvider | None) -> None:
    """Make sure that a session uses its provider, from now on as well.

    ONNX Runtime takes the processor in silence where a provider's library cannot be loaded.

    Args:
        session: just made.
        provider: that it was made for.

    Raises:
        EngineUnavailable: if it was replaced by the processor.
    """
    if provider is None:
        return
    if provider.name not in session.get_providers():
        raise EngineUnavailable(
            f"{provider.name} could not be started: a driver or one of its libraries is missing"
        )
    session.disable_fallback()


def left_to_processor(session: "ort.InferenceSession") -> dict[str, int] | None:
    """Return the operators that a provider left to the processor.

    Args:
        session: made with `use_provider`.

    Returns:
        Kind of operator -> how many nodes; None where this onnxruntime does not say.
    """
    try:
        parts = session.get_provider_graph_assignment_info()
    except (AttributeError, RuntimeError):  # before onnxruntime 1.24, or not recorded
        return None
    left = [node.op_type for part in parts if part.ep_name == _PROCESSOR
            for node in part.get_nodes()]  # fmt: skip
    return dict(Counter(left))
