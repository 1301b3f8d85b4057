"""What choices lose, as it was kept in the state folder before."""

from collections.abc import Mapping, Sequence

from onhand.host.search.choices import Form, SearchSpace, form_name
from onhand.host.search.correction import Observation
from onhand.host.search.sensitivity import FormLoss, losses_from_json
from onhand.host.search.store import SearchStore, content_key

__all__ = ["QUICK", "THOROUGH", "read_losses", "table_name"]

QUICK, THOROUGH = 2e11, 1e12
"""Operations for measuring what layers lose: before a forecast, and before a build."""


def read_losses(
    store: SearchStore, able: Mapping[str, Sequence[Form]], space: SearchSpace, operations: float
) -> tuple[list[FormLoss], list[Observation]] | None:
    """Return the table and the first observations that are kept; None if there are none.

    Args:
        store: of the model, the text and the method.
        able: matrix -> plain formats.
        space: what else may be chosen.
        operations: that measuring took, at least.
    """
    for effort in sorted({operations, THOROUGH}, reverse=True):
        kept = store.read(table_name(able, space, effort))
        losses = None if kept is None else losses_from_json(kept)
        if kept is not None and losses and effort >= operations:
            whole = kept.get("whole")
            return losses, [Observation(**one) for one in whole] if isinstance(whole, list) else []
    return None


def table_name(able: Mapping[str, Sequence[Form]], space: SearchSpace, operations: float) -> str:
    """Return the name of a kept table; see `read_losses`."""
    forms = {name: [form_name(form) for form in own] for name, own in able.items()}
    more = [space.methods, space.zeros, space.ranks]
    return f"sensitivity-{content_key({'forms': forms, 'more': more, 'operations': operations})}"
