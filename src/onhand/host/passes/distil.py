"""What earlier passes lost, learnt back from the original: every weight is trained."""

from dataclasses import dataclass
from typing import ClassVar

from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.host.distil import check_torch
from onhand.host.lessons import TextLessons, pad_rows
from onhand.host.model import Model
from onhand.host.passes.base import ShapeReport, ShapeWork
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
    """

    name: ClassVar[str] = "distil"

    steps: int = 1000
    rate: float = 5e-4
    batch_tokens: int = 4096
    tokens: int = 2**22
    temperature: float = 1.0
    hidden: float = 0.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        self._training()
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
        )
        work.progress.note(
            f"distil: {found.n_tokens:,} tokens took the divergence on text that was left out of "
            f"training from {found.before:.4f} to {found.after:.4f} nat"
        )
        return found.model

    def _training(self) -> Training:
        return Training(
            steps=self.steps,
            rate=self.rate,
            temperature=self.temperature,
            hidden=self.hidden,
            precision=self.precision,
        )
