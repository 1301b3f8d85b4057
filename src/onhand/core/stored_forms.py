"""How a bundle stores the tensors that it does not store as they are."""

from collections.abc import Mapping
from typing import Final

from onhand.core.errors import InputError
from onhand.core.outside import shown
from onhand.core.sparse_form import MOST_EXPANDED_BYTES, SparseForm, sparse_form_from_json
from onhand.core.table_form import TableForm, table_form_from_json

__all__ = ["StoredForm", "stored_forms_from_json"]

StoredForm = SparseForm | TableForm
"""Without its zeros, or as a table of its values."""

_MOST_TENSORS: Final = 2**16


def stored_forms_from_json(value: object) -> dict[str, StoredForm]:
    """Read the forms of a variant: name of a tensor of its graph -> form.

    Raises:
        InputError: if one is damaged, or all of them would take too much memory.
    """
    if not isinstance(value, Mapping) or len(value) > _MOST_TENSORS:
        raise InputError(f"sparse is {shown(value)}, must be an object of tensors")
    forms = {str(name): _form(one, f"sparse tensor {shown(name)}") for name, one in value.items()}
    if (total := sum(form.size_bytes for form in forms.values())) > MOST_EXPANDED_BYTES:
        raise InputError(f"sparse tensors of {total} bytes, {MOST_EXPANDED_BYTES} at most")
    return forms


def _form(value: object, where: str) -> StoredForm:
    is_table = isinstance(value, Mapping) and "n_values" in value
    return table_form_from_json(value, where) if is_table else sparse_form_from_json(value, where)
