"""What a language model can learn: factors of low rank beside some of its matrices.

The graph reads the very bytes that the bundle's variant answers from; nothing is stored twice.

Source:
    LoRA: arXiv:2106.09685; over frozen weights in low precision: QLoRA, arXiv:2305.14314.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.lesson import Lesson, Trainable
from onhand.core.quantized import GroupFormat
from onhand.host.export.decoder_parts import Places
from onhand.host.learning.decoder_forward import LOGITS, LowRank, decoder_forward
from onhand.host.learning.differentiate import differentiate
from onhand.host.learning.losses import append_token_loss
from onhand.host.learning.wanted import Learnable

__all__ = ["GRAPH", "START", "TARGETS", "decoder_lesson", "lesson_graph", "low_rank", "starts"]

GRAPH: Final = "learn.onnx"
START: Final = "learn.safetensors"
TARGETS: Final = ("qkv",)
"""What is learned of each layer unless something else is asked for."""
_SEED: Final = 0


def low_rank(decoder: Decoder, wanted: Learnable) -> LowRank:
    """Return what is added to which matrices.

    Args:
        decoder: the model.
        wanted: what is asked for.

    Returns:
        The targets in the order of the computation.

    Raises:
        InputError: if it is not of low rank, or the model has no such matrix.
    """
    if wanted.kind != "lora":
        raise InputError(
            f"--learnable {wanted.kind}: a language model learns by factors of low rank; give lora"
        )
    if wanted.classes:
        raise InputError("--learnable: classes are for classifiers; a language model has none")
    able = ("qkv", "out", decoder.inner, "down")
    chosen = wanted.targets or TARGETS
    if odd := [name for name in chosen if name not in able]:
        raise InputError(
            f"--learnable: target {odd[0]!r} is no matrix of this model; it has {', '.join(able)}"
        )
    names = tuple(name for name in decoder.whole_tensors() if name.rpartition(".")[2] in chosen)
    shapes = decoder.whole_tensors()
    for name in names:
        if wanted.rank > min(shapes[name]):
            raise InputError(
                f"--learnable: rank is {wanted.rank}, {name} has {shapes[name]} outputs and "
                f"inputs; give at most {min(shapes[name])}"
            )
    return LowRank(targets=names, rank=wanted.rank, alpha=wanted.scale())


def decoder_lesson(decoder: Decoder, added: LowRank, *, variant: str) -> Lesson:
    """Return what `learn.json` says.

    Args:
        decoder: the model.
        added: what is learned.
        variant: whose weights the graph reads.
    """
    shapes = decoder.whole_tensors()
    trainables: dict[str, Trainable] = {}
    for name in added.targets:
        n_outputs, n_inputs = shapes[name]
        sizes = {"lora_A": (added.rank, n_inputs), "lora_B": (n_outputs, added.rank)}
        for part, shape in sizes.items():
            trainables[f"{name}.{part}"] = Trainable(shape=shape, tensor=name, part=part)
    return Lesson(
        kind="lora",
        feeds="tokens",
        variant=variant,
        graph=GRAPH,
        trunk=None,
        start=START,
        trainables=trainables,
        alpha=added.alpha,
    )


def starts(lesson: Lesson) -> dict[str, FloatArray]:
    """Return the starting values: B is zero, so that nothing is added before something is learned.

    Args:
        lesson: what is learned.

    Returns:
        Name -> value; the same each time. A is uniform, as PEFT's is.
    """
    random = np.random.default_rng(_SEED)
    values: dict[str, FloatArray] = {}
    for name, made in lesson.trainables.items():
        if made.part == "lora_B":
            values[name] = np.zeros(made.shape, dtype=np.float32)
        else:
            most = made.shape[1] ** -0.5
            values[name] = random.uniform(-most, most, made.shape).astype(np.float32)
    return values


def lesson_graph(
    decoder: Decoder,
    matrices: Mapping[str, GroupFormat | None],
    places: Places,
    added: LowRank,
) -> bytes:
    """Build the graph of loss and gradients: see `core.lesson`.

    Args:
        decoder: the model.
        matrices: name -> how each matrix is stored; None for plain float32.
        places: tensor name -> file name in the bundle and byte range in that file.
        added: what is learned.

    Returns:
        The serialised ONNX model; deterministic.

    Raises:
        InputError: if a matrix is stored in a way that cannot be learned over.
    """
    for name, form in matrices.items():
        if form is not None and 8 % form.bits:
            raise InputError(
                f"{name} has codes of {form.bits} bits, which no graph of ONNX Runtime reads: a "
                "bundle with 2, 4 or 8 bits can learn"
            )
    model = decoder_forward(decoder, matrices, places, added)
    gradient = append_token_loss(model.graph, logits=LOGITS)
    wanted = [f"{name}.{part}" for name in added.targets for part in ("lora_A", "lora_B")]
    taught = differentiate(model, loss="loss", wrt=wanted, starts=gradient)
    # What it states of shapes was for the rules; the runtime infers them itself.
    del taught.graph.value_info[:]
    content: bytes = taught.SerializeToString(deterministic=True)
    return content
