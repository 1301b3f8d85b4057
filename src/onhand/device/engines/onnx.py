"""ONNX Runtime, through its Python package."""

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onhand.core.adapter import Adapter
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.core.onnxfile import check_tensors, read_graph
from onhand.core.profile import DeviceProfile
from onhand.core.sparse_graph import whole_graph
from onhand.core.weights import open_weights
from onhand.device.engines.adapted_graph import adapted_graph
from onhand.device.engines.base import Session
from onhand.device.engines.memory import (
    check_batch,
    check_context,
    check_open,
    narrowed_key,
    state_key,
)
from onhand.device.engines.onnx_memory import DeviceMemory, HostMemory, KvMemory
from onhand.device.engines.onnx_session import OnnxSession
from onhand.device.hardware.execution_providers import (
    ExecutionProvider,
    check_provider,
    left_to_processor,
    provider_options,
    usable_providers,
    use_provider,
)
from onhand.device.onnx_errors import onnx_errors
from onhand.device.onnx_weights import weights_from
from onhand.device.processor import processor
from onhand.device.telemetry import refuse_telemetry

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["OnnxEngine", "OnnxLoaded", "OnnxSession"]

# Prompts run in pieces of this many tokens: bounds the activations of a long one, and costs
# nothing measurable, because the matrix products are saturated well below.
PREFILL_TOKENS = 1024
# Rows of logits computed at once by `score`: bounds memory at a large vocabulary.
SCORE_ROWS = 128
BITS = (2, 4, 8)
_ATTENTION = "GroupQueryAttention"
HEAD_MULTIPLE = 16  # of GroupQueryAttention with rotary positions


class OnnxLoaded:
    """See `Loaded`. A step runs its rows one after the other: the graph holds one conversation.

    Attributes:
        left_to_processor: kind of operator -> how many an execution provider left; None for not
            known, and where there is no provider.
    """

    def __init__(
        self,
        inner: "ort.InferenceSession",
        decoder: Decoder,
        key: bytes,
        *,
        span_key: bytes,
        provider: ExecutionProvider | None = None,
    ) -> None:
        self.closed = False
        self.span_key = span_key
        self._inner: ort.InferenceSession | None = inner
        self.decoder = decoder
        self.key = key
        self.vocab_size = decoder.vocab_size
        self.context = decoder.context
        self._rope: dict[bool, dict[str, FloatArray]] = {}
        self.left_to_processor = None if provider is None else left_to_processor(inner)
        # Attention that the processor computes would fetch what lies elsewhere in every step.
        stays = provider is not None and _ATTENTION not in (self.left_to_processor or {})
        self._device = provider.memory if provider is not None and stays else ""

    def new_memory(self, context: int) -> KvMemory:
        """Return the memory of a new session, where the graph's attention is computed."""
        if self._device:
            return DeviceMemory(self.decoder, context, self._device)
        return HostMemory(self.decoder, context)

    @property
    def inner(self) -> "ort.InferenceSession":
        """ONNX Runtime's session.

        Raises:
            InputError: if the weights are closed.
        """
        if self._inner is None:
            raise InputError("the model is closed; open the bundle again")
        return self._inner

    def session(self, *, context: int | None = None) -> OnnxSession:
        """See `Loaded`."""
        check_open(self.closed, "the model")
        return OnnxSession(self, check_context(context, self.context))

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """See `Loaded`."""
        rows = self._checked(batch)
        result = np.empty((len(rows), self.vocab_size), dtype=np.float32)
        for number, (session, tokens) in enumerate(rows):
            long = self._is_long(session.length + tokens.size)
            for low in range(0, tokens.size, PREFILL_TOKENS):
                piece = tokens[low : low + PREFILL_TOKENS]
                last, out = np.array([piece.size - 1]), result[number : number + 1]
                self._run(session, piece, last, out, long=long)
        return result

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """See `Loaded`."""
        ((known, row),) = self._checked([(session, tokens)])
        result = np.empty((row.size, self.vocab_size), dtype=np.float32)
        long = self._is_long(known.length + row.size)
        for low in range(0, row.size, SCORE_ROWS):
            piece = row[low : low + SCORE_ROWS]
            rows, out = np.arange(piece.size), result[low : low + piece.size]
            self._run(known, piece, rows, out, long=long)
        return result

    def close(self) -> None:
        """See `Loaded`."""
        self.closed = True
        self._inner = None
        self._rope = {}

    def rope(self, context: int, *, long: bool) -> dict[str, FloatArray]:
        """Return the rotary tables by input name, with `context` rows: views of the longest ones.

        Another thread may replace the longest ones at any time; the caller keeps what it got.
        """
        tables = self._rope.get(long, {})
        if any(len(table) < context for table in tables.values()) or not tables:
            tables = {}
            for name, (rope, head_dim) in self.decoder.rotary_tables().items():
                cosines, sines = rope.tables(head_dim, context, long=long)
                tables[f"cosines.{name}"] = np.ascontiguousarray(cosines)
                tables[f"sines.{name}"] = np.ascontiguousarray(sines)
            self._rope[long] = tables
        return {name: table[:context] for name, table in tables.items()}

    def _is_long(self, length: int) -> bool:
        ropes = (rope for rope, _ in self.decoder.rotary_tables().values())
        return any(rope.is_long(length) for rope in ropes)

    def _checked(
        self, batch: Sequence[tuple[Session, TokenArray]]
    ) -> list[tuple[OnnxSession, TokenArray]]:
        check_open(self.closed, "the model")
        return check_batch(batch, OnnxSession, owner=self, vocab_size=self.vocab_size)

    def _run(
        self,
        session: OnnxSession,
        tokens: TokenArray,
        rows: TokenArray,
        out: FloatArray,
        *,
        long: bool,
    ) -> None:
        """Append tokens; write the logits after the given rows into `out` (R, V)."""
        binding = session.binding()
        session.bind_tables(binding, long=long)
        total = session.length + tokens.size
        small: dict[str, np.ndarray] = {
            "tokens": np.ascontiguousarray(tokens[None, :]),
            "rows": rows.astype(np.int64, copy=False),
            "seqlens_k": np.array([total - 1], dtype=np.int32),
            "total_length": np.array(total, dtype=np.int32),
        }
        if self.decoder.positions == "learned":
            small["position_ids"] = np.arange(session.length, total)[None, :]
        for name, value in small.items():
            binding.bind_input(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, out.shape, out.ctypes.data)
        with onnx_errors():
            self.inner.run_with_iobinding(binding)
        session.length = total


