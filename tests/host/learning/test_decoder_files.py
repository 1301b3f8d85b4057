"""Lessons of language models: every gradient is PyTorch's, or there is no bundle."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, numpy_helper
from tests.models import DECODER, LAYER

pytest.importorskip("torch", reason="compares gradients with PyTorch's")

from tests.host.learning.decoder_bundles import DECODERS, original, quantized

from onhand.core.bundle import read_bundle
from onhand.core.errors import EngineError, InputError
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.lesson_files import read_lesson
from onhand.host.learning import differentiate, rules_codes
from onhand.host.learning.decoder_files import add_decoder_lesson, lesson_bytes
from onhand.host.learning.rules import Gradients
from onhand.host.learning.tape import Tape
from onhand.host.learning.wanted import Learnable, parse_learnable

EVERYTHING = "lora,rank=4,targets=qkv+out+{inner}+down"
FORMATS: dict[str, dict[str, Any]] = {
    "int4": {"bits": 4},
    "int4 with zero points in large groups": {"bits": 4, "symmetric": False, "group_size": 64},
    "int8": {"bits": 8},
    "int8 with zero points": {"bits": 8, "symmetric": False},
    "int2": {"bits": 2, "symmetric": False},
}


def everything(inner: str) -> Learnable:
    """Factors of every matrix of every layer."""
    return parse_learnable(EVERYTHING.format(inner=inner))


@pytest.mark.parametrize("kind", DECODERS)
def test_gradients_of_every_family_are_those_of_pytorch(kind: str, tmp_path: Path) -> None:
    """All matrices learn; the worst relative distance is far below the bound of 1e-4."""
    decoder = DECODERS[kind]

    added = add_decoder_lesson(
        quantized(decoder, tmp_path), everything(decoder.inner), threads=1, steps=3
    )

    assert added.checked.gradient_error < 1e-4
    assert added.checked.value_error < 1e-2
    assert len(added.lesson.trainables) == 2 * 4 * len(decoder.layers)


@pytest.mark.parametrize("stored", FORMATS)
def test_gradients_pass_through_every_kind_of_codes(stored: str, tmp_path: Path) -> None:
    """Widths that groups do not fill included: MLPs of 40 and 96 inputs."""
    decoder = replace(DECODER, layers=(replace(LAYER, mlp_width=40), LAYER))

    added = add_decoder_lesson(
        quantized(decoder, tmp_path, **FORMATS[stored]), everything("gate_up"), threads=1, steps=0
    )

    assert added.checked.gradient_error < 1e-4


def test_float32_weights_can_be_learned_over(tmp_path: Path) -> None:
    """The original's bundle, of no codes at all."""
    added = add_decoder_lesson(original(DECODER, tmp_path), everything("gate_up"), threads=1)

    assert added.checked.n_steps == 50
    assert added.checked.gradient_error < 1e-4


def test_a_head_that_is_cut_into_pieces_has_the_same_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of 100 rows, the last one shorter, with zero points of their own."""
    monkeypatch.setattr(rules_codes, "_MOST_FLOATS", 100 * DECODER.width)
    bundle = quantized(DECODER, tmp_path, symmetric=False)

    added = add_decoder_lesson(bundle, parse_learnable("lora,rank=2"), threads=1, steps=0)

    assert added.checked.gradient_error < 1e-4


def test_a_wrong_gradient_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that is a hundredth off: the message says which tensor, and by how much."""
    right = differentiate.RULES["com.microsoft", "RotaryEmbedding"]

    def wrong(tape: Tape, node: NodeProto, given: Gradients, needs: Sequence[bool]) -> Gradients:
        first, *others = right(tape, node, given, needs)
        off = tape.number(1.01, like=node.output[0])
        return [None if first is None else tape.add("Mul", first, off), *others]

    rules = {**differentiate.RULES, ("com.microsoft", "RotaryEmbedding"): wrong}
    monkeypatch.setattr(differentiate, "RULES", rules)

    with pytest.raises(EngineError, match=r"gradient of 'layers\.\d\.qkv\.lora_B' is 0\.00"):
        add_decoder_lesson(quantized(DECODER, tmp_path), Learnable(kind="lora"), threads=1, steps=0)


def test_the_same_bundle_gets_the_same_bytes(tmp_path: Path) -> None:
    """Graph, description and starting values."""
    digests: list[dict[str, str]] = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        add_decoder_lesson(quantized(DECODER, folder), Learnable(kind="lora"), threads=1, steps=0)
        digests.append({
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()
        })

    assert digests[0] == digests[1]


