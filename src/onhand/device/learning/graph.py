"""A bundle's lesson in ONNX Runtime: its loss and gradients, on the bundle's own weights file."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import BundleCorrupt, EngineError, EngineUnavailable, InputError
from onhand.core.lesson import Lesson
from onhand.core.onnxgraph import DeclaredArray
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.lesson_files import (
    check_values,
    read_lesson,
    read_lesson_graph,
    read_start,
)
from onhand.device.onnx_errors import onnx_errors
from onhand.device.onnx_weights import weights_from
from onhand.device.telemetry import refuse_telemetry

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["LessonGraph", "Memory", "open_lesson"]

Memory = Literal["low", "fast"]
"""low: what a step needs is given back after it, which takes about a third more time."""

_ACCURACY_LEVEL: Final = "session.qdq_matmulnbits_accuracy_level"
_PREPACKING: Final = "session.disable_prepacking"
_STOP_WAITING: Final = "session.force_spinning_stop"
_ANSWERS: Final = {"tokens": ("logprobs",), "classes": ("losses", "logits")}
# Of a class lesson, what counts only where a method has a past to hold on to.
_PAST: Final = ("past_logits", "past_weights", "past_classes", "soft_weights")
_TABLES: Final = ("cosines.", "sines.")


class LessonGraph:
    """See `Teachable` and `Answering`."""

    def __init__(
        self,
        bundle: Bundle,
        lesson: Lesson,
        *,
        graph: "ort.InferenceSession",
        trunk: "ort.InferenceSession | None",
        inputs: Mapping[str, DeclaredArray],
        trunk_inputs: Mapping[str, DeclaredArray],
    ) -> None:
        """Take what `open_lesson` opened."""
        self._bundle = bundle
        self._lesson = lesson
        self._graph: ort.InferenceSession | None = graph
        self._trunk: ort.InferenceSession | None = trunk
        self._inputs = inputs
        self._trunk_inputs = trunk_inputs
        self._gradients = [f"grad.{name}" for name in lesson.trainables]
        self._tables: dict[bool, dict[str, FloatArray]] = {}

    @property
    def lesson(self) -> Lesson:
        """See `Teachable`."""
        return self._lesson

    def start(self) -> dict[str, FloatArray]:
        """See `Teachable`."""
        return read_start(self._bundle, self._lesson)

    def latent(self, inputs: Feeds) -> FloatArray:
        """See `Teachable`.

        Raises:
            InputError: if the lesson has no trunk, or an input does not fit.
        """
        self._open()
        if self._trunk is None:
            raise InputError(f"{self._bundle.root}: the lesson has no trunk")
        _check_feeds(inputs, self._trunk_inputs, "the trunk")
        with onnx_errors():
            (found,) = self._trunk.run(["latent"], _rows(inputs))
        result: FloatArray = np.asarray(found, dtype=np.float32)
        return result

    def teach(self, values: Values, feeds: Feeds) -> Taught:
        """See `Teachable`; of `past_logits` and its like, what is left out counts nothing."""
        names = ["loss", *_ANSWERS[self._lesson.feeds], *self._gradients]
        return self._taught(names, values, feeds, None)

    def answer(self, values: Values, feeds: Feeds) -> Taught:
        """See `Answering`."""
        self._open()
        refuse_telemetry()
        import onnxruntime as ort

        options = ort.RunOptions()
        options.only_execute_path_to_fetches = True
        return self._taught(["loss", *_ANSWERS[self._lesson.feeds]], values, feeds, options)

    def close(self) -> None:
        """See `Teachable`."""
        self._graph = self._trunk = None
        self._tables = {}

    def _open(self) -> "ort.InferenceSession":
        if self._graph is None:
            raise EngineError("the lesson is closed; open the bundle again")
        return self._graph

    def _taught(
        self, names: list[str], values: Values, feeds: Feeds, options: "ort.RunOptions | None"
    ) -> Taught:
        graph = self._open()
        n_added = check_values(values, self._lesson.trainables)
        given = self._completed(feeds, values, n_added)
        wanted = {
            name: info for name, info in self._inputs.items() if name not in self._lesson.trainables
        }
        _check_feeds(given, wanted, "the lesson")
        if self._lesson.feeds == "tokens":
            self._check_tokens(given)
        with onnx_errors():
            found = dict(
                zip(names, graph.run(names, _rows({**values, **given}), options), strict=True)
            )
        loss = float(np.asarray(found.pop("loss")).reshape(()))
        gradients = {
            name: found.pop(f"grad.{name}")
            for name in self._lesson.trainables
            if f"grad.{name}" in found
        }
        return Taught(loss=loss, outputs=found, gradients=gradients)

    def _completed(self, feeds: Feeds, values: Values, n_added: int) -> dict[str, np.ndarray]:
        """Return the feeds with what the bundle itself knows, and a past that counts nothing."""
        given = dict(feeds)
        if self._lesson.feeds == "tokens":
            tokens = given.get("tokens")
            length = tokens.shape[1] if isinstance(tokens, np.ndarray) and tokens.ndim == 2 else 0
            tables = self._rotary(length)
            return given | {name: tables[name] for name in tables if name in self._inputs}
        labels = given.get("labels")
        B = labels.shape[0] if isinstance(labels, np.ndarray) and labels.ndim == 1 else 0
        C = self._n_classes(values, n_added)
        for name in _PAST:
            if name in self._inputs and name not in given:
                shape = (B,) if name.endswith("weights") else (B, C)
                given[name] = np.zeros(shape, dtype=np.float32)
        return given

    def _n_classes(self, values: Values, n_added: int) -> int:
        grows = [name for name, made in self._lesson.trainables.items() if made.grows]
        if grows:
            return int(values[grows[0]].shape[0])
        network = self._bundle.manifest.network
        size = network.outputs[0].shape[-1] if network.outputs[0].shape else None
        return (size or network.n_labels) + n_added

    def _check_tokens(self, given: Feeds) -> None:
        """Refuse token ids, rows and labels that reach outside: kernels need not look.

        Raises:
            InputError: if one does.
        """
        vocab_size = self._bundle.manifest.decoder.vocab_size
        bounds = {"tokens": vocab_size, "labels": vocab_size, "rows": given["tokens"].size}
        for name, most in bounds.items():
            found = given[name]
            if found.size and not 0 <= int(found.min()) <= int(found.max()) < most:
                raise InputError(
                    f"the lesson: {name} has a number from {found.min()} to {found.max()}, must "
                    f"be from 0 to {most - 1}"
                )

    def _rotary(self, length: int) -> dict[str, FloatArray]:
        """Return the rotary tables by input name, `length` rows each.

        Raises:
            InputError: if a text is longer than the model's context.
        """
        decoder: Decoder = self._bundle.manifest.decoder
        if length > decoder.context:
            raise InputError(
                f"a text of {length} tokens is longer than the model's context, {decoder.context}"
            )
        named = decoder.rotary_tables()
        long = any(rope.is_long(length) for rope, _ in named.values())
        tables = self._tables.get(long, {})
        if any(len(table) < length for table in tables.values()) or not tables:
            tables = {}
            for name, (rope, head_dim) in named.items():
                cosines, sines = rope.tables(head_dim, length, long=long)
                tables[f"cosines.{name}"] = np.ascontiguousarray(cosines)
                tables[f"sines.{name}"] = np.ascontiguousarray(sines)
            self._tables[long] = tables
        return {name: table[:length] for name, table in tables.items()}


def open_lesson(bundle: Bundle, *, threads: int, memory: Memory = "fast") -> Teachable:
    """Open what a bundle can learn; its weights are mapped from the bundle's files.

    Args:
        bundle: a verified bundle.
        threads: of one step.
        memory: "fast" keeps what a step needed for the next one; "low" gives it back.

    Returns:
        The lesson; close it.

    Raises:
        InputError: if the bundle holds no lesson.
        BundleCorrupt: if the lesson's files do not match each other or the manifest.
        EngineUnavailable: if onnxruntime cannot be imported.
        EngineError: if ONNX Runtime refuses a graph.
    """
    lesson = read_lesson(bundle)
    content, inputs, outputs = read_lesson_graph(bundle, lesson, lesson.graph)
    _check_graph(f"{bundle.root}: {lesson.graph}", lesson, inputs, outputs)
    trunk: ort.InferenceSession | None = None
    trunk_inputs: dict[str, DeclaredArray] = {}
    if lesson.trunk is not None:
        before, trunk_inputs, made = read_lesson_graph(bundle, lesson, lesson.trunk)
        if "latent" not in made:
            raise BundleCorrupt(f"{bundle.root}: {lesson.trunk} gives no output 'latent'")
        trunk = _session(before, bundle, lesson, threads=threads, memory=memory)
    graph = _session(content, bundle, lesson, threads=threads, memory=memory)
    return LessonGraph(
        bundle, lesson, graph=graph, trunk=trunk, inputs=inputs, trunk_inputs=trunk_inputs
    )


def _check_graph(
    where: str,
    lesson: Lesson,
    inputs: Mapping[str, DeclaredArray],
    outputs: Mapping[str, DeclaredArray],
) -> None:
    """Hold a graph against what the lesson says of it.

    Raises:
        BundleCorrupt: if an input or output is missing.
    """
    needed = [*lesson.trainables, "labels", "weights"]
    needed += ["tokens", "rows"] if lesson.feeds == "tokens" else []
    for name in needed:
        if name not in inputs:
            raise BundleCorrupt(f"{where}: has no input {name!r}, which its lesson needs")
    given = ["loss", *_ANSWERS[lesson.feeds], *(f"grad.{name}" for name in lesson.trainables)]
    for name in given:
        if name not in outputs:
            raise BundleCorrupt(f"{where}: has no output {name!r}, which its lesson needs")


def _session(
    content: bytes, bundle: Bundle, lesson: Lesson, *, threads: int, memory: Memory
) -> "ort.InferenceSession":
    """Open a graph.

    Raises:
        EngineUnavailable: if onnxruntime cannot be imported.
    """
    try:
        refuse_telemetry()
        import onnxruntime as ort
    except ImportError as error:
        raise EngineUnavailable(f"onnxruntime cannot be imported: {error}") from error

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # As bytes: places are relative to the bundle's folder then, wherever the graph lies.
    numbers = [name for name in bundle.manifest.files if name.endswith(".safetensors")]
    kept = weights_from(options, bundle, numbers)  # until the session is made
    variant = bundle.manifest.variants[lesson.variant]
    if not any(variant.matrices.values()):
        # Packed copies of floats would double what stays mapped from the file. Those of codes are
        # small, and without them a product turns its whole matrix into floats.
        options.add_session_config_entry(_PREPACKING, "1")
    level = variant.accuracy_level
    options.add_session_config_entry(_ACCURACY_LEVEL, str(level))
    # A step alternates between trunk, graph and optimizer: threads of one that wait busily for its
    # next run take the cores of the others, and a small network's step up to twice the time.
    options.add_session_config_entry(_STOP_WAITING, "1")
    options.enable_cpu_mem_arena = memory != "low"
    # A pattern is a second place for all that a step makes, beside the arena's own: of factors in
    # every layer of an encoder, a fifth more memory for no time that can be measured.
    is_encoder = lesson.kind == "lora" and lesson.feeds == "classes"
    options.enable_mem_pattern = memory != "low" and not is_encoder
    with onnx_errors():
        made = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kept.clear()
    return made


def _rows(feeds: Feeds) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array) for name, array in feeds.items()}


def _check_feeds(feeds: Feeds, inputs: Mapping[str, DeclaredArray], what: str) -> None:
    """Check arrays against what a graph declares, sizes that share a name included.

    Raises:
        InputError: if one is missing, unknown, or of another dtype or shape.
    """
    if odd := sorted(feeds.keys() ^ inputs.keys()):
        found = "is missing" if odd[0] in inputs else "is unknown"
        raise InputError(f"{what}: input {odd[0]!r} {found}; it takes {', '.join(sorted(inputs))}")
    for name, info in inputs.items():
        array = feeds[name]
        if not isinstance(array, np.ndarray):
            raise InputError(f"{what}: input {name!r} is a {type(array).__name__}, no array")
        if info.dtype and array.dtype.name != info.dtype:
            raise InputError(f"{what}: input {name!r} is {array.dtype}, must be {info.dtype}")
        shape = info.shape
        if shape is None:
            continue
        fits = len(shape) == array.ndim and all(
            wanted in {None, size} for wanted, size in zip(shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(f"{what}: input {name!r} is {array.shape}, must be ({wanted})")