class OnnxEngine:
    """See `WaysEngine`."""

    name: ClassVar[str] = "onnx"

    def __init__(self, provider: str = "") -> None:
        """Use an execution provider, a key of `EXECUTION_PROVIDERS`; "" for the processor alone."""
        self._short = provider
        self._provider = provider_options(provider) if provider else None

    def ways(self, profile: DeviceProfile) -> tuple[str, ...]:
        """See `WaysEngine`: the execution providers that are usable there."""
        return usable_providers(profile)

    def using(self, way: str) -> "OnnxEngine":
        """See `WaysEngine`.

        Raises:
            InputError: if there is no such execution provider.
        """
        return OnnxEngine(way)

    def why_not(self, bundle: Bundle, profile: DeviceProfile, *, variant: str) -> str | None:
        """Return None if `open` should work here, else a reason."""
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed: pip install onnxruntime"
        return _missing_kernel(bundle, variant)

    def open(
        self, bundle: Bundle, *, variant: str, threads: int, adapter: Adapter | None = None
    ) -> OnnxLoaded:
        """Load the graph; its weights are mapped from the bundle's files.

        On an execution provider a token is tried: what it cannot do is told here, and not in the
        middle of an answer.

        Raises:
            EngineUnavailable: if onnxruntime or the provider is missing or cannot run the variant.
            EngineError: if ONNX Runtime refuses the graph.
            BundleCorrupt: if graph and weights do not match the manifest.
        """
        chosen = bundle.manifest.variants[variant]
        if reason := _missing_kernel(bundle, variant):
            raise EngineUnavailable(f"{bundle.root}: {reason}")
        open_weights(bundle, variant)
        graph = bundle.path(chosen.graph)
        content = whole_graph(read_graph(graph), bundle, variant)
        check_tensors(content, bundle.sizes(chosen.weights), where=str(graph))
        try:
            refuse_telemetry()
            import onnxruntime as ort
        except ImportError as error:
            raise EngineUnavailable(f"onnxruntime cannot be imported: {error}") from error

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        source: str | bytes = str(graph)
        if adapter is not None:
            content = adapted_graph(content, bundle.manifest.decoder, adapter, where=str(graph))
        kept: list[np.ndarray] = []  # until the session is made
        if adapter is not None or chosen.sparse or bundle.sealed is not None:
            source = content
            kept = weights_from(options, bundle, chosen.weights)
        providers = use_provider(options, self._provider)
        with onnx_errors():
            inner = ort.InferenceSession(source, options, providers=providers)
        kept.clear()
        check_provider(inner, self._provider)
        called = f"{self.name}:{self._short}" if self._short else self.name
        key = state_key(bundle, variant, called, adapter)
        # How it divides sums depends on its version, the threads and the processor.
        span_key = narrowed_key(key, ort.__version__, str(threads), *processor()[1])
        decoder = bundle.manifest.decoder
        loaded = OnnxLoaded(inner, decoder, key, span_key=span_key, provider=self._provider)
        if self._provider is not None:
            _try_token(loaded, called)
        return loaded


def _try_token(loaded: OnnxLoaded, called: str) -> None:
    """Answer one token, and close what cannot.

    Raises:
        EngineError: if it fails.
    """
    try:
        session = loaded.session(context=1)
        loaded.step([(session, np.zeros(1, dtype=np.int64))])
        session.close()
    except EngineError as error:
        loaded.close()
        raise EngineError(f"{called} opens the model and cannot run it: {error}") from error


def _missing_kernel(bundle: Bundle, variant: str) -> str | None:
    for i, layer in enumerate(bundle.manifest.decoder.layers):
        if layer.head_dim % HEAD_MULTIPLE:
            return (
                f"ONNX Runtime has no attention kernel for the head_dim {layer.head_dim} of layer "
                f"{i}, only for multiples of {HEAD_MULTIPLE}"
            )
    for name, form in bundle.manifest.variants[variant].matrices.items():
        if form is not None and form.bits not in BITS:
            return f"ONNX Runtime has no kernel for the {form.bits}-bit matrix {name}"
    return None