def test_the_files_are_listed_and_their_size_is_foretold(tmp_path: Path) -> None:
    """The manifest hashes them as all others; the forecast is close from shapes alone."""
    bundle = quantized(DECODER, tmp_path)
    wanted = parse_learnable("lora,rank=4,alpha=6,targets=qkv+down")

    added = add_decoder_lesson(bundle, wanted, threads=1, steps=0)

    again = read_bundle(tmp_path)
    lesson = read_lesson(again)
    assert again.manifest_sha256 == added.bundle.manifest_sha256
    assert {"learn.onnx", "learn.json", "learn.safetensors"} <= set(again.manifest.files)
    assert (lesson.rank, lesson.alpha, lesson.variant) == (4, 6.0, "coded")
    foretold = lesson_bytes(DECODER, bundle.manifest.variants["coded"].matrices, wanted)
    assert abs(foretold - added.size_bytes) < 4096
    assert json.dumps(added.to_json())


def test_gradients_agree_where_scales_lie_in_tables(tmp_path: Path) -> None:
    """The graph finds them as the model's own does."""
    bundle = quantized(DECODER, tmp_path, scale_bits=8)
    assert any(name.endswith(".scales") for name in bundle.manifest.variants["coded"].sparse)

    added = add_decoder_lesson(bundle, Learnable(kind="lora"), threads=1, steps=2)

    assert added.checked.gradient_error < 1e-4


def test_weights_are_not_stored_twice(tmp_path: Path) -> None:
    """The graph holds constants of a few bytes; all else are places in the weights' file."""
    import onnx

    add_decoder_lesson(quantized(DECODER, tmp_path), Learnable(kind="lora"), threads=1, steps=0)

    model = onnx.load(tmp_path / "learn.onnx", load_external_data=False)
    inside = [t for t in model.graph.initializer if t.data_location != 1]
    assert max(numpy_helper.to_array(tensor).size for tensor in inside) <= 8


def test_padding_and_other_texts_change_no_gradient(tmp_path: Path) -> None:
    """A text beside a longer one teaches what it teaches alone."""
    add_decoder_lesson(quantized(DECODER, tmp_path), Learnable(kind="lora"), threads=1, steps=0)
    random = np.random.default_rng(3)
    alone = random.integers(0, DECODER.vocab_size, (1, 5))
    together = random.integers(0, DECODER.vocab_size, (2, 9))
    together[1, :5] = alone
    rows, labels = np.array([1, 4]), np.array([[7], [9]])
    weights = np.array([[1.0], [-0.5]], dtype=np.float32)
    lesson = open_lesson(read_bundle(tmp_path), threads=1)
    feeds = {"tokens": alone, "rows": rows, "labels": labels, "weights": weights}

    small = lesson.teach(lesson.start(), feeds)
    large = lesson.teach(lesson.start(), feeds | {"tokens": together, "rows": rows + 9})

    np.testing.assert_allclose(small.loss, large.loss, rtol=1e-5)
    for name, gradient in small.gradients.items():
        np.testing.assert_allclose(large.gradients[name], gradient, rtol=1e-3, atol=1e-7)
    lesson.close()


def test_codes_without_their_zeros_can_be_learned_over(tmp_path: Path) -> None:
    """They are expanded when the lesson is opened, as when the model is."""
    bundle = quantized(DECODER, tmp_path, seed_of_zeros=1)
    assert bundle.manifest.variants["coded"].sparse

    added = add_decoder_lesson(bundle, Learnable(kind="lora"), threads=1, steps=0)

    assert added.checked.gradient_error < 1e-4


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("head", "a language model learns by factors of low rank"),
        ("lora,targets=embed", "'embed' is no matrix of this model; it has qkv, out, gate_up"),
        ("lora,rank=4000", "rank is 4000, layers.0.qkv has"),
        ("lora,classes=cup+lamp", "classes are for classifiers"),
    ],
)
def test_what_cannot_be_learned_is_refused(wanted: str, message: str, tmp_path: Path) -> None:
    """One sentence that says what there is, before anything is written."""
    bundle = quantized(DECODER, tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())

    with pytest.raises(InputError, match=message):
        add_decoder_lesson(bundle, parse_learnable(wanted), threads=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_codes_of_three_bits_are_refused(tmp_path: Path) -> None:
    """No graph of ONNX Runtime reads them."""
    bundle = quantized(DECODER, tmp_path, bits=3)

    with pytest.raises(InputError, match=r"codes of 3 bits, .* 2, 4 or 8 bits can learn"):
        add_decoder_lesson(bundle, Learnable(kind="lora"), threads=1, steps=0)
