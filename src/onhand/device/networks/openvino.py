"""Networks in OpenVINO: on the processor, on Intel's graphics and neural processors."""

import hashlib
import importlib.util
import io
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Final, cast

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, EngineUnavailable, InputError, ResourceError
from onhand.core.network import Network
from onhand.core.profile import DeviceProfile
from onhand.core.progress import Progress, Quiet
from onhand.core.sparse_graph import self_contained_graph
from onhand.device.networks.base import Array, check_feeds, still_open
from onhand.device.networks.graph_file import read_graph_file
from onhand.device.probe import current_profile
from onhand.device.state import recall_bytes, remember_bytes
from onhand.device.vault.vault import open_vault

if TYPE_CHECKING:
    import openvino

__all__ = ["OpenvinoNetwork", "OpenvinoNetworkEngine", "open_core"]

_TELEMETRY: Final = "openvino_telemetry"
_IMPORT = threading.Lock()
_DEVICE: Final = "CPU"
_OTHERS: Final = ("GPU", "NPU")
_INT8_LEVEL: Final = 4  # of a variant's accuracy_level
_MOST_SAID: Final = 500


class OpenvinoNetwork:
    """See `NetworkLoaded`. Requests hold the buffers of one run: as many as ever ran at once."""

    def __init__(self, compiled: "openvino.CompiledModel", network: Network) -> None:
        self._compiled: openvino.CompiledModel | None = compiled
        self._network = network
        self._idle: list[openvino.InferRequest] = []

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See `NetworkLoaded`."""
        compiled = still_open(self._compiled)
        check_feeds(feeds, self._network.inputs)
        given = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        with _engine_errors():
            try:
                request = self._idle.pop()
            except IndexError:
                request = compiled.create_infer_request()
            # Inputs are read where they lie; outputs are copied out of the request's buffers.
            found = request.infer(given, share_inputs=True, share_outputs=False)
            outputs = {
                info.name: np.asarray(found[place])
                for place, info in enumerate(self._network.outputs)
            }
        if self._compiled is not None:
            self._idle.append(request)
        return outputs

    def close(self) -> None:
        """See `NetworkLoaded`."""
        self._compiled = None
        self._idle = []


class OpenvinoNetworkEngine:
    """See `WaysNetworkEngine`.

    It computes in float32 where the graph does: by default OpenVINO would take bfloat16 on
    processors that have it, and answer otherwise. Whole numbers of 64 bits, as token ids are, it
    computes in 32.
    """

    name: ClassVar[str] = "openvino"
    package: ClassVar[str] = "openvino"

    def __init__(
        self, home: Path | None = None, progress: Progress | None = None, *, device: str = _DEVICE
    ) -> None:
        self._home = home
        self._progress = progress or Quiet()
        self._device = device

    def ways(self, profile: DeviceProfile) -> tuple[str, ...]:
        """See `WaysNetworkEngine`: OpenVINO's other devices that are usable there."""
        usable = (one for one in profile.providers if one.is_usable and one.package == "openvino")
        return tuple(one.name for one in usable)

    def using(self, way: str) -> "OpenvinoNetworkEngine":
        """See `WaysNetworkEngine`.

        Raises:
            InputError: if OpenVINO has no devices of that kind.
        """
        if way.partition(".")[0] not in {_DEVICE, *_OTHERS}:
            raise InputError(f"openvino: there is no device {way!r}, but {', '.join(_OTHERS)}")
        return OpenvinoNetworkEngine(self._home, self._progress, device=way)

    def caching(self, home: Path, progress: Progress) -> "OpenvinoNetworkEngine":
        """See `CachingNetworkEngine`: it keeps the graph as OpenVINO transformed it."""
        return OpenvinoNetworkEngine(home, progress, device=self._device)

    def why_not(
        self, bundle: Bundle, profile: DeviceProfile, *, variant: str | None = None
    ) -> str | None:
        """Return None if `open` should work here, else a reason."""
        if importlib.util.find_spec("openvino") is None:
            return "openvino is not installed: pip install 'onhand[openvino]'"
        return _misplaced(bundle, variant)

    def open(self, bundle: Bundle, *, variant: str | None = None, threads: int) -> OpenvinoNetwork:
        """Compile the graph, or load what was compiled before.

        Raises:
            EngineUnavailable: if openvino cannot be imported, or finds the weights elsewhere.
            EngineError: if OpenVINO refuses the graph.
            BundleCorrupt: if graph, weights and manifest do not match.
        """
        name, chosen = bundle.variant(variant)
        content = read_graph_file(bundle, variant)
        if reason := _misplaced(bundle, variant):
            raise EngineUnavailable(f"{bundle.root}: {reason}")
        core = open_core()
        settings = _settings(self._device, threads)
        if self._device == _DEVICE and chosen.accuracy_level != _INT8_LEVEL:
            # By default it rounds what is multiplied with weights of few bits to int8.
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        graph: Path | bytes = bundle.path(chosen.graph)
        if chosen.sparse or bundle.learned is not None or bundle.sealed is not None:
            # It would look for the other tensors where it was started.
            graph = self_contained_graph(content, bundle)
        compiled = self._compiled(core, bundle, name, graph, settings)
        _check_outputs(compiled, bundle.manifest.network)
        return OpenvinoNetwork(compiled, bundle.manifest.network)

    def _compiled(
        self,
        core: "openvino.Core",
        bundle: Bundle,
        variant: str,
        graph: Path | bytes,
        settings: Mapping[str, object],
    ) -> "openvino.CompiledModel":
        # What was learned changes too often to be worth a compiled copy of each. Where there is no
        # vault, what was compiled of a sealed bundle would lie there in plain.
        if (
            self._home is None
            or bundle.learned is not None
            or (bundle.sealed is not None and open_vault(self._home) is None)
        ):
            with _engine_errors():
                return core.compile_model(core.read_model(graph), self._device, settings)
        # What was transformed for one processor need not be right on another.
        profile = current_profile()
        made_by = " ".join([version("openvino"), profile.processor, *profile.instruction_sets])
        # A variant's name may hold what a name in the state folder may not.
        made_by += f" {self._device}" * (self._device != _DEVICE)
        place = f"openvino-{hashlib.sha256(variant.encode()).hexdigest()[:16]}"
        key = bundle.manifest_sha256
        known = recall_bytes(self._home, key, place, made_by=made_by)
        with _engine_errors():
            if known is not None:
                return core.import_model(io.BytesIO(known), self._device, settings)
            compiled = core.compile_model(core.read_model(graph), self._device, settings)
            content = compiled.export_model().getvalue()
        try:
            remember_bytes(self._home, key, place, content, made_by=made_by)
        except ResourceError as error:
            self._progress.note(f"the network is compiled again next time: {error}")
        return compiled


