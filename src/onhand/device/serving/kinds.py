"""What kind of thing a model is, found out once for each class of them.

Python 3.11 compares every name of a protocol with an object each time it is asked, and asks the
object's properties too: a tenth of a millisecond, several times in each request.
"""

from collections.abc import Callable
from typing import Final, cast

from onhand.device.serving.asks import Fronts, TextModel
from onhand.device.serving.models.network import NetworkModel

__all__ = ["as_network", "as_text", "near_of"]


def as_network(model: object) -> NetworkModel | None:
    """Return a model that computes vectors or classes; None for another kind."""
    return cast(NetworkModel, model) if _is_network(model) else None


def as_text(model: TextModel | NetworkModel) -> TextModel | None:
    """Return a model that answers in text; None for another kind."""
    return None if _is_network(model) else cast(TextModel, model)


def near_of(model: object) -> TextModel | None:
    """Return the model of this device that one stands before; None where there is none."""
    return cast(Fronts, model).near if _is_front(model) else None


def _remembered(check: Callable[[object], bool]) -> Callable[[object], bool]:
    known: dict[type, bool] = {}

    def checked(model: object) -> bool:
        kind = type(model)
        if kind not in known:
            known[kind] = check(model)
        return known[kind]

    return checked


_is_network: Final = _remembered(lambda model: isinstance(model, NetworkModel))
_is_front: Final = _remembered(lambda model: isinstance(model, Fronts))
