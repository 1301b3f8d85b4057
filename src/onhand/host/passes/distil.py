"""What earlier passes lost, learnt back from the original: every weight is trained."""

from dataclasses import dataclass
from typing import ClassVar

from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat
from onhand.host.distil import check_torch
from onhand.host.lessons import TextLessons, pad_rows
from onhand.host.model import Model
from onhand.host.passes.base import ShapeReport, ShapeWork
from onhand.host.passes.quantize import Quantize
from onhand.host.recover import Training, recover_model

__all__ = ["Distil"]

# One sequence in so many judges and is not trained on.
_JUDGING = 16
_MOST_JUDGES = 16
# A token: the original forward, the copy forward and twice that back.
_TEACHER, _STUDENT = 2, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Distil:
    """Train all weights until the model says what the original says. See `ShapingPass`.

    Attributes:
        steps: how often the weights are moved.
        rate: largest learning rate of AdamW.
        batch_tokens: tokens of one step.
        tokens: most tokens of the text that it trains on; they come again when they are used up.
        temperature: above 1, what the original finds unlikely counts for more.
        hidden: weight of the distance between the heads' inputs; 0.0 for none.
        precision: of products: "float32", "bf16", or "auto" for bf16 where the processor has AMX.
        bits: width of the codes that the weights will be stored in, symmetric ones: it then learns
            with rounded weights, and what it gives is rounded already; 0 to learn without.
        group_size: inputs that share one scale there.
        embed_bits: bits of the embedding, learned positions and the head; 0 for the same as `bits`.
    """

    name: ClassVar[str] = "distil"

    steps: int = 1000
    rate: float = 5e-4
    batch_tokens: int = 4096
    tokens: int = 2**22
    temperature: float = 1.0
    hidden: float = 0.0
    precision: str = "auto"
    bits: int = 0
    group_size: int = 32
    embed_bits: int = 0

    def __post_init__(self) -> None:
        self._training()
        if self.bits:
            self._storing()
        elif self.embed_bits:
            raise InputError(f"embed_bits is {self.embed_bits}, but bits is 0: give both")
        if self.batch_tokens < 1 or self.tokens < 1:
            raise InputError("batch_tokens and tokens must be 1 or more")

    def plan_shape(self, decoder: Decoder, *, tokens: int) -> ShapeReport:
        """Say what it takes; the shapes stay. See `ShapingPass`."""
        check_torch('pass "distil"')
        trained, n = self.steps * self.batch_tokens, decoder.n_parameters
        # Weights, gradients and two moments; what a layer keeps for its gradient; logits.
        inside = sum(
            8 * decoder.width + 6 * layer.mlp_width + 6 * layer.query_width
            for layer in decoder.layers
        )
        activations = self.batch_tokens * (inside + 6 * decoder.vocab_size)
        return ShapeReport(
            decoder=decoder,
            trains=True,
            training_tokens=self.tokens,
            operations=float(trained) * n * (_TEACHER + _STUDENT),
            memory_bytes=4 * (6 * n + activations),
        )

    def shape(self, model: Model, work: ShapeWork) -> Model:
        """Train, from the last checkpoint on if there is one. See `ShapingPass`."""
        text = work.training or work.calibration
        judges = text[:: max(_JUDGING, -(-len(text) // _MOST_JUDGES))] if len(text) > 1 else text
        judging = {id(tokens) for tokens in judges} if len(text) > 1 else set()
        learners = [tokens for tokens in text if id(tokens) not in judging]
        found = recover_model(
            work.original,
            model,
            TextLessons(sequences=learners, batch_tokens=self.batch_tokens),
            [pad_rows([tokens]) for tokens in judges],
            training=self._training(),
            folder=work.folder,
            threads=work.threads,
            progress=work.progress,
            forms=self._forms(model),
        )
        work.progress.note(
            f"distil: {found.n_tokens:,} tokens took the divergence on text that was left out of "
            f"training from {found.before:.4f} to {found.after:.4f} nat"
        )
        return found.model

    def _storing(self) -> Quantize:
        """Return the pass that would store the weights so."""
        return Quantize(
            bits=self.bits, group_size=self.group_size, embed_bits=self.embed_bits, method="rtn"
        )

    def _forms(self, model: Model) -> dict[str, GroupFormat]:
        """Return how each matrix will be stored; empty where nothing is to be rounded."""
        formats = self._storing().plan(model.decoder).formats if self.bits else {}
        return {name: form for name, form in formats.items() if form is not None}

    def _training(self) -> Training:
        return Training(
            steps=self.steps,
            rate=self.rate,
            temperature=self.temperature,
            hidden=self.hidden,
            precision=self.precision,
        )
