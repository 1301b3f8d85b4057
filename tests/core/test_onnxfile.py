"""ONNX files that reach for bytes they should not, written by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core import onnxfile
from onhand.core.errors import BundleCorrupt
from onhand.core.onnxfile import check_external_data

FLOAT, UINT8, STRING, UINT4 = 1, 2, 8, 21
WEIGHTS = "weights.safetensors"


def varint(value: int) -> bytes:
    """Seven bits in each byte, the lowest first."""
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(
    dims: list[int], *, dtype: int = FLOAT, raw: bytes | None = None, **external: object
) -> bytes:
    """A TensorProto; keyword arguments become its external data."""
    message = b"".join(field(1, dim) for dim in dims) + field(2, dtype) + field(8, "w")
    if raw is not None:
        message += field(9, raw)
    for key, value in external.items():
        message += field(13, field(1, key) + field(2, str(value)))
    return message + (field(14, 1) if external else b"")


def in_graph(message: bytes) -> bytes:
    """An initializer."""
    return field(7, field(5, message))


def in_attribute(message: bytes) -> bytes:
    """A constant node's value, which stands in an attribute."""
    return field(7, field(1, field(5, field(5, message))))


def in_subgraph(message: bytes) -> bytes:
    """An initializer of a loop's body."""
    return field(7, field(1, field(5, field(6, field(5, message)))))


def in_function(message: bytes) -> bytes:
    """A constant inside a function of the model."""
    return field(25, field(7, field(5, field(10, message))))


def in_sparse(message: bytes) -> bytes:
    """The values of a sparse initializer."""
    return field(7, field(15, field(1, message)))


WAYS = [in_graph, in_attribute, in_subgraph, in_function, in_sparse]
Way = Callable[[bytes], bytes]


@pytest.fixture
def check(tmp_path: Path) -> Callable[[bytes], None]:
    """A function that checks a model beside a weights file of 100 bytes."""
    (tmp_path / WEIGHTS).write_bytes(bytes(100))
    (tmp_path / "secret").write_bytes(bytes(100))

    def run(model: bytes) -> None:
        (tmp_path / "model.onnx").write_bytes(model)
        check_external_data(tmp_path / "model.onnx", tmp_path, allowed=[WEIGHTS])

    return run


Check = Callable[[bytes], None]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    "message",
    [
        tensor([5, 5], location=WEIGHTS, offset=0, length=100),
        tensor([5], location=WEIGHTS, offset=80),
        tensor([25], location=WEIGHTS),
        tensor([7], dtype=UINT4, location=WEIGHTS, length=4),
        tensor([3], raw=bytes(12)),
        tensor([], raw=bytes(4)),
        tensor([2], dtype=STRING),
        field(1, varint(5) + varint(5)) + field(2, UINT8) + field(9, bytes(25)),
    ],
    ids=["whole", "tail", "no place", "half bytes", "inline", "scalar", "texts", "packed dims"],
)
def test_tensors_within_their_file_pass(check: Check, way: Way, message: bytes) -> None:
    """Wherever in the model they stand."""
    check(way(message))


def test_what_is_no_tensor_is_passed_over(check: Check) -> None:
    """Versions, names, and fixed-width numbers of either width."""
    model = field(1, 8) + field(2, "writer") + varint(3 << 3 | 1) + bytes(8)

    check(model + varint(4 << 3 | 5) + bytes(4) + field(7, field(2, "graph") + field(5, b"")))
    check(field(7, 3) + field(7, field(5, tensor([1], raw=bytes(4)) + field(13, 1))))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (tensor([25], location="secret"), "lies in 'secret', which its variant does not list"),
        (tensor([25], location="../secret"), "lies in '../secret', which"),
        (tensor([25], location="/etc/passwd"), "lies in '/etc/passwd', which"),
        (tensor([25], offset=0), "lies in '', which"),
        (tensor([25]) + field(14, 1), "lies in '', which"),
        (tensor([25], location=WEIGHTS, offset=1), "takes bytes 1 to 101"),
        (tensor([26], location=WEIGHTS), "takes bytes 0 to 104"),
        (tensor([25], location=WEIGHTS, length=96), "its shape needs 100"),
        (tensor([2**40], location=WEIGHTS), "its shape needs"),
        (tensor([25], location=WEIGHTS, offset=-4), "which are not numbers"),
        (tensor([25], location=WEIGHTS, offset="4_0"), "which are not numbers"),
        (tensor([25], location=WEIGHTS, offset="\u0664"), "which are not numbers"),
        (tensor([25], location=WEIGHTS, offset=10**30), "which are not numbers"),
        (tensor([25], location=WEIGHTS, length=""), "which are not numbers"),
        (tensor([2**64 - 1], location=WEIGHTS), "has the shape"),
        (tensor([1] * 9, raw=bytes(4)), "has the shape"),
        (tensor([4], raw=bytes(12)), "has 12 bytes, its shape needs 16"),
        (tensor([2**40]), "claims"),
    ],
    ids=range(18),
)
def test_attack_tensor_that_lies(check: Check, way: Way, message: bytes, reason: str) -> None:
    """Other files, bytes beyond the end, bombs of shapes: wherever they hide in the model."""
    with pytest.raises(BundleCorrupt) as caught:
        check(way(message))

    assert "model.onnx: tensor 'w'" in str(caught.value)
    assert reason in str(caught.value)


def test_attack_graphs_nested_without_end(check: Check) -> None:
    """A graph in an attribute of a node of a graph in an attribute ..."""
    model = b""
    for _ in range(50):
        model = field(1, field(5, field(6, model)))

    with pytest.raises(BundleCorrupt, match="nested too deeply"):
        check(field(7, model))


@pytest.mark.parametrize(
    "model",
    [
        b"\x80",
        b"\xff" * 20,
        b"\x3b",
        field(7, bytes(10))[:-1],
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x09" + bytes(7),
        field(7, field(5, field(8, b"\xff\xfe") + field(14, 1))),
        field(7, field(5, field(1, b"\x80"))),
    ],
    ids=["cut number", "long number", "group", "cut", "long", "cut fixed", "text", "cut dims"],
)
def test_attack_file_that_is_no_model(check: Check, model: bytes) -> None:
    """Cut short, or not a message at all; the file is named."""
    with pytest.raises(BundleCorrupt, match=r"model\.onnx: "):
        check(model)


def test_attack_graph_with_the_weights_inside(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph over the bound is not read."""
    monkeypatch.setattr(onnxfile, "MAX_GRAPH_BYTES", 10)

    with pytest.raises(BundleCorrupt, match="over 10 bytes; weights belong beside it"):
        check(bytes(11))


@given(model=st.binary(max_size=200))
def test_attack_random_bytes(model: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever the bytes, the answer is yes or one of our errors."""
    path = tmp_path_factory.mktemp("random") / "model.onnx"
    path.write_bytes(model)

    try:
        check_external_data(path, path.parent, allowed=[])
    except BundleCorrupt as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - most bytes are refused, some pass
