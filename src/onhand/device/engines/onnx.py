"""ONNX Runtime, through its Python package."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    check_rewind,
    check_span,
    narrowed_key,
    pack_span,
    pack_state,
    state_key,
    unpack_span,
    unpack_state,
)
from onhand.device.processor import processor

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["OnnxEngine", "OnnxLoaded", "OnnxSession"]

# Prompts run in pieces of this many tokens: bounds the activations of a long one, and costs
# nothing measurable, because the matrix products are saturated well below.
PREFILL_TOKENS = 1024
# Rows of logits computed at once by `score`: bounds memory at a large vocabulary.
SCORE_ROWS = 128
BITS = (2, 4, 8)
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
HEAD_MULTIPLE = 16  # of GroupQueryAttention with rotary positions


class OnnxSession:
    """See `Session`. The memory is reserved whole and committed by the system as it is written."""

    def __init__(self, loaded: "OnnxLoaded", context: int) -> None:
        self.loaded = loaded
        self.context = context
        self.length = 0
        self.closed = False
        self.memory = [
            np.zeros((1, layer.n_kv_heads, context, layer.head_dim), dtype=np.float32)
            for layer in loaded.decoder.layers
            for _ in range(2)
        ]
        self._binding: ort.IOBinding | None = None
        self._tables: dict[str, FloatArray] = {}
        self._long = False

    def rewind(self, length: int) -> None:
        """See `Session`."""
        check_rewind(length, self.length)
        self.length = length

    def fork(self) -> "OnnxSession":
        """See `Session`."""
        check_open(self.closed, "the session")
        other = OnnxSession(self.loaded, self.context)
        for mine, theirs in zip(self.memory, other.memory, strict=True):
            theirs[:, :, : self.length] = mine[:, :, : self.length]
        other.length = self.length
        return other

    def save_state(self) -> bytes:
        """See `Session`."""
        check_open(self.closed, "the session")
        parts = [part[0, :, : self.length] for part in self.memory]
        return pack_state(self.loaded.key, self.length, parts)

    def load_state(self, state: bytes) -> None:
        """See `Session`."""
        check_open(self.closed, "the session")
        shapes = [(part.shape[1], part.shape[3]) for part in self.memory]
        length, parts = unpack_state(state, self.loaded.key, shapes, context=self.context)
        for mine, saved in zip(self.memory, parts, strict=True):
            mine[0, :, :length] = saved
        self.length = length

    @property
    def span_key(self) -> bytes:
        """See `SpanSession`."""
        return self.loaded.span_key

    def save_span(self, begin: int, end: int) -> bytes:
        """See `SpanSession`."""
        check_open(self.closed, "the session")
        check_span(begin, end, self.length)
        return pack_span(self.span_key, begin, [part[0, :, begin:end] for part in self.memory])

    def load_span(self, span: bytes | memoryview) -> None:
        """See `SpanSession`."""
        check_open(self.closed, "the session")
        shapes = [(part.shape[1], part.shape[3], part.dtype) for part in self.memory]
        n, parts = unpack_span(
            span, self.span_key, shapes, length=self.length, context=self.context
        )
        for mine, saved in zip(self.memory, parts, strict=True):
            mine[0, :, self.length : self.length + n] = saved
        self.length += n

    def close(self) -> None:
        """See `Session`."""
        self.closed = True
        self._binding = None
        self._tables = {}
        self.memory = []
        self.length = 0

    def binding(self) -> "ort.IOBinding":
        """Return the binding of this session's memory: inputs and outputs are the same buffers."""
        if self._binding is None:
            binding = self.loaded.inner.io_binding()
            for number, part in enumerate(self.memory):
                name = f"{('key', 'value')[number % 2]}.{number // 2}"
                place = ("cpu", 0, np.float32, part.shape, part.ctypes.data)
                binding.bind_input(name, *place)
                binding.bind_output(f"new_{name}", *place)
            self._binding = binding
        return self._binding

    def bind_tables(self, binding: "ort.IOBinding", *, long: bool) -> None:
        """Bind the rotary tables of a short or a long conversation, if others are bound."""
        if self._tables and long == self._long:
            return
        # Kept by the session: the binding knows only their addresses.
        self._tables, self._long = self.loaded.rope(self.context, long=long), long
        for name, table in self._tables.items():
            binding.bind_input(name, "cpu", 0, np.float32, table.shape, table.ctypes.data)


class OnnxLoaded:
    """See `Loaded`. A step runs its rows one after the other: the graph holds one conversation."""

    def __init__(
        self, inner: "ort.InferenceSession", decoder: Decoder, key: bytes, *, span_key: bytes
    ) -> None:
        self.closed = False
        self.span_key = span_key
        self._inner: ort.InferenceSession | None = inner
        self.decoder = decoder
        self.key = key
        self.vocab_size = decoder.vocab_size
        self.context = decoder.context
        self._rope: dict[bool, dict[str, FloatArray]] = {}

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
        with _engine_errors():
            self.inner.run_with_iobinding(binding)
        session.length = total


class OnnxEngine:
    """See `Engine`."""

    name: ClassVar[str] = "onnx"

    def why_not(self, bundle: Bundle, profile: DeviceProfile, *, variant: str) -> str | None:
        """Return None if `open` should work here, else a reason."""
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed: pip install onnxruntime"
        return _missing_kernel(bundle, variant)

    def open(
        self, bundle: Bundle, *, variant: str, threads: int, adapter: Adapter | None = None
    ) -> OnnxLoaded:
        """Load the graph; its weights are mapped from the bundle's files.

        Raises:
            EngineUnavailable: if onnxruntime is missing or cannot run the variant.
            EngineError: if ONNX Runtime refuses the graph.
            BundleCorrupt: if graph and weights do not match the manifest.
        """
        chosen = bundle.manifest.variants[variant]
        if reason := _missing_kernel(bundle, variant):
            raise EngineUnavailable(f"{bundle.root}: {reason}")
        open_weights(bundle, variant)
        graph = bundle.path(chosen.graph)
        content = whole_graph(read_graph(graph), bundle, variant)
        check_tensors(content, bundle.root, allowed=chosen.weights, where=str(graph))
        try:
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
        if adapter is not None or chosen.sparse:
            source = content
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(graph.parent))
        with _engine_errors():
            inner = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        key = state_key(bundle, variant, self.name, adapter)
        # How it divides sums depends on its version, the threads and the processor.
        span_key = narrowed_key(key, ort.__version__, str(threads), *processor()[1])
        return OnnxLoaded(inner, bundle.manifest.decoder, key, span_key=span_key)


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


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn ONNX Runtime's errors into ours; a step's is a plain RuntimeError, others are not.

    Raises:
        EngineError: if the error came from ONNX Runtime.
    """
    try:
        yield
    except Exception as error:
        theirs = type(error).__module__.startswith("onnxruntime")
        if theirs or isinstance(error, RuntimeError):
            raise EngineError(f"onnxruntime: {error}") from error
        raise
