"""Our reader and writer of safetensors, and files that lie."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.safetensors import (
    SafetensorsWriter,
    TensorSpec,
    open_safetensors,
    read_safetensors,
    widen,
)

DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "F16": np.float16,
    "U32": np.uint32,
    "I32": np.int32,
    "F32": np.float32,
    "U64": np.uint64,
    "I64": np.int64,
    "F64": np.float64,
}
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
tables = st.dictionaries(
    st.text(min_size=1, max_size=5), st.tuples(st.sampled_from(sorted(DTYPES)), shapes), max_size=5
)


def write_file(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    """Write a file from its parts, without the checks of the writer."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def entry(start: int, end: int, *, dtype: str = "U8", shape: object = None) -> dict[str, object]:
    """One line of a header; by default as many bytes as the range says."""
    return {
        "dtype": dtype,
        "shape": [end - start] if shape is None else shape,
        "data_offsets": [start, end],
    }


@given(table=tables, seed=st.integers(0, 2**32 - 1))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    table: dict[str, tuple[str, tuple[int, ...]]],
    seed: int,
) -> None:
    """Every dtype and shape, empty ones included; the hash is that of the file."""
    path = tmp_path_factory.mktemp("written") / "x.safetensors"
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {
        name: rng.integers(0, 2, shape).astype(DTYPES[dtype])
        for name, (dtype, shape) in table.items()
    }
    declared = {n: TensorSpec(dtype=dtype, shape=shape) for n, (dtype, shape) in table.items()}

    with SafetensorsWriter(path, declared) as writer:
        for name, array in arrays.items():
            writer.write(name, array)
        digest = writer.close()

    opened = open_safetensors(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert opened.tensors == writer.tensors
    assert list(opened.tensors) == list(table)
    for name, array in arrays.items():
        found = opened.view(name)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)


def test_places_are_byte_ranges_of_the_file(tmp_path: Path) -> None:
    """An engine maps them without this reader; the data begin on a cache line."""
    path = tmp_path / "x.safetensors"
    declared = {"a": TensorSpec(dtype="U8", shape=(3,)), "b": TensorSpec(dtype="F32", shape=(2,))}
    with SafetensorsWriter(path, declared) as writer:
        writer.write("a", np.array([1, 2, 3], dtype=np.uint8))
        writer.write("b", np.array([0.5, -2.0], dtype=np.float32))
        writer.close()

    content = path.read_bytes()
    places = open_safetensors(path).tensors
    a, b = places["a"], places["b"]
    assert a.offset % 64 == 0
    assert content[a.offset : a.offset + a.size] == b"\x01\x02\x03"
    assert b.offset == a.offset + 3
    assert content[b.offset : b.offset + b.size] == np.array([0.5, -2], dtype="<f4").tobytes()


def test_a_tensor_is_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    """A bundle is never written by its reader."""
    path = write_file(tmp_path / "x", {"a": entry(0, 4)}, b"abcd")

    found = open_safetensors(path).view("a")

    assert not found.flags.writeable


def test_a_file_in_memory_is_read_like_one_on_the_disk(tmp_path: Path) -> None:
    """The same tensors, which cannot be changed either."""
    path = write_file(tmp_path / "x", {"a": entry(0, 4)}, b"abcd")

    read = read_safetensors(path.read_bytes(), called=Path("memory"))

    assert read.tensors == open_safetensors(path).tensors
    assert not read.view("a").flags.writeable
    np.testing.assert_array_equal(read.view("a"), open_safetensors(path).view("a"))


