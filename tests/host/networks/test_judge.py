"""What a network lost, counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from onhand.core.errors import EngineError, InputError
from onhand.core.progress import Quiet
from onhand.host.networks.graph import Graph, Node, Value
from onhand.host.networks.judge import Answers, answer_bundle, compare_answers
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.pack import describe, pack_network
from onhand.host.networks.samples import Samples


def answers(*rows: list[float]) -> Answers:
    """One output for each example."""
    return Answers([{"y": np.array([row], np.float32)} for row in rows], "onnx")


def test_classes_with_labels() -> None:
    """Both right; only the original right; both wrong in different ways; ours alone right."""
    before = answers([3, 0, 0], [3, 0, 0], [0, 3, 0], [0, 3, 0])
    after = answers([2, 0, 0], [0, 2, 0], [2, 0, 0], [0, 0, 2])

    found = compare_answers(
        before, after, task="image-classification", labels=[0, 0, 2, 2], how="x"
    )

    assert found["agreement"].value == 0.25
    assert found["accuracy"].value == 0.5
    assert found["original_accuracy"].value == 0.5
    assert found["accuracy_loss"].value == found["quality_loss"].value == 0
    assert found["quality_loss"].interval is not None
    assert found["kl_divergence"].value > 0
    assert (found["accuracy"].samples, found["accuracy"].how) == (4, "x")


def test_classes_without_labels_are_judged_by_agreement() -> None:
    """Half of the answers are others."""
    found = compare_answers(
        answers([1, 0], [0, 1]),
        answers([1, 0], [1, 0]),
        task="audio-classification",
        labels=None,
        how="",
    )

    assert "accuracy" not in found
    assert found["quality_loss"].value == 0.5


def test_probabilities_and_logits_have_one_divergence() -> None:
    """What adds up to one is taken as it is."""
    logits = answers([1.0, 2.0, 0.5])
    shares = np.exp([1.0, 2.0, 0.5]) / np.exp([1.0, 2.0, 0.5]).sum()

    found = compare_answers(
        logits, answers(shares.tolist()), task="text-classification", labels=None, how=""
    )

    assert found["kl_divergence"].value == pytest.approx(0, abs=1e-6)


def test_embeddings_are_judged_by_their_angle() -> None:
    """A longer vector is the same; one at a right angle is not."""
    found = compare_answers(
        answers([1, 0], [1, 0]), answers([2, 0], [0, 3]), task="text-embedding", labels=None, how=""
    )

    assert found["cosine_similarity"].value == 0.5
    assert found["quality_loss"].value == 0.5


def test_other_outputs_are_judged_by_their_error() -> None:
    """Relative to the original's length."""
    found = compare_answers(answers([3, 4]), answers([3, 3]), task="features", labels=None, how="")

    assert found["relative_error"].value == pytest.approx(0.2)


def test_outputs_of_other_sizes_are_lost() -> None:
    """A network that finds two things where the original found three."""
    found = compare_answers(
        answers([1, 2, 3], [1, 2, 3]),
        answers([1, 2], [1, 2, 3]),
        task="detection",
        labels=None,
        how="",
    )

    assert found["quality_loss"].value == 0.5
    with pytest.raises(InputError, match=r"outputs hold \[2, 3\] scores"):
        compare_answers(
            answers([1, 2, 3]), answers([1, 2]), task="image-classification", labels=None, how=""
        )


def test_a_label_of_no_class_is_no_wrong_answer() -> None:
    """It says that the data are for another network."""
    with pytest.raises(InputError, match="label 2, the network has 2 classes"):
        compare_answers(
            answers([1, 0]), answers([1, 0]), task="image-classification", labels=[2], how=""
        )


def test_a_nan_of_the_original_is_said() -> None:
    """It would pass every limit."""
    with pytest.raises(EngineError, match="the original gives a NaN"):
        compare_answers(
            answers([float("inf")]), answers([1.0]), task="features", labels=None, how=""
        )


def test_a_bundle_answers_inputs_of_any_name_and_shape(tmp_path: Path) -> None:
    """A name that numpy's own argument has, and a number that goes with each example."""
    whole = Value(name="times", dtype=np.dtype(np.float32), shape=())
    graph = Graph(
        nodes=(Node(op="Mul", inputs=("file", "times"), outputs=("y",)),),
        constants={},
        inputs=(Value(name="file", dtype=np.dtype(np.float32), shape=("B", 2)), whole),
        outputs=(Value(name="y", dtype=np.dtype(np.float32), shape=("B", 2)),),
        opset=17,
    )
    model = NetworkModel(name="net", family="onnx", graph=graph, sha256="", source_bytes=0)
    pack_network(model, describe(model, "features"), {"fp32": graph}, tmp_path, provenance={})
    feeds = [
        {"file": np.ones((1, 2), np.float32), "times": np.array(k, np.float32)} for k in (2, 3)
    ]

    found = answer_bundle(
        tmp_path,
        Samples(feeds=feeds),
        variant="fp32",
        engine="reference",
        threads=1,
        progress=Quiet(),
    )

    assert [one["y"].tolist() for one in found.outputs] == [[[2, 2]], [[3, 3]]]


def test_a_nan_is_no_answer() -> None:
    """It is an error, never a figure."""
    with pytest.raises(EngineError, match="NaN"):
        compare_answers(
            answers([1, 0]), answers([float("nan"), 0]), task="features", labels=None, how=""
        )
