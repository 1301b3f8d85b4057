"""How a provider is reached: found, opened on a small graph, and asked what it computed itself.

Only a process of its own should do any of this, since a driver may end or stop it; `sources`
alone loads nothing of a provider's.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineError
from onhand.device.hardware.trials import Trial
from onhand.device.telemetry import refuse_telemetry

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["LeftToProcessor", "Reached", "compute_on_processor", "reached_by", "sources"]

_PROCESSOR: Final = "CPUExecutionProvider"
_NO_DEVICE: Final = frozenset({_PROCESSOR, "AzureExecutionProvider"})
_PLUGINS: Final = ("onnxruntime_ep_", "onnxruntime_qnn")
_BUILT_IN, _PLUGIN, _OPENVINO = "built-in", "plug-in", "openvino"


class LeftToProcessor(EngineError):
    """A provider would not compute some nodes of a graph."""

    def __init__(self, operators: tuple[str, ...]) -> None:
        super().__init__(f"left to the processor: {', '.join(operators)}")
        self.operators = operators


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """One provider on one device, which can be tried.

    Attributes:
        name: of the provider, and of its device where it has several.
        package: whose it is.
        note: the device's own name.
        kind: how it is reached, the first word of its source.
        device: of a plug-in, as ONNX Runtime gave it.
    """

    name: str
    package: str
    note: str = ""
    kind: str = _BUILT_IN
    device: "onnxruntime.OrtEpDevice | None" = None

    def run(self, trial: Trial) -> FloatArray:
        """Compute a trial on it alone.

        Raises:
            LeftToProcessor: if it would leave a node to the processor.
            EngineError: if it cannot be made.
        """
        if self.kind == _OPENVINO:
            return _on_openvino(self.name, trial)
        return _on_onnxruntime(self, trial)


def sources() -> tuple[str, ...]:
    """Return what may have providers beside the processor's, as `reached_by` takes it."""
    refuse_telemetry()
    import onnxruntime as ort

    built_in = [name for name in ort.get_available_providers() if name not in _NO_DEVICE]
    modules = sorted(one.name for one in pkgutil.iter_modules() if one.name.startswith(_PLUGINS))
    return (
        *(f"{_BUILT_IN} {name}" for name in built_in),
        *(f"{_PLUGIN} {name}" for name in modules),
        *([_OPENVINO] if importlib.util.find_spec("openvino") else []),
    )


def reached_by(source: str) -> Iterator[Reached]:
    """Yield the providers that a source has on this device; none where it finds no device.

    Args:
        source: one of `sources`.

    Yields:
        One for each device; whatever a driver may raise can be raised.
    """
    kind, _, name = source.partition(" ")
    if kind == _BUILT_IN:
        yield Reached(name=name, package="onnxruntime")
    elif kind == _PLUGIN:
        yield from _plugged_in(name)
    else:
        yield from _openvino()


def compute_on_processor(trial: Trial) -> FloatArray:
    """Return what the processor computes."""
    refuse_telemetry()
    import onnxruntime as ort

    session = ort.InferenceSession(trial.model, _options(), providers=[_PROCESSOR])
    return np.asarray(session.run(None, {"x": trial.x})[0], dtype=np.float32)


def _plugged_in(module: str) -> Iterator[Reached]:
    refuse_telemetry()
    import onnxruntime as ort

    before = {one.ep_name for one in ort.get_ep_devices()}
    plugin = importlib.import_module(module)
    ort.register_execution_provider_library(module, plugin.get_library_path())
    devices = [one for one in ort.get_ep_devices() if one.ep_name not in before]
    for number, device in enumerate(devices):
        same = sum(one.ep_name == device.ep_name for one in devices)
        what = device.device.type.name
        yield Reached(
            name=device.ep_name if same == 1 else f"{device.ep_name}.{what}.{number}",
            package=module.replace("_", "-"),
            note=f"{device.device.vendor} {what}".strip(),
            kind=_PLUGIN,
            device=device,
        )


def _on_onnxruntime(reached: Reached, trial: Trial) -> FloatArray:
    refuse_telemetry()
    import onnxruntime as ort

    options = _options()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    named = None if reached.device else [reached.name]
    if reached.device is not None:
        options.add_provider_for_devices([reached.device], {})
    # Else its Python part would go on with the processor where the provider cannot be made.
    session = ort.InferenceSession(trial.model, options, providers=named, enable_fallback=0)
    wanted = reached.device.ep_name if reached.device else reached.name
    if wanted not in session.get_providers():
        # ONNX Runtime itself goes on without some, and says so in a log only.
        raise EngineError(f"{wanted} cannot be made: are its libraries installed?")
    if left := _left(session):
        raise LeftToProcessor(left)
    return np.asarray(session.run(None, {"x": trial.x})[0], dtype=np.float32)


def _left(session: "onnxruntime.InferenceSession") -> tuple[str, ...]:
    """Return the operators that a session's partition gave to the processor."""
    parts = session.get_provider_graph_assignment_info()
    kinds = [
        node.op_type for part in parts if part.ep_name == _PROCESSOR for node in part.get_nodes()
    ]
    return tuple(dict.fromkeys(kinds))


def _options() -> "onnxruntime.SessionOptions":
    refuse_telemetry()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is in the note
    return options


def _openvino() -> Iterator[Reached]:
    from onhand.device.networks.openvino import open_core

    core = open_core()
    for name in core.available_devices:
        if name != "CPU":
            note = str(core.get_property(name, "FULL_DEVICE_NAME"))
            yield Reached(name=name, package="openvino", note=note, kind=_OPENVINO)


def _on_openvino(name: str, trial: Trial) -> FloatArray:
    from onhand.device.networks.openvino import open_core

    core = open_core()
    model = core.read_model(trial.model)
    taken = core.query_model(model, name)
    if any(node.get_friendly_name() not in taken for node in model.get_ops()):
        raise LeftToProcessor((trial.operator,))
    return np.asarray(core.compile_model(model, name)([trial.x])[0], dtype=np.float32)
