"""A lesson in ONNX Runtime: what it computes, what it refuses, and that weights are mapped."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.device.learning.bundles import (
    N_PIXELS,
    C,
    D,
    lesson_of_head,
    trunk_weights,
    write_bundle,
)
from tests.device.learning.models import LinearTeachable

from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt, EngineError, InputError
from onhand.core.lesson import Trainable
from onhand.device.learning.base import Answering, Teachable
from onhand.device.learning.graph import open_lesson
from onhand.device.learning.lesson_files import can_learn, read_lesson


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network that can learn its head."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "things")


@pytest.fixture
def opened(bundle: Bundle) -> Iterator[Teachable]:
    """Its lesson."""
    lesson = open_lesson(bundle, threads=1)
    yield lesson
    lesson.close()


def feeds(rng: np.random.Generator, n: int, n_classes: int = C) -> dict[str, np.ndarray]:
    """A batch with a past."""
    shares = rng.random((n, n_classes)).astype(np.float32)
    return {
        "latent": rng.standard_normal((n, D)).astype(np.float32),
        "labels": rng.integers(0, n_classes, n),
        "weights": rng.random(n).astype(np.float32),
        "past_logits": rng.standard_normal((n, n_classes)).astype(np.float32),
        "past_weights": rng.random(n).astype(np.float32),
        "past_classes": shares / shares.sum(axis=1, keepdims=True),
        "soft_weights": rng.random(n).astype(np.float32),
    }


@pytest.mark.parametrize("n_classes", [C, C + 2])
@pytest.mark.parametrize("memory", ["low", "fast"])
def test_it_gives_the_loss_and_gradients_that_are_computed_by_hand(
    bundle: Bundle, rng: np.random.Generator, memory: str, n_classes: int
) -> None:
    """Any batch, a past, and more classes than there were."""
    values = {
        "head.weight": rng.standard_normal((n_classes, D)).astype(np.float32),
        "head.bias": rng.standard_normal(n_classes).astype(np.float32),
    }
    given = feeds(rng, 5, n_classes)
    by_hand = LinearTeachable(D, n_classes).teach(values, given | {"x": given["latent"]})
    opened = open_lesson(bundle, threads=1, memory="low" if memory == "low" else "fast")

    taught = opened.teach(values, given)
    opened.close()

    assert taught.loss == pytest.approx(by_hand.loss, rel=1e-5)
    for name in ("losses", "logits"):
        np.testing.assert_allclose(taught.outputs[name], by_hand.outputs[name], atol=1e-5)
    for name, gradient in by_hand.gradients.items():
        np.testing.assert_allclose(taught.gradients[name], gradient, atol=1e-5)


def test_a_past_that_is_left_out_counts_nothing(
    opened: Teachable, rng: np.random.Generator
) -> None:
    """Whoever has none need not make zeros."""
    given = feeds(rng, 3)
    plain = {name: given[name] for name in ("latent", "labels", "weights")}
    zeros = {n: np.zeros_like(a) for n, a in given.items() if n not in plain}

    assert opened.teach(opened.start(), plain).loss == pytest.approx(
        opened.teach(opened.start(), plain | zeros).loss
    )


def test_answers_come_without_gradients(opened: Teachable, rng: np.random.Generator) -> None:
    """They are the same answers."""
    given = feeds(rng, 3)
    assert isinstance(opened, Answering)

    answered, taught = opened.answer(opened.start(), given), opened.teach(opened.start(), given)

    assert answered.loss == taught.loss
    assert not answered.gradients
    np.testing.assert_array_equal(answered.outputs["logits"], taught.outputs["logits"])


def test_the_trunk_reads_the_bundle_s_own_weights(
    opened: Teachable, rng: np.random.Generator
) -> None:
    """Its matrix lies in the weights file."""
    pixels = rng.standard_normal((3, N_PIXELS)).astype(np.float32)

    latent = opened.latent({"pixels": pixels})

    np.testing.assert_allclose(latent, np.maximum(pixels @ trunk_weights(), 0), atol=1e-5)


def test_the_start_is_the_caller_s_own(opened: Teachable) -> None:
    """Who changes it changes nobody else's."""
    opened.start()["head.bias"][:] = 7

    assert not opened.start()["head.bias"].any()


