"""Networks in ONNX Runtime, through its Python package."""

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineUnavailable
from onhand.core.network import Network
from onhand.core.profile import DeviceProfile
from onhand.device.hardware.execution_providers import (
    check_provider,
    provider_options,
    usable_providers,
    use_provider,
)
from onhand.device.networks.base import Array, check_feeds, still_open
from onhand.device.networks.graph_file import read_graph_file
from onhand.device.onnx_errors import onnx_errors
from onhand.device.onnx_weights import weights_from
from onhand.device.telemetry import refuse_telemetry

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["ROUNDS_WEIGHTS", "SLOWER_FUSIONS", "OnnxNetwork", "OnnxNetworkEngine"]

SLOWER_FUSIONS = ("SkipLayerNormFusion",)
"""What ONNX Runtime does to graphs whose sizes it knows, though its processor kernels lose by it.

An addition and a norm in one operator took 0.2 ms more for 128 x 384 numbers than apart.
"""

ROUNDS_WEIGHTS = "WeightBiasQuantization"
"""It rounds float weights between integers to 8 bits, in its own way.

A layer that was kept in float, or was learned, would then not be what answers.
Biases of a build are integers already and need it not. Those that were learned are float, and only
it lets their layers run on integers.
"""
# Matrices that a graph dequantises before it multiplies would be multiplied in int8 by default.
_ACCURACY_LEVEL = "session.qdq_matmulnbits_accuracy_level"


class OnnxNetwork:
    """See `NetworkLoaded`.

    Outputs are allocated by every run. Buffers bound once would save nothing that could be
    measured, cost a small network twice its time, and could not be the caller's own.
    """

    def __init__(self, inner: "ort.InferenceSession", network: Network) -> None:
        self._inner: ort.InferenceSession | None = inner
        self._inputs = network.inputs
        self._names = [info.name for info in network.outputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See `NetworkLoaded`."""
        inner = still_open(self._inner)
        check_feeds(feeds, self._inputs)
        given = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        with onnx_errors():
            found = inner.run(self._names, given)
        return dict(zip(self._names, found, strict=True))

    def close(self) -> None:
        """See `NetworkLoaded`."""
        self._inner = None


class OnnxNetworkEngine:
    """See `WaysNetworkEngine`."""

    name: ClassVar[str] = "onnx"
    package: ClassVar[str] = "onnxruntime"

    def __init__(self, provider: str = "") -> None:
        """Use an execution provider, a key of `EXECUTION_PROVIDERS`; "" for the processor alone."""
        self._provider = provider_options(provider) if provider else None

    def ways(self, profile: DeviceProfile) -> tuple[str, ...]:
        """See `WaysNetworkEngine`: the execution providers that are usable there."""
        return usable_providers(profile)

    def using(self, way: str) -> "OnnxNetworkEngine":
        """See `WaysNetworkEngine`.

        Raises:
            InputError: if there is no such execution provider.
        """
        return OnnxNetworkEngine(way)

    def why_not(
        self, bundle: Bundle, profile: DeviceProfile, *, variant: str | None = None
    ) -> str | None:
        """Return None if `open` should work here, else a reason."""
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed: pip install onnxruntime"
        return None

    def open(self, bundle: Bundle, *, variant: str | None = None, threads: int) -> OnnxNetwork:
        """Load the graph; its weights are mapped from the bundle's files.

        Raises:
            EngineUnavailable: if onnxruntime cannot be imported, or has no such provider.
            EngineError: if ONNX Runtime refuses the graph.
            BundleCorrupt: if graph, weights and manifest do not match.
        """
        graph = read_graph_file(bundle, variant)
        try:
            refuse_telemetry()
            import onnxruntime as ort
        except ImportError as error:
            raise EngineUnavailable(f"onnxruntime cannot be imported: {error}") from error

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        _, chosen = bundle.variant(variant)
        # As bytes: places are relative to the bundle's folder then, wherever the graph lies.
        kept = weights_from(options, bundle, chosen.weights)  # until the session is made
        options.add_session_config_entry(_ACCURACY_LEVEL, str(chosen.accuracy_level))
        providers = use_provider(options, self._provider)
        disabled = [*SLOWER_FUSIONS]
        learned = bundle.learned
        if learned is None or (learned.kind != "bias" and not learned.is_coded):
            disabled.append(ROUNDS_WEIGHTS)
        with onnx_errors():
            inner = ort.InferenceSession(
                graph,
                options,
                providers=providers,
                disabled_optimizers=disabled,
            )
        kept.clear()
        check_provider(inner, self._provider)
        return OnnxNetwork(inner, bundle.manifest.network)
