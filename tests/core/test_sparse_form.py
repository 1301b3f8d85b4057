"""Tensors without their zeros: the same bytes again, and nothing else is taken for them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.arrays import ByteArray
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.sparse import CodeArray, Pattern, code_dtype
from onhand.core.sparse_form import (
    SparseForm,
    SparseTensor,
    expand_tensor,
    shrink_tensor,
    sparse_form_from_json,
)
from onhand.core.stored_forms import stored_forms_from_json

GOOD = {
    "bits": 8,
    "n_kept": 16,
    "pattern": "2:4",
    "shape": [4, 8],
    "tensor": "w",
    "turned": False,
    "zero": 0,
}


def drawn(bits: int, zero: int, share: float, shape: tuple[int, ...], seed: int = 0) -> CodeArray:
    """Random codes, of which about a share is zero."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, shape, dtype=np.uint64).astype(code_dtype(bits))
    codes[rng.random(shape) < share] = zero
    return codes


def plain_bytes(codes: CodeArray, bits: int) -> ByteArray:
    """The bytes of a tensor of these codes."""
    if bits == 4:
        flat = np.append(codes.reshape(-1), np.uint8(0))[: -(-codes.size // 2) * 2]
        return np.asarray(flat[0::2] | flat[1::2] << 4, np.uint8)
    return np.ascontiguousarray(codes).reshape(-1).view(np.uint8)


def expanded(tensor: SparseTensor) -> ByteArray:
    """The bytes again."""
    return expand_tensor(tensor.form, tensor.codes.places, tensor.codes.codes)


@settings(deadline=None, max_examples=40)
@given(
    bits=st.sampled_from([4, 8, 16, 32]),
    turned=st.booleans(),
    odd=st.booleans(),
    share=st.sampled_from([0.3, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 99),
)
def test_the_bytes_come_back(
    *, bits: int, turned: bool, odd: bool, share: float, seed: int
) -> None:
    """Whatever the width, the code of zero and the way that rows run."""
    zero = 1 << (bits - 1)
    codes = drawn(bits, zero, share, (67, 91 if odd else 96), seed)
    given_codes = np.ascontiguousarray(codes.T) if turned else codes
    found = shrink_tensor(given_codes, bits=bits, zero=zero, turned=turned)

    if found is None:  # it says so where it would save less than a tenth
        assert share < 0.5
        return
    np.testing.assert_array_equal(expanded(found), plain_bytes(codes, bits))
    assert found.form.size_bytes == len(plain_bytes(codes, bits))
    assert found.form.stored_bytes == found.codes.size_bytes
    assert found.codes.size_bytes <= 0.9 * found.form.size_bytes


def test_the_smallest_layout_is_taken() -> None:
    """Two of four: three bits for four codes beside a bit for each; a mask where more are zero."""
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 256, (64, 64), dtype=np.uint8)
    places = rng.permuted(np.tile([True, True, False, False], (64, 16, 1)), axis=2)
    half = codes * places.reshape(64, 64)
    found = shrink_tensor(half, bits=8)
    fewer = shrink_tensor(np.where(rng.random(half.shape) < 0.2, 0, half).astype(np.uint8), bits=8)
    few = shrink_tensor(codes, bits=8)

    assert found is not None
    assert fewer is not None
    assert few is None
    assert found.form.pattern == Pattern(2, 4)
    assert found.codes.size_bytes == 64 * 64 * (3 / 8 / 4 + 1 / 2)
    assert fewer.form.pattern is None


def test_small_tensors_stay_whole() -> None:
    """They would cost more words than they save."""
    assert shrink_tensor(np.zeros(1023, np.uint8), bits=8) is None
    assert shrink_tensor(np.zeros(1024, np.uint8), bits=8) is not None


def test_a_form_is_written_and_read() -> None:
    """As JSON, in the manifest."""
    form = SparseForm(
        tensor="w", shape=(4, 8), bits=4, n_kept=16, zero=8, pattern=Pattern(2, 4), turned=True
    )

    text = json.loads(json.dumps({"graph.w": form.to_json()}))

    assert stored_forms_from_json(text) == {"graph.w": form}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 7}, "bits is 7"),
        ({"bits": 2**40}, "bits is"),
        ({"bits": True}, "bits is True"),
        ({"zero": 256}, "zero is 256, no code of 8 bits"),
        ({"zero": -1}, "zero is -1"),
        ({"shape": []}, "shape is"),
        ({"shape": [0, 8]}, "shape is"),
        ({"shape": [-4, -8]}, "shape is"),
        ({"shape": [2.0, 8]}, "shape is"),
        ({"shape": "48"}, "shape is"),
        ({"shape": [2**40, 2**40]}, "shape is"),
        ({"shape": [2, 2, 2, 4]}, "shape is"),
        ({"shape": [2, 4, 4], "turned": True}, "is turned, must have 2 sizes"),
        ({"shape": [4, 6]}, "rows of 6 codes are no multiple of 4"),
        ({"pattern": None}, "pattern is None"),
        ({"pattern": "4:2"}, "pattern 4:2"),
        ({"pattern": "9" * 99}, "pattern is"),
        ({"tensor": ""}, "tensor is ''"),
        ({"n_kept": 15}, "n_kept is 15, of 32 codes"),
        ({"n_kept": 33, "pattern": ""}, "n_kept is 33, of 32 codes"),
        ({"n_kept": -1}, "n_kept is -1"),
        ({"turned": 1}, "turned is 1"),
        ({"other": 1}, "unknown key 'other'"),
    ],
)
def test_attack_forms_are_checked(change: dict[str, object], message: str) -> None:
    """Before a byte of what they describe is reserved."""
    with pytest.raises(InputError, match=message):
        sparse_form_from_json(GOOD | change, "w")


def test_attack_many_forms_take_too_much_memory() -> None:
    """Each for itself would be allowed."""
    large = GOOD | {"shape": [2**15, 2**14], "pattern": ""}

    with pytest.raises(InputError, match="sparse tensors of 1610612736 bytes, 1073741824 at most"):
        stored_forms_from_json({str(i): large for i in range(3)})
    with pytest.raises(InputError, match="must be an object"):
        stored_forms_from_json([])


@settings(deadline=None, max_examples=60)
@given(data=st.data(), pattern=st.booleans())
def test_attack_streams_that_do_not_match(data: st.DataObject, *, pattern: bool) -> None:
    """Cut, longer, or with other bits: an error that names the tensor, or other codes; no more."""
    codes = drawn(4, 0, 1.0 if pattern else 0.6, (32, 128))
    if pattern:
        codes[:, ::4] = 5
    found = shrink_tensor(codes, bits=4)
    assert found is not None
    streams = [bytearray(found.codes.places), bytearray(found.codes.codes)]
    hit = streams[data.draw(st.integers(0, 1))]
    if data.draw(st.booleans()):
        del hit[data.draw(st.integers(0, len(hit) - 1)) :]
    else:
        hit[data.draw(st.integers(0, len(hit) - 1))] ^= data.draw(st.integers(1, 255))
    places, kept = (np.frombuffer(bytes(stream), np.uint8) for stream in streams)
    form = replace(found.form, tensor="layer.w")
    try:
        made = expand_tensor(form, places, kept)
    except BundleCorrupt as error:
        assert "sparse tensor 'layer.w': " in str(error)  # noqa: PT017  either may happen
    else:
        assert made.shape == (form.size_bytes,)