Spoil = Callable[[dict[str, np.ndarray]], object]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda feeds: feeds.pop("labels"), "input 'labels' is missing"),
        (lambda feeds: feeds.update(more=np.zeros(1)), "input 'more' is unknown"),
        (
            lambda feeds: feeds.update(weights=np.ones(3)),
            "input 'weights' is float64, must be float32",
        ),
        (
            lambda feeds: feeds.update(latent=np.zeros((3, D + 1), np.float32)),
            "must be \\(any, 4\\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    opened: Teachable, rng: np.random.Generator, spoil: Spoil, sentence: str
) -> None:
    """By the input's name, with what it is and must be."""
    given = feeds(rng, 3)
    spoil(given)

    with pytest.raises(InputError, match=sentence):
        opened.teach(opened.start(), given)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"head.bias": np.zeros(C, np.float32)}, "value 'head.weight' is missing"),
        (
            {"head.weight": np.zeros((C, D + 1), np.float32), "head.bias": np.zeros(C, np.float32)},
            "must be \\(3, 4\\), or more classes",
        ),
        (
            {"head.weight": np.zeros((C + 1, D), np.float32), "head.bias": np.zeros(C, np.float32)},
            "the classes added differ",
        ),
        (
            {"head.weight": np.zeros((C, D)), "head.bias": np.zeros(C, np.float32)},
            "is float64, must be float32",
        ),
    ],
)
def test_values_that_do_not_fit_are_refused(
    opened: Teachable,
    rng: np.random.Generator,
    values: dict[str, np.ndarray],
    sentence: str,
) -> None:
    """Before ONNX Runtime sees them."""
    with pytest.raises(InputError, match=sentence):
        opened.teach(values, feeds(rng, 2))


def test_a_closed_lesson_says_so(bundle: Bundle, rng: np.random.Generator) -> None:
    """Closing twice is safe."""
    lesson = open_lesson(bundle, threads=1)
    lesson.close()
    lesson.close()

    with pytest.raises(EngineError, match="closed"):
        lesson.teach(lesson.start(), feeds(rng, 2))


def test_a_bundle_without_a_lesson_cannot_learn(tmp_path: Path) -> None:
    """And says how to make one that can."""
    bundle = write_bundle(tmp_path / "plain", without="learn.json")

    assert not can_learn(bundle)
    with pytest.raises(InputError, match="--learnable"):
        read_lesson(bundle)


@pytest.mark.parametrize("file", ["learn.onnx", "trunk.onnx", "learn.safetensors"])
def test_attack_a_lesson_that_names_a_file_the_manifest_does_not(tmp_path: Path, file: str) -> None:
    """What nobody hashed is not opened."""
    bundle = write_bundle(tmp_path / "half", without=file)

    with pytest.raises(BundleCorrupt, match=f"names '{file}'"):
        open_lesson(bundle, threads=1)


def test_attack_a_lesson_whose_trainable_the_graph_does_not_take(tmp_path: Path) -> None:
    """The graph would compute something else."""
    lesson = lesson_of_head()
    more = {**lesson.trainables, "other": Trainable(shape=(2,), tensor="other")}
    bundle = write_bundle(tmp_path / "odd", lesson=replace(lesson, trainables=more))

    with pytest.raises(BundleCorrupt, match="no input 'other'"):
        open_lesson(bundle, threads=1)


def test_attack_starting_values_of_another_shape(tmp_path: Path) -> None:
    """The lesson and its file must agree."""
    lesson = lesson_of_head()
    wide = {**lesson.trainables, "head.bias": Trainable(shape=(9,), tensor="head.bias", grows=True)}
    bundle = write_bundle(tmp_path / "odd", lesson=replace(lesson, trainables=wide))
    opened = open_lesson(bundle, threads=1)

    with pytest.raises(BundleCorrupt, match=r"'head\.bias' is of shape"):
        opened.start()
    opened.close()


def test_attack_a_lesson_of_a_variant_that_is_none(tmp_path: Path) -> None:
    """Its weights could not be found."""
    bundle = write_bundle(tmp_path / "odd", lesson=replace(lesson_of_head(), variant="int9"))

    with pytest.raises(BundleCorrupt, match="no variant"):
        open_lesson(bundle, threads=1)