def test_transposed_arrays_are_written_in_order(tmp_path: Path) -> None:
    """The file holds rows, whatever the array's memory looks like."""
    array = np.arange(6, dtype=np.int16).reshape(2, 3).T
    path = tmp_path / "x"
    with SafetensorsWriter(path, {"a": TensorSpec(dtype="I16", shape=(3, 2))}) as writer:
        writer.write("a", array)
        writer.close()

    np.testing.assert_array_equal(open_safetensors(path).view("a"), array)


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    """By hand: 0x3FC0 is 1.5, 0xC000 is -2; an empty tensor has the same dtype."""
    header = {
        "a": entry(0, 4, dtype="BF16", shape=[2, 1]),
        "none": entry(4, 4, dtype="BF16", shape=[0, 3]),
    }
    opened = open_safetensors(write_file(tmp_path / "x", header, b"\xc0\x3f\x00\xc0"))

    assert opened.view("a").dtype == np.uint16
    assert widen(opened.view("a")).tolist() == [[1.5], [-2.0]]
    assert widen(opened.view("a")).dtype == widen(opened.view("none")).dtype == np.float32
    assert widen(opened.view("none")).shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_other_floats_are_widened(dtype: type[np.generic]) -> None:
    """Every float16 is a float32 too; float32 stays, without a copy."""
    array = np.array([[1.5, -np.inf], [6e-8, 65504.0]], dtype=dtype)

    assert widen(array).dtype == np.float32
    np.testing.assert_array_equal(widen(array), array)
    assert (widen(array) is array) == (dtype is np.float32)


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    """What other writers say of themselves is passed over."""
    header = {"__metadata__": {"format": "pt"}, "a": entry(0, 1)}

    assert list(open_safetensors(write_file(tmp_path / "x", header, b"a")).tensors) == ["a"]


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    """The message names the file and the tensor."""
    opened = open_safetensors(write_file(tmp_path / "x.st", {"a": entry(0, 1)}, b"a"))

    with pytest.raises(InputError, match=r"x\.st: no tensor 'b'"):
        opened.view("b")


@pytest.mark.parametrize(
    ("length", "content"),
    [(0, b""), (1, b"{"), (3, b"{}"), (2**63, b"{}"), (2**64 - 1, b"{}"), (100_000_001, b"{}")],
)
def test_attack_header_longer_than_the_file(tmp_path: Path, length: int, content: bytes) -> None:
    """Nothing is read or reserved for a length that cannot be."""
    path = write_file(tmp_path / "x", content, length=length)

    with pytest.raises(BundleCorrupt, match="not a safetensors file, or cut short"):
        open_safetensors(path)


@pytest.mark.parametrize("content", [b"", b"\x02\x00\x00", b"\x02" + bytes(7)])
def test_attack_file_without_a_header(tmp_path: Path, content: bytes) -> None:
    """Empty, or cut within the length or before the header."""
    path = tmp_path / "x"
    path.write_bytes(content)

    with pytest.raises(BundleCorrupt, match="not a safetensors file, or cut short"):
        open_safetensors(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{not json}", "header is not JSON"),
        (b"\xff\xfe\xff\xfe", "header is not JSON"),
        (b"[" * 100_000, "header is not JSON"),
        (b'{"a":' * 100_000, "header is not JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "header is not JSON"),
        (b"[]", "header is not a JSON object"),
        (b'{"a": 1}', "entry is not a JSON object"),
        (b'{"a": {"shape": [NaN]}}', "NaN is not a number"),
        (b'{"a": {}, "a": {}}', "'a' is given twice"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_attack_header_that_is_not_one(tmp_path: Path, header: bytes, message: str) -> None:
    """Broken, nested without end, or of two meanings."""
    with pytest.raises(BundleCorrupt, match=message):
        open_safetensors(write_file(tmp_path / "x", header))


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "F4"},
        {"dtype": None},
        {"dtype": ["U8"]},
        {"shape": None},
        {"shape": 4},
        {"shape": [-4]},
        {"shape": [4.0]},
        {"shape": [True, 4]},
        {"shape": ["4"]},
        {"shape": [1] * 9},
        {"shape": [2**48]},
        {"shape": [2**47, 2**47]},
        {"shape": [3]},
        {"shape": [1e999]},
        {"dtype": "F32"},
        {"data_offsets": None},
        {"data_offsets": [0]},
        {"data_offsets": [0, 4, 8]},
        {"data_offsets": [4, 0]},
        {"data_offsets": [-4, 0]},
        {"data_offsets": [0, 5]},
        {"data_offsets": [0, 2**64]},
        {"data_offsets": [0.0, 4.0]},
    ],
    ids=str,
)
def test_attack_entry_that_lies(tmp_path: Path, change: dict[str, Any]) -> None:
    """Bombs of shapes, dtypes that do not fit, numbers that are none."""
    path = write_file(tmp_path / "x", {"a": entry(0, 4) | change}, b"abcd")

    with pytest.raises(BundleCorrupt, match=r"'a'|not JSON"):
        open_safetensors(path)


