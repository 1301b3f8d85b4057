"""What else may compute here: found, tried with small graphs, and compared with the processor."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineUnavailable
from onhand.core.profile_parts import Provider
from onhand.device.hardware.trials import Trial, trials

__all__ = ["Run", "find_providers", "seen_devices", "try_provider"]

Run = Callable[[Trial], FloatArray]
"""Computes a trial on a provider alone; raises where it cannot."""

_PROCESSOR: Final = frozenset({"CPUExecutionProvider", "AzureExecutionProvider"})
# Half-precision arithmetic is allowed: what it computes is near, and wrong numbers are far.
_TOLERANCE: Final = 0.05
_VENDORS: Final = {
    "0x10de": ("an NVIDIA GPU", "CUDAExecutionProvider", "onnxruntime-gpu"),
    "0x1002": ("an AMD GPU", "MIGraphXExecutionProvider", "onnxruntime-migraphx"),
    "0x8086": ("an Intel GPU", "GPU", "openvino"),
}
_DISPLAY, _ACCELERATOR = "0x03", "0x12"


def find_providers(root: Path) -> tuple[Provider, ...]:
    """Return every provider beside the processor that is there, usable or not.

    Args:
        root: folder that holds `sys`.

    Returns:
        Those of ONNX Runtime and of OpenVINO, then devices that neither can use.
    """
    found = [
        *(try_provider(name, "onnxruntime", _on_onnxruntime(name)) for name in _onnxruntime()),
        *(
            try_provider(name, "openvino", _on_openvino(name), note=note)
            for name, note in _openvino()
        ),
    ]
    names = {one.name.split(".")[0] for one in found}
    return (*found, *(one for one in seen_devices(root) if one.name not in names))


def try_provider(
    name: str, package: str, run: Run, *, note: str = "", tried: Sequence[Trial] | None = None
) -> Provider:
    """Try a provider with each operator, and compare what it computes with the processor.

    Args:
        name: of the provider.
        package: whose it is.
        run: computes on it alone.
        note: the device's own name.
        tried: what to try; None for `trials`.

    Returns:
        It is usable if it computes at least one operator, and all that it computes rightly.
    """
    given = trials() if tried is None else tuple(tried)
    falls_back, last = [], ""
    for trial in given:
        try:
            answer = run(trial)
        except Exception as error:  # noqa: BLE001 (a driver may raise anything; it is told below)
            falls_back.append(trial.operator)
            last = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            continue
        if not _is_near(answer, _on_processor(trial)):
            return Provider(
                name=name, package=package, note=f"computes {trial.operator} wrongly", falls_back=()
            )
    if len(falls_back) == len(given):
        return Provider(name=name, package=package, note=last or "computes nothing")
    return Provider(
        name=name, package=package, is_usable=True, note=note, falls_back=tuple(falls_back)
    )


def seen_devices(root: Path) -> tuple[Provider, ...]:
    """Return graphics and neural processors on the bus, as what they would need.

    Args:
        root: folder that holds `sys`.

    Returns:
        None of them is usable as far as this function knows.
    """
    found: dict[str, Provider] = {}
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        kind, vendor = _text(device / "class"), _text(device / "vendor")
        if kind.startswith(_DISPLAY) and vendor in _VENDORS:
            what, name, package = _VENDORS[vendor]
        elif kind.startswith(_ACCELERATOR):
            what, name, package = "a neural processor", "NPU", "openvino"
        else:
            continue
        note = f"{what} is there, but nothing that is installed uses it: {package} may"
        found[name] = Provider(name=name, package=package, note=note)
    return tuple(found.values())


def _is_near(answer: FloatArray, right: FloatArray) -> bool:
    if answer.shape != right.shape or not np.isfinite(answer).all():
        return False
    return bool(np.abs(answer - right).max() <= _TOLERANCE * np.abs(right).max())


def _on_processor(trial: Trial) -> FloatArray:
    return _session(trial, "CPUExecutionProvider", alone=False)


def _on_onnxruntime(name: str) -> Run:
    return lambda trial: _session(trial, name, alone=True)


def _session(trial: Trial, provider: str, *, alone: bool) -> FloatArray:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is in the note
    if alone:
        # An operator that the provider does not have is an error then.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(trial.model, options, providers=[provider])
    return np.asarray(session.run(None, {"x": trial.x})[0], dtype=np.float32)


def _onnxruntime() -> Iterable[str]:
    import onnxruntime as ort

    return [name for name in ort.get_available_providers() if name not in _PROCESSOR]


def _openvino() -> list[tuple[str, str]]:
    with contextlib.suppress(EngineUnavailable, RuntimeError):
        from onhand.device.networks.openvino import open_core

        core = open_core()
        names = [name for name in core.available_devices if name != "CPU"]
        return [(name, str(core.get_property(name, "FULL_DEVICE_NAME"))) for name in names]
    return []


def _on_openvino(name: str) -> Run:
    from onhand.device.networks.openvino import open_core

    core = open_core()

    def run(trial: Trial) -> FloatArray:
        model = core.read_model(trial.model)
        compiled = core.compile_model(model, name)
        return np.asarray(compiled([trial.x])[0], dtype=np.float32)

    return run


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
