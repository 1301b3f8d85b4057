"""Graphs of bundles that store nothing without its zeros stay as they are."""

from pathlib import Path

import pytest

from onhand.core.bundle import read_bundle
from onhand.core.sparse_graph import part_of_graph, whole_graph

TINY = Path(__file__).parents[1] / "data" / "tiny-bundle"


@pytest.mark.parametrize("made", [part_of_graph, whole_graph])
def test_a_graph_with_all_its_zeros_stays(made: object) -> None:
    """To the byte."""
    assert callable(made)
    bundle = read_bundle(TINY)
    variant = next(iter(bundle.manifest.variants))
    content = (TINY / bundle.manifest.variants[variant].graph).read_bytes()

    assert made(content, bundle, variant) == content
