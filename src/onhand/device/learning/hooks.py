"""Training for what is new alone: nothing is done for what was known."""

from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Feeds, Taught, Teachable, Values
from onhand.device.learning.methods.kept import Kept

__all__ = ["Naive"]


class Naive:
    """See `Method`: what others are compared with."""

    @property
    def name(self) -> str:
        """See `Method`."""
        return "naive"

    @property
    def trains(self) -> bool:
        """See `Method`."""
        return True

    def remember(self, teachable: Teachable, values: Values, batch: Feeds, *, width: int) -> None:
        """Do nothing."""

    def begin(
        self, teachable: Teachable, values: Values, *, width: int, known: int | None = None
    ) -> dict[str, FloatArray]:
        """Return the values as they are."""
        return dict(values)

    def feeds(self, teachable: Teachable, values: Values, batch: Feeds) -> Feeds:
        """Return the new examples alone."""
        return batch

    def adjust(self, values: Values, gradients: Values) -> dict[str, FloatArray]:
        """Return the gradients as they are."""
        return dict(gradients)

    def hold(self, before: Values, after: Values) -> dict[str, FloatArray]:
        """Return what the optimizer made."""
        return dict(after)

    def after(
        self,
        teachable: Teachable,
        values: Values,
        batch: Feeds,
        taught: Taught | None,
        *,
        first: bool = True,
    ) -> None:
        """Do nothing."""

    def end(self, teachable: Teachable, values: Values) -> dict[str, FloatArray]:
        """Return the values as they are."""
        return dict(values)

    def save(self) -> Kept:
        """Return that there is nothing."""
        return Kept(facts={"method": self.name})

    def load(self, kept: Kept) -> None:
        """Check that there is nothing.

        Raises:
            InputError: if it is of another method.
        """
        if kept.facts != {"method": self.name}:
            raise InputError("the state that was kept is not that of the naive method")
