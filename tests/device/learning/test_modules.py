"""Layers of a checkpoint: what is scaled in is scaled out, and what is damaged is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.device.learning.bundles import write_bundle

from onhand.core.bundle import Bundle, write_manifest
from onhand.core.errors import BundleCorrupt
from onhand.core.lesson import Lesson, Trainable
from onhand.device.learning.modules import (
    MODULES,
    Module,
    Modules,
    read_modules,
    render_modules,
)

N, K, R = 6, 4, 2
LESSON = Lesson(
    kind="lora",
    feeds="classes",
    variant="only",
    graph="g",
    trunk=None,
    start="s",
    trainables={
        "w.lora_A": Trainable(shape=(R, K), tensor="w", part="lora_A"),
        "w.lora_B": Trainable(shape=(N, R), tensor="w", part="lora_B"),
        "head.weight": Trainable(shape=(3, K), tensor="h", grows=True),
    },
    alpha=4.0,
)
MADE = Modules(
    task="SEQ_CLS",
    modules=(
        Module(name="q", tensor="w", first=0, n=4, inputs=np.array([1, 2, 0.5, 0.1], np.float32)),
        Module(name="v", tensor="w", first=4, n=2, outputs=np.array([3, 0.25], np.float32)),
        Module(name="classifier", tensor="h", first=0, n=3, is_whole=True),
    ),
)


def kept(tmp_path: Path, content: bytes) -> Bundle:
    """A bundle with a file of layers."""
    bundle = write_bundle(tmp_path / "b")
    (bundle.root / MODULES).write_bytes(content)
    known = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    return write_manifest(bundle.root, bundle.manifest, hashes=known)


def test_layers_are_read_as_they_were_written(tmp_path: Path) -> None:
    """To the bit of every factor."""
    found = read_modules(kept(tmp_path, render_modules(MADE)), LESSON)

    assert found is not None
    assert render_modules(found) == render_modules(MADE)
    assert found.task == "SEQ_CLS"
    assert found.whole() == replace(MADE.modules[2])
    assert read_modules(write_bundle(tmp_path / "plain"), LESSON) is None


@given(st.integers(0, 2**32 - 1))
def test_out_and_in_is_the_same_product(seed: int) -> None:
    """Each layer's rows come back, whatever the others add."""
    random = np.random.default_rng(seed)
    right = random.normal(size=(R, K)).astype(np.float32)
    left = random.normal(size=(N, R)).astype(np.float32)

    parts = MADE.exported({"w": (right, left)})
    again = MADE.imported(parts)["w"]

    assert parts.keys() == {"q", "v"}
    np.testing.assert_allclose(again[1] @ again[0], left @ right, rtol=1e-4, atol=1e-5)
    first, second = parts["q"]
    scaled = second @ first * np.array([1, 2, 0.5, 0.1], np.float32)
    np.testing.assert_allclose(scaled, left[:4] @ right, rtol=1e-4, atol=1e-5)


def _changed(**changes: object) -> object:
    table = json.loads(render_modules(MADE))
    table["modules"][0] |= changes
    return table


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ([], "must be a JSON object"),
        ({"format": 9, "modules": [], "task": "SEQ_CLS"}, "this reader knows 1"),
        ({"format": 1, "modules": [], "task": "SEQ_CLS"}, "must be a list"),
        (json.loads(render_modules(MADE)) | {"task": "x"}, "task is 'x'"),
        (_changed(module="v"), "named twice"),
        (_changed(module=3), "are no names"),
        (_changed(tensor="other"), "is not learned so"),
        (_changed(is_whole=True), "is not learned so"),
        (_changed(is_whole=1), "must be true or false"),
        (_changed(first=5), "rows 5 to 9 of 6"),
        (_changed(n=0), "n is 0"),
        (_changed(inputs=[1.0]), "must be 4 numbers"),
        (_changed(inputs=[1.0, 1.0, 1.0, "a"]), "must be numbers"),
        (_changed(inputs=[1.0, 1.0, 1.0, 0.0]), "above 0"),
        (_changed(outputs=[1.0, 1.0, 1.0, 1e60]), "finite"),
        (_changed(more=1), "unknown key"),
    ],
)
def test_attack_what_is_no_layer_is_refused(tmp_path: Path, table: object, why: str) -> None:
    """Where, what was found, and what is expected."""
    bundle = kept(tmp_path, json.dumps(table).encode())

    with pytest.raises(BundleCorrupt, match=why):
        read_modules(bundle, LESSON)
