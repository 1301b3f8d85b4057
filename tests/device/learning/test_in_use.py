"""An opened bundle uses the version learned on its device, and says which."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.device.learning.bundles import write_tensors
from tests.device.test_opening import make_bundle

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.lesson import Lesson, Trainable, render_lesson
from onhand.device.learning.in_use import (
    AS_BUILT,
    adapter_of,
    choose_version,
    learned_adapter,
    learned_here,
    open_versions,
)
from onhand.device.learning.verdict import Verdict
from onhand.device.learning.versions import Version, Versions

RANK, WIDTH = 2, 4
GOOD = Verdict(is_accepted=True)


def lora(**changes: object) -> Lesson:
    """Adapters of two matrices of the toy decoder."""
    given = Lesson(
        kind="lora",
        feeds="tokens",
        variant="float",
        graph="learn.onnx",
        trunk=None,
        start="learn.safetensors",
        trainables={
            "out.A": Trainable(shape=(RANK, WIDTH), tensor="layers.0.out", part="lora_A"),
            "out.B": Trainable(shape=(WIDTH, RANK), tensor="layers.0.out", part="lora_B"),
            "head.A": Trainable(shape=(RANK, WIDTH), tensor="embed", part="lora_A"),
            "head.B": Trainable(shape=(260, RANK), tensor="embed", part="lora_B"),
        },
        alpha=8.0,
    )
    return replace(given, **changes)  # type: ignore[arg-type] # fields of these types


def start_of(lesson: Lesson) -> dict[str, FloatArray]:
    """A starts at ones and B at zeros, as of a new adapter."""
    return {
        name: (np.ones if made.part == "lora_A" else np.zeros)(made.shape, dtype=np.float32)
        for name, made in lesson.trainables.items()
    }


def learning_bundle(root: Path, lesson: Lesson | None = None) -> Bundle:
    """The toy language model with a lesson, whose graph nobody runs."""
    lesson = lesson or lora()
    start = root.with_name(f"{root.name}-start")
    write_tensors(start, start_of(lesson))
    return make_bundle(
        root,
        learn_json=render_lesson(lesson),
        learn_onnx=b"",
        learn_safetensors=start.read_bytes(),
    )


def teach(versions: Versions, value: float, *, parent: int = 0) -> Version:
    """A version whose B of the output matrix is one number."""
    start = start_of(versions.lesson)
    values = start | {"out.B": np.full((WIDTH, RANK), value, np.float32)}
    version = versions.propose(
        values, start=start, parent=parent, method="sgd", counts={}, verdict=GOOD
    )
    versions.accept(version.number)
    return version


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A language model that can learn."""
    return learning_bundle(tmp_path / "toy")


def test_a_version_is_an_adapter(bundle: Bundle, home: Path) -> None:
    """B is scaled by alpha / rank; what adds nothing is left out."""
    version = teach(open_versions(bundle.root, home), 0.5)

    adapter = learned_adapter(bundle, home, version)

    assert adapter.pairs.keys() == {"layers.0.out"}
    right, left = adapter.pairs["layers.0.out"]
    np.testing.assert_array_equal(right, np.ones((RANK, WIDTH)))
    np.testing.assert_array_equal(left, np.full((WIDTH, RANK), 0.5 * 8 / 2))


def test_each_version_has_an_identity(bundle: Bundle, home: Path) -> None:
    """Caches tell them apart, and the same tensors are the same."""
    versions = open_versions(bundle.root, home)
    found = [
        learned_adapter(bundle, home, one).sha256
        for one in (teach(versions, 0.5), teach(versions, 0.25), teach(versions, 0.5))
    ]

    assert found[0] == found[2] != found[1]


def test_the_version_in_use_is_chosen(bundle: Bundle, home: Path) -> None:
    """Without a wish the one in use; by number any that is there; 0 is the bundle itself."""
    versions = open_versions(bundle.root, home)
    first, second = teach(versions, 0.5), teach(versions, 0.25, parent=1)

    assert choose_version(bundle, home, None)[1] == second
    assert choose_version(bundle, home, 1)[1] == first
    assert choose_version(bundle, home, 0) == (AS_BUILT, None)
    with pytest.raises(InputError, match="no version 7"):
        choose_version(bundle, home, 7)


def test_without_a_state_folder_nothing_is_learned(bundle: Bundle) -> None:
    """A program that gives none gets the bundle as it was built."""
    assert choose_version(bundle, None, None) == (AS_BUILT, None)
    with pytest.raises(InputError, match="version 1: without a state folder"):
        choose_version(bundle, None, 1)


def test_a_bundle_without_a_lesson_is_as_it_was_built(tmp_path: Path, home: Path) -> None:
    """Asking for what it learned says how it could learn."""
    bundle = make_bundle(tmp_path / "plain")

    assert choose_version(bundle, home, None) == (AS_BUILT, None)
    assert learned_here(bundle, home) is None
    with pytest.raises(InputError, match="cannot learn"):
        choose_version(bundle, home, 1)


def test_a_damaged_version_is_said(bundle: Bundle, home: Path) -> None:
    """The one that is used instead and why are part of what was opened."""
    versions = open_versions(bundle.root, home)
    teach(versions, 0.5)
    teach(versions, 0.25, parent=1)
    (versions.folder / "versions" / "0002" / "tensors.safetensors").write_bytes(b"")

    in_use, version = choose_version(bundle, home, None)

    assert version is not None
    assert (in_use.number, version.number) == (1, 1)
    assert "version 2 is damaged" in in_use.passed_over[0]
    assert learned_here(bundle, home) == in_use
    with pytest.raises(BundleCorrupt):
        learned_adapter(bundle, home, versions.find(2))


def test_a_whole_tensor_is_no_adapter(bundle: Bundle) -> None:
    """A language model takes what is added to it; anything else is said."""
    lesson = lora(trainables={"b": Trainable(shape=(4,), tensor="layers.0.bias")})
    values = {"b": np.ones(4, np.float32)}

    with pytest.raises(InputError, match=r"stands in the place of 'layers\.0\.bias'"):
        adapter_of(lesson, values, decoder=bundle.manifest.decoder, sha256="x")


@pytest.mark.parametrize("tensor", ["layers.9.out", "layers.0.qkv"])
def test_attack_an_adapter_of_another_model(bundle: Bundle, tensor: str) -> None:
    """A lesson that names what is not there, or of another shape, adds nothing anywhere."""
    lesson = lora(
        trainables={
            "A": Trainable(shape=(RANK, WIDTH), tensor=tensor, part="lora_A"),
            "B": Trainable(shape=(5, RANK), tensor=tensor, part="lora_B"),
        }
    )

    with pytest.raises(InputError, match=f"'{tensor}' is no matrix of this model"):
        adapter_of(lesson, start_of(lesson), decoder=bundle.manifest.decoder, sha256="x")


def test_attack_a_lesson_that_was_changed(bundle: Bundle, home: Path) -> None:
    """Of a bundle that was not verified, the lesson at least is what the manifest says."""
    path = bundle.root / "learn.json"
    path.write_bytes(path.read_bytes().replace(b"8.0", b"9.0"))

    with pytest.raises(BundleCorrupt, match=r"'learn\.json' has SHA-256"):
        open_versions(bundle.root, home)


def test_the_bundle_itself_is_never_written(bundle: Bundle, home: Path) -> None:
    """All that is learned lies in the state folder."""
    teach(open_versions(bundle.root, home), 0.5)

    assert read_bundle(bundle.root).manifest_sha256 == bundle.manifest_sha256