def _settings(device: str, threads: int) -> dict[str, object]:
    settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
    if not device.startswith("NPU"):  # which computes in 16 bits alone
        settings |= {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    if device == _DEVICE:
        settings |= {
            "ENABLE_CPU_PINNING": False,  # pinned to the same cores, two networks would fight
            "INFERENCE_NUM_THREADS": threads,
        }
    return settings


def _misplaced(bundle: Bundle, variant: str | None) -> str | None:
    _, chosen = bundle.variant(variant)
    if "/" in chosen.graph:
        return f"OpenVINO would look for the weights of {chosen.graph!r} beside it"
    return None


def open_core() -> "openvino.Core":
    """Import OpenVINO without its telemetry, and return its door.

    Importing it would count the use in the user's home folder and report it to a server. Without
    the package for that, OpenVINO does neither; nothing else is changed, and for no longer.

    Raises:
        EngineUnavailable: if it cannot be imported.
    """
    with _IMPORT:
        hides = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
        if hides:
            # The import system takes None for a package that is not installed.
            sys.modules[_TELEMETRY] = cast(ModuleType, None)
        try:
            import openvino
        except ImportError as error:
            raise EngineUnavailable(f"openvino cannot be imported: {error}") from error
        finally:
            if hides:
                sys.modules.pop(_TELEMETRY, None)
    return openvino.Core()


def _check_outputs(compiled: "openvino.CompiledModel", network: Network) -> None:
    for place, info in enumerate(network.outputs):
        found = compiled.output(place).get_element_type().to_dtype()
        if found != np.dtype(info.dtype):
            raise EngineUnavailable(
                f"OpenVINO gives output {info.name!r} as {found}, must be {info.dtype}"
            )


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn OpenVINO's errors into ours; all of them are plain RuntimeErrors.

    Raises:
        EngineError: if the error came from OpenVINO.
    """
    try:
        yield
    except RuntimeError as error:
        raise EngineError(f"openvino: {_shortened(str(error))}") from error


def _shortened(text: str) -> str:
    # Places in its source stand between the lines that say something.
    lines = [line.strip() for line in text.splitlines()]
    said = [line for line in lines if line and ".cpp:" not in line and ".hpp:" not in line]
    return "; ".join(said)[:_MOST_SAID] or text.strip()[:_MOST_SAID]
