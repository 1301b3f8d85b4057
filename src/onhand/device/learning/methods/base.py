"""What a trainer asks of a method of learning without forgetting."""

from typing import Protocol

from onhand.core.arrays import FloatArray
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.methods.kept import Kept

__all__ = ["Method"]


class Method(Protocol):
    """What is added to plain training. One thread at a time; all chance is its own generator's.

    A session of learning is: `begin`; for each batch `feeds`, the lesson's run, `adjust` (once
    for each step of the optimizer, on the summed gradients), the optimizer, `hold`, `after`; and
    `end`. Between any two calls `save` gives all that another process needs to go on by `load`.
    A method that does not train (`trains` is false) is given batches by `after` alone, each once,
    and gives what it has learned at `end`.

    A batch is what the lesson's graph takes of new examples, less what the method adds:
        of a classifier: its inputs, or `latent` where there is a trunk; `labels` and `weights`;
        of a language model: `tokens`, `rows`, `labels`, `weights`.
    The weights say what the batch counts; what a method adds counts in proportion to their sum.
    """

    @property
    def name(self) -> str:
        """As it was chosen."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What happened when this session began that its report should say."""
        ...

    @property
    def trains(self) -> bool:
        """Whether it learns from gradients."""
        ...

    def remember(self, teachable: Teachable, values: Values, batch: Feeds, *, width: int) -> None:
        """Take in examples of what is known already, without learning from them; before `begin`.

        Args:
            teachable: the lesson.
            values: of every trainable.
            batch: the examples.
            width: classes that the network tells apart, or tokens of the vocabulary.

        Raises:
            InputError: if the batch does not fit the lesson.
            EngineError: if the lesson's graph fails.
        """
        ...

    def begin(
        self, teachable: Teachable, values: Values, *, width: int, known: int | None = None
    ) -> dict[str, FloatArray]:
        """Start a session: what is known now is what must not be forgotten.

        Args:
            teachable: the lesson.
            values: of every trainable, its head grown already.
            width: classes that the network tells apart, or tokens of the vocabulary.
            known: how many of the classes it knew before; None for all of them.

        Returns:
            The values to start with; most methods change none.

        Raises:
            InputError: if the method cannot serve this lesson.
            EngineError: if the lesson's graph fails.
        """
        ...

    def feeds(self, teachable: Teachable, values: Values, batch: Feeds) -> Feeds:
        """Return all that the lesson's graph takes: the batch, whose examples stay first, and more.

        Args:
            teachable: the lesson.
            values: of every trainable, as they are now.
            batch: the new examples.

        Raises:
            InputError: if the batch does not fit the lesson.
            EngineError: if the lesson's graph fails.
        """
        ...

    def adjust(self, values: Values, gradients: Values) -> dict[str, FloatArray]:
        """Return the gradients with those of penalties, before they are clipped.

        Args:
            values: of every trainable, as they are now.
            gradients: of the loss, for each trainable.
        """
        ...

    def hold(self, before: Values, after: Values) -> dict[str, FloatArray]:
        """Return what the optimizer made, less its changes of what is not to change.

        Args:
            before: the values before the optimizer's step.
            after: those after it.
        """
        ...

    def after(
        self,
        teachable: Teachable,
        values: Values,
        batch: Feeds,
        taught: Taught | None,
        *,
        first: bool = True,
    ) -> None:
        """Take in a batch that was learned from.

        Args:
            teachable: the lesson.
            values: of every trainable, those that `taught` was made with.
            batch: the new examples, as given to `feeds`.
            taught: what the run on them gave; None where the method does not train.
            first: whether the session sees these examples for the first time: only then they are
                offered to a memory.

        Raises:
            InputError: if the batch does not fit the lesson.
            EngineError: if the lesson's graph fails.
        """
        ...

    def end(self, teachable: Teachable, values: Values) -> dict[str, FloatArray]:
        """End a session, and return its values; most methods change none.

        Args:
            teachable: the lesson.
            values: of every trainable, as the session left them.

        Raises:
            InputError: if the method cannot serve this lesson.
            EngineError: if the lesson's graph fails.
        """
        ...

    def save(self) -> Kept:
        """Return its whole state, the generator's included."""
        ...

    def load(self, kept: Kept) -> None:
        """Take on a state that `save` gave, here or in another process.

        Args:
            kept: may come from a damaged disk: everything is checked.

        Raises:
            InputError: if it is of another method, or anything in it is missing or not valid.
        """
        ...
