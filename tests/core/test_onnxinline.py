"""Tensors put into graphs: their bytes and nothing else, or an error that names the tensor."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.network_bundles import Drawing, classifier, model, pack, tensor, text, varint

from onhand.core.errors import BundleCorrupt
from onhand.core.onnxgraph import parse_graph
from onhand.core.onnxinline import Waiting, inline_tensors, outside_of
from onhand.core.sparse_form import SparseForm
from onhand.core.sparse_graph import self_contained_graph, whole_graph
from onhand.device.networks.graph_file import read_graph_file

DRAWING = classifier(np.random.default_rng(0))
PLACES = {"w1": ("left-out", 0, 864), "w3": ("file", 64, 160)}


def finding(drawing: Drawing) -> Callable[[str, Mapping[str, str]], Waiting]:
    """Gives the constants' bytes, where the graph says that they lie outside."""

    def find(name: str, place: Mapping[str, str]) -> Waiting:
        assert place["location"] == PLACES[name][0]
        raw = np.frombuffer(drawing.constants[name].tobytes(), np.uint8)
        return Waiting(raw.size, lambda: raw)

    return find


def test_the_graph_is_the_same_with_them() -> None:
    """As if they had never lain outside."""
    content = inline_tensors(model(DRAWING, PLACES), PLACES, finding(DRAWING))

    assert set(outside_of(model(DRAWING, PLACES))) == set(PLACES)
    assert outside_of(content) == ()
    found, expected = parse_graph(content, {}), parse_graph(model(DRAWING), {})
    assert found.nodes == expected.nodes
    for name, array in expected.constants.items():
        np.testing.assert_array_equal(found.constants[name], array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (model(DRAWING), "tensor 'w1' must lie outside"),
        (model(DRAWING, PLACES) * 2, "has the tensor 'w1' twice"),
        (model(replace(DRAWING, constants={}), PLACES), "the graph has no tensor 'w1'"),
        (model(DRAWING, PLACES)[:-3], "not an ONNX file"),
        (text(7, text(5, tensor("w1", np.zeros(2, np.float32)) + varint(8))), "not an ONNX file"),
        (b"", "the graph has no tensor 'w1'"),
    ],
)
def test_attack_graphs_that_do_not_have_them(content: bytes, message: str) -> None:
    """Each of them once, and outside."""
    with pytest.raises(BundleCorrupt, match=message):
        inline_tensors(content, PLACES, finding(DRAWING))


def test_attack_more_bytes_than_were_told() -> None:
    """The lengths in front of them would lie."""
    with pytest.raises(BundleCorrupt, match="tensors of a graph make"):
        inline_tensors(
            model(DRAWING, PLACES), PLACES, lambda *_: Waiting(8, lambda: np.zeros(9, np.uint8))
        )


def test_all_tensors_can_be_put_in(tmp_path: Path) -> None:
    """For engines that would look for files on their own."""
    bundle = pack(tmp_path / "tiny", {"fp32": DRAWING})
    content = bundle.path("model.onnx").read_bytes()
    assert whole_graph(content, bundle, "fp32") is content

    found = parse_graph(self_contained_graph(content, bundle), {})

    for name, array in DRAWING.constants.items():
        np.testing.assert_array_equal(found.constants[name], array)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("weights.safetensors", 10**9, 864), "cut short at tensor 'w1'"),
        (("weights.safetensors", 0, 10**9), "cut short at tensor 'w1'"),
    ],
)
def test_attack_places_beyond_the_file(
    tmp_path: Path, place: tuple[str, int, int], message: str
) -> None:
    """Though graphs are checked before, no array is larger than its file."""
    bundle = pack(tmp_path / "tiny", {"fp32": DRAWING})

    with pytest.raises(BundleCorrupt, match=message):
        self_contained_graph(model(DRAWING, {"w1": place}), bundle)


def test_attack_a_place_without_a_length(tmp_path: Path) -> None:
    """It says so."""
    bundle = pack(tmp_path / "tiny", {"fp32": DRAWING})
    message = model(DRAWING, {"w1": ("weights.safetensors", 0, 864)})

    with pytest.raises(BundleCorrupt, match="tensor 'w1' has no place, or no length"):
        self_contained_graph(message.replace(b"length", b"lengte"), bundle)


def test_attack_a_tensor_that_is_whole(tmp_path: Path) -> None:
    """The manifest says that it is stored without its zeros, the graph where it lies whole."""
    bundle = pack(tmp_path / "tiny", {"fp32": DRAWING})
    form = SparseForm(tensor="w1", shape=(216,), bits=32, n_kept=0)
    lies = replace(bundle.manifest.variants["fp32"], sparse={"w1": form})
    manifest = replace(bundle.manifest, variants={"fp32": lies})

    with pytest.raises(BundleCorrupt, match=r"'w1' lies in 'weights\.safetensors', the manifest"):
        read_graph_file(replace(bundle, manifest=manifest), "fp32")