@pytest.mark.parametrize(
    ("header", "n_bytes", "message"),
    [
        ({"a": entry(1, 4)}, 4, "'a' begins at byte"),
        ({"a": entry(0, 2), "b": entry(3, 4)}, 4, "'b' begins at byte"),
        ({"a": entry(0, 3), "b": entry(2, 4)}, 4, "'b' begins at byte"),
        ({"a": entry(0, 4), "b": entry(0, 4)}, 4, "begins at byte"),
        ({"a": entry(0, 4)}, 3, "cut short"),
        ({"a": entry(0, 4)}, 5, "tensors end at byte"),
        ({}, 1, "tensors end at byte"),
    ],
    ids=["gap first", "gap", "overlap", "twice", "truncated", "appended", "unclaimed"],
)
def test_attack_bytes_that_do_not_add_up(
    tmp_path: Path, header: dict[str, object], n_bytes: int, message: str
) -> None:
    """Every byte of the file belongs to exactly one tensor."""
    with pytest.raises(BundleCorrupt, match=message):
        open_safetensors(write_file(tmp_path / "x", header, bytes(n_bytes)))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("b", np.zeros(2, dtype=np.float32), "'b' is out of order"),
        ("c", np.zeros(2, dtype=np.float32), "'c' is out of order"),
        ("a", np.zeros(3, dtype=np.uint8), r"'a' is uint8 \(3,\), declared U8 \(2,\)"),
        ("a", np.zeros((2, 1), dtype=np.uint8), "declared U8"),
        ("a", np.zeros(2, dtype=np.int8), "'a' is int8"),
    ],
)
def test_the_writer_takes_only_what_was_declared(
    tmp_path: Path, name: str, array: np.ndarray, message: str
) -> None:
    """In the declared order, dtype and shape; the header is written already."""
    declared = {"a": TensorSpec(dtype="U8", shape=(2,)), "b": TensorSpec(dtype="F32", shape=(2,))}

    with (
        SafetensorsWriter(tmp_path / "x", declared) as writer,
        pytest.raises(InputError, match=message),
    ):
        writer.write(name, array)


def test_the_writer_refuses_other_byte_orders(tmp_path: Path) -> None:
    """The file is little-endian."""
    declared = {"a": TensorSpec(dtype="F32", shape=(2,))}

    with (
        SafetensorsWriter(tmp_path / "x", declared) as writer,
        pytest.raises(InputError, match="'a' is >f4"),
    ):
        writer.write("a", np.zeros(2, dtype=">f4"))


def test_bfloat16_is_written_as_its_bits(tmp_path: Path) -> None:
    """What was viewed as uint16 is written as it came."""
    bits = np.array([0x3FC0, 0xC000], dtype=np.uint16)
    with SafetensorsWriter(tmp_path / "x", {"a": TensorSpec(dtype="BF16", shape=(2,))}) as writer:
        writer.write("a", bits)
        writer.close()

    opened = open_safetensors(tmp_path / "x")
    assert opened.tensors["a"].dtype == "BF16"
    np.testing.assert_array_equal(opened.view("a"), bits)


def test_the_writer_wants_everything_once(tmp_path: Path) -> None:
    """A tensor left out, or given twice."""
    declared = {"a": TensorSpec(dtype="U8", shape=(1,))}
    with (
        SafetensorsWriter(tmp_path / "x", declared) as writer,
        pytest.raises(InputError, match="'a' was declared and not written"),
    ):
        writer.close()
    with SafetensorsWriter(tmp_path / "x", declared) as writer:
        writer.write("a", np.zeros(1, dtype=np.uint8))
        with pytest.raises(InputError, match="'a' is out of order"):
            writer.write("a", np.zeros(1, dtype=np.uint8))
