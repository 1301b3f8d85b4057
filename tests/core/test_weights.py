"""The tensors of a variant are those that the decoder's description says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt
from onhand.core.manifest import Manifest
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.core.safetensors import SafetensorsWriter, TensorSpec, open_safetensors
from onhand.core.weights import matrix_tensors, open_weights


def rewritten(bundle: Bundle, change: Callable[[dict[str, np.ndarray]], object]) -> Bundle:
    """The bundle with other tensors in its weights file; hashes are checked elsewhere."""
    path = bundle.path("weights.safetensors")
    opened = open_safetensors(path)
    arrays = {name: opened.view(name).copy() for name in opened.tensors}
    change(arrays)
    names = {"float32": "F32", "float16": "F16", "uint8": "U8"}
    declared = {
        name: TensorSpec(dtype=names[str(array.dtype)], shape=array.shape)
        for name, array in arrays.items()
    }
    with SafetensorsWriter(path, declared) as writer:
        for name, array in arrays.items():
            writer.write(name, array)
        writer.close()
    return bundle


def test_every_matrix_and_vector_is_found(bundle: Bundle) -> None:
    """With the shape that the decoder says, stored and dequantised."""
    weights = open_weights(bundle, "int4")

    for name, shape in weights.decoder.matrices().items():
        stored = weights.stored(name)
        assert isinstance(stored, QuantTensor)
        np.testing.assert_array_equal(weights.matrix(name), stored.dequantize())
        assert weights.matrix(name).shape == shape
        assert weights.format(name) == stored.format
        ids = np.array([1, 0, 1])
        np.testing.assert_array_equal(weights.rows(name, ids), weights.matrix(name)[ids])
    for name, width in weights.decoder.vectors().items():
        assert weights.vector(name).shape == width


def test_a_variant_takes_a_tensor_from_the_first_file_that_has_it(bundle: Bundle) -> None:
    """Its own embedding in float32, all else from the file it shares."""
    own, shared = open_weights(bundle, "float-embedding"), open_weights(bundle, "int4")
    embedding = own.stored("embed")

    assert isinstance(embedding, np.ndarray)
    np.testing.assert_array_equal(own.matrix("embed"), embedding)
    np.testing.assert_array_equal(own.rows("embed", np.array([2])), embedding[[2]])
    np.testing.assert_array_equal(own.matrix("head"), shared.matrix("head"))
    assert own.place("embed")[0] == bundle.path("large/weights.safetensors")
    assert own.place("head.codes")[0] == bundle.path("weights.safetensors")


def test_a_place_is_the_byte_range_of_a_tensor(bundle: Bundle) -> None:
    """What an engine maps is what this reader reads."""
    weights = open_weights(bundle, "int4")

    path, spec = weights.place("final_norm")

    content = path.read_bytes()[spec.offset : spec.offset + spec.size]
    np.testing.assert_array_equal(np.frombuffer(content, "<f4"), weights.vector("final_norm"))


def test_symmetric_matrices_have_no_zero_points(manifest: Manifest, bundle: Bundle) -> None:
    """The same file read as symmetric uses the fixed zero point and needs no other tensor."""
    form = GroupFormat(bits=4, group_size=32)
    variant = manifest.variants["int4"]
    mixed = replace(variant, matrices=dict(variant.matrices) | {"head": form})
    changed = replace(bundle.manifest, variants={"int4": mixed})

    stored = open_weights(replace(bundle, manifest=changed), "int4").stored("head")

    assert isinstance(stored, QuantTensor)
    assert stored.zeros is None
    assert "head.zeros" not in matrix_tensors("head", stored.shape, form)


@pytest.mark.parametrize("name", ["final_norm", "head.codes", "head.scales", "head.zeros"])
def test_attack_missing_tensor(bundle: Bundle, name: str) -> None:
    """Named with the variant that needs it."""
    spoiled = rewritten(bundle, lambda arrays: arrays.pop(name))

    with pytest.raises(BundleCorrupt, match=f"variant 'int4' has no tensor '{name}'"):
        open_weights(spoiled, "int4")


@pytest.mark.parametrize("name", ["final_norm", "head.codes", "head.scales", "head.zeros"])
def test_attack_tensor_of_another_shape_or_dtype(bundle: Bundle, name: str) -> None:
    """A bomb of shapes, or bytes read as other numbers, would be found only while running."""
    cut = rewritten(bundle, lambda arrays: arrays.update({name: arrays[name][:-1]}))
    with pytest.raises(BundleCorrupt, match=f"'{name}' is .*, the decoder needs"):
        open_weights(cut, "int4")

    other = rewritten(bundle, lambda arrays: arrays.update({name: np.zeros((3, 3), np.float32)}))
    with pytest.raises(BundleCorrupt, match=rf"'{name}' is F32 \(3, 3\), the decoder needs"):
        open_weights(other, "int4")


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_attack_scale_that_is_not_finite(bundle: Bundle, value: float) -> None:
    """One such scale would make every answer NaN."""

    def spoil(arrays: dict[str, np.ndarray]) -> None:
        arrays["head.scales"][0, 0] = value

    weights = open_weights(rewritten(bundle, spoil), "int4")

    with pytest.raises(BundleCorrupt, match="head has a scale that is not finite"):
        weights.stored("head")


def test_every_finite_scale_may_be_stored(bundle: Bundle) -> None:
    """The largest of both signs, the smallest, and nothing."""
    limits = np.finfo(np.float16)
    ends = [limits.max, limits.min, limits.smallest_subnormal, 0.0, -0.0]
    values = np.array(ends, np.float16)

    def put(arrays: dict[str, np.ndarray]) -> None:
        arrays["head.scales"].flat[: len(values)] = values

    stored = open_weights(rewritten(bundle, put), "int4").stored("head")

    assert isinstance(stored, QuantTensor)
    np.testing.assert_array_equal(stored.scales.flat[: len(values)], values)


def test_the_file_is_not_kept_in_memory(bundle: Bundle, tmp_path: Path) -> None:
    """Tensors are mapped: read-only views of the file."""
    assert not open_weights(bundle, "int4").vector("final_norm").flags.writeable
