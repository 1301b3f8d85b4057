"""Our safetensors files are those of the safetensors library, both ways."""

import json
from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import BundleCorrupt
from onhand.core.safetensors import SafetensorsWriter, TensorSpec, open_safetensors, widen

safetensors = pytest.importorskip("safetensors", reason="compares with the safetensors library")
from safetensors.numpy import load_file, save_file  # noqa: E402 - after the skip

DTYPES = {
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
    "BOOL": np.bool_,
}


@pytest.fixture
def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One array of each dtype, and odd shapes."""
    made: dict[str, np.ndarray] = {
        name: rng.integers(0, 2, (3, 5)).astype(kind) for name, kind in DTYPES.items()
    }
    made["scalar"] = np.array(1.5, dtype=np.float32)
    made["empty"] = np.zeros((0, 4), dtype=np.float16)
    made["\u5ba2\u5385.weight"] = rng.random((2, 2, 2))
    return made


def test_the_library_reads_what_we_write(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Every dtype, shape and value."""
    names = {np.dtype(kind): name for name, kind in DTYPES.items()}
    declared = {
        name: TensorSpec(dtype=names[array.dtype], shape=array.shape)
        for name, array in arrays.items()
    }
    with SafetensorsWriter(tmp_path / "ours", declared) as writer:
        for name, array in arrays.items():
            writer.write(name, array)
        writer.close()

    found = load_file(tmp_path / "ours")

    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def test_we_read_what_the_library_writes(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Every dtype, shape and value; its notes are passed over."""
    save_file(arrays, tmp_path / "theirs", metadata={"format": "np"})

    opened = open_safetensors(tmp_path / "theirs")

    assert opened.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        found = opened.view(name)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)


def test_bfloat16_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    """Widened, every value is the one that torch sees."""
    torch = pytest.importorskip("torch", reason="compares with torch")
    from safetensors.torch import save_file as save_torch

    array = torch.randn(64, 3, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    save_torch({"a": array}, tmp_path / "theirs")

    found = widen(open_safetensors(tmp_path / "theirs").view("a"))

    np.testing.assert_array_equal(found, array.float().numpy())


@pytest.mark.parametrize(
    ("entry", "n_bytes"),
    [
        ({"dtype": "U8", "shape": [4], "data_offsets": [1, 5]}, 5),
        ({"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, 3),
        ({"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, 5),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}, 4),
        ({"dtype": "U8", "shape": [2**40, 2**40], "data_offsets": [0, 4]}, 4),
        ({"dtype": "U8", "shape": [-4], "data_offsets": [0, 4]}, 4),
        ({"dtype": "X8", "shape": [4], "data_offsets": [0, 4]}, 4),
    ],
)
def test_attack_we_refuse_what_the_library_refuses(
    tmp_path: Path, entry: dict[str, object], n_bytes: int
) -> None:
    """The same hostile file, given to both readers."""
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "hostile"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(n_bytes))

    with pytest.raises(safetensors.SafetensorError):
        load_file(path)
    with pytest.raises(BundleCorrupt):
        open_safetensors(path)
