"""Tensors of few different float16, as an index and a table."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.arrays import HalfArray
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.stored_forms import stored_forms_from_json
from onhand.core.table_form import TableForm, table_form_from_json, tabulate_tensor

GOOD: dict[str, object] = {"n_values": 4, "shape": [4, 8], "tensor": "w"}
FORM = TableForm(tensor="w", shape=(4, 8), n_values=4)


def halves(n_values: int, *shape: int) -> HalfArray:
    """So many different float16 in an array."""
    values = np.linspace(-1, 1, n_values).astype(np.float16)
    picks = np.random.default_rng(n_values).integers(0, n_values, shape)
    picks.reshape(-1)[:n_values] = np.arange(n_values)
    return values[picks]


@settings(max_examples=50)
@given(
    n_values=st.integers(1, 256),
    rows=st.integers(16, 40),
    columns=st.integers(40, 70),
)
def test_the_bytes_come_back(n_values: int, rows: int, columns: int) -> None:
    """Whatever the numbers are."""
    whole = halves(n_values, rows, columns)

    found = tabulate_tensor("w", whole)

    assert found is not None
    assert found.form.expand(found.index, found.table).tobytes() == whole.tobytes()
    assert found.index.nbytes + found.table.nbytes == found.form.stored_bytes
    assert (found.form.size_bytes, found.form.n_values) == (whole.nbytes, n_values)


def test_zeros_of_both_signs_and_what_is_no_number_come_back() -> None:
    """A table is of bits, not of values."""
    whole = halves(9, 30, 30)
    whole[0, :4] = [0.0, -0.0, np.inf, np.nan]

    found = tabulate_tensor("w", whole)

    assert found is not None
    assert found.form.expand(found.index, found.table).tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("n_values", "size", "is_smaller"),
    [(256, 640, True), (256, 639, False), (257, 5000, False), (2, 512, True), (2, 511, False)],
)
def test_a_table_must_save_a_tenth(n_values: int, size: int, *, is_smaller: bool) -> None:
    """Of at least a kilobyte, and hold all values."""
    assert (tabulate_tensor("w", halves(n_values, size)) is not None) is is_smaller


def test_a_form_is_written_and_read() -> None:
    """As JSON, in the manifest, beside those without zeros."""
    text = json.loads(json.dumps({"graph.w": FORM.to_json()}))

    assert stored_forms_from_json(text) == {"graph.w": FORM}
    assert FORM.streams == ("w.index", "w.table")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_values": 0}, "n_values is 0"),
        ({"n_values": 257}, "n_values is 257"),
        ({"n_values": True}, "n_values is True"),
        ({"n_values": 2**70}, "n_values is"),
        ({"shape": []}, "shape is"),
        ({"shape": [0, 8]}, "shape is"),
        ({"shape": [-4, -8]}, "shape is"),
        ({"shape": [2.0, 8]}, "shape is"),
        ({"shape": "48"}, "shape is"),
        ({"shape": [2**40, 2**40]}, "shape is"),
        ({"shape": [2, 2, 2, 4]}, "shape is"),
        ({"tensor": ""}, "tensor is ''"),
        ({"tensor": None}, "tensor is None"),
        ({"zero": 1}, "unknown key 'zero'"),
    ],
)
def test_attack_forms_are_checked(change: dict[str, object], message: str) -> None:
    """Before a byte of what they describe is reserved."""
    with pytest.raises(InputError, match=message):
        table_form_from_json(GOOD | change, "w")


@pytest.mark.parametrize("n_values", [0, 257])
def test_a_table_has_1_to_256_values(n_values: int) -> None:
    """Also where nobody read it."""
    with pytest.raises(InputError, match=f"n_values is {n_values}, must be 1 to 256"):
        TableForm(tensor="w", shape=(4, 8), n_values=n_values)


@pytest.mark.parametrize(
    ("index", "table", "message"),
    [
        (np.zeros(31), np.zeros(8), "31 and 8 bytes, must be 32 and 8"),
        (np.zeros(32), np.zeros(10), "32 and 10 bytes, must be 32 and 8"),
        (np.full(32, 4), np.zeros(8), "names number 4 of a table of 4"),
    ],
)
def test_attack_streams_that_do_not_fit(index: np.ndarray, table: np.ndarray, message: str) -> None:
    """Nothing is read beyond the table."""
    with pytest.raises(BundleCorrupt, match=message):
        FORM.expand(index.astype(np.uint8), table.astype(np.uint8))
