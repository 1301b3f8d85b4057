"""The losses of a lesson: values and gradients against PyTorch, and large logits."""

import numpy as np
import pytest
import torch
from onnx import ModelProto, helper
from tests.host.learning.gradients import agree, graph, kinds, normal, run, session
from torch.nn import functional

from onhand.host.learning.differentiate import differentiate
from onhand.host.learning.losses import append_class_loss, append_token_loss


def token_model() -> ModelProto:
    forward = graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"])],
        {"x": ["R", 6], "w": [6, 9]},
        {},
        outputs=(),
    )
    starts = append_token_loss(forward.graph, logits="z")
    return differentiate(forward, loss="loss", wrt=["x", "w"], starts=starts)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("n_labels", [1, 4])
def test_token_loss(scale: float, n_labels: int) -> None:
    """Weights of either sign, a label named twice, logits far beyond an exponential's range."""
    x, w = normal(5, 6), scale * normal(6, 9)
    labels = np.random.default_rng(0).integers(0, 9, (5, n_labels))
    labels[0] = labels[0, 0]
    weights = normal(5, n_labels)
    found = run(token_model(), {"x": x, "w": w, "labels": labels, "weights": weights})

    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, w)]
    logprobs = functional.log_softmax(tensors[0] @ tensors[1], 1).gather(
        1, torch.from_numpy(labels)
    )
    loss = -(torch.from_numpy(weights) * logprobs).sum()
    expected = torch.autograd.grad(loss, tensors)

    agree(found["loss"], loss.detach().numpy())
    agree(found["logprobs"], logprobs.detach().numpy())
    agree(found["grad.x"], expected[0].numpy())
    agree(found["grad.w"], expected[1].numpy())


def test_token_loss_makes_two_tensors_of_the_vocabulary() -> None:
    """LogSoftmax beside the logits, and what is computed in place of it."""
    assert kinds(token_model())[1:].count("LogSoftmax") == 1
    assert [kind for kind in kinds(token_model()) if kind == "Sub"] == []


def test_token_loss_with_other_numbers_of_rows_and_labels() -> None:
    """One session takes any R and K, and rows of weight zero count nothing."""
    opened = session(token_model())
    x, w = normal(3, 6), normal(6, 9)
    feeds = {"x": x, "w": w, "labels": np.zeros((3, 1), np.int64)}
    first = opened.run(["loss", "grad.w"], feeds | {"weights": np.ones((3, 1), np.float32)})

    wide = np.zeros((4, 2), np.float32)
    wide[:3, 1] = 1
    feeds = {"x": np.vstack([x, x[:1]]), "w": w, "labels": np.zeros((4, 2), np.int64)}
    second = opened.run(["loss", "grad.w"], feeds | {"weights": wide})

    agree(second[0], first[0])
    agree(second[1], first[1])


def class_model() -> ModelProto:
    forward = graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["z"])],
        {"x": ["B", 6], "w": [6, "C"], "b": ["C"]},
        {},
        outputs=(),
    )
    starts = append_class_loss(forward.graph, logits="z")
    return differentiate(forward, loss="loss", wrt=["w", "b"], starts=starts)


@pytest.mark.parametrize("n_classes", [3, 7])
def test_class_loss(n_classes: int) -> None:
    """All three terms at once; one session for any number of classes."""
    made = np.random.default_rng(1)
    arrays = {"x": normal(5, 6), "w": 3 * normal(6, n_classes), "b": normal(n_classes)}
    feeds = arrays | {
        "labels": made.integers(0, n_classes, 5),
        "weights": made.random(5, dtype=np.float32),
        "past_logits": normal(5, n_classes),
        "past_weights": made.random(5, dtype=np.float32),
        "past_classes": made.dirichlet(np.ones(n_classes), 5).astype(np.float32),
        "soft_weights": made.random(5, dtype=np.float32),
    }
    found = run(class_model(), feeds)

    given = {name: torch.from_numpy(np.asarray(value)) for name, value in feeds.items()}
    w, b = given["w"].requires_grad_(), given["b"].requires_grad_()
    logits = given["x"] @ w + b
    losses = functional.cross_entropy(logits, given["labels"], reduction="none")
    past = (logits - given["past_logits"]).square().mean(1)
    soft = functional.cross_entropy(logits, given["past_classes"], reduction="none")
    terms = given["weights"] * losses + given["past_weights"] * past + given["soft_weights"] * soft
    expected = torch.autograd.grad(terms.sum(), [w, b])

    agree(found["loss"], terms.sum().detach().numpy())
    agree(found["losses"], losses.detach().numpy())
    agree(found["logits"], logits.detach().numpy())
    agree(found["grad.w"], expected[0].numpy())
    agree(found["grad.b"], expected[1].numpy())


def test_class_loss_keeps_an_output_called_logits() -> None:
    """A network that already gives its logits under that name gives them once."""
    forward = graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        {"x": ["B", 2], "w": [2, 3]},
        {},
        outputs=("logits",),
    )
    starts = append_class_loss(forward.graph, logits="logits", n_classes=3)

    assert [value.name for value in forward.graph.output] == ["logits", "loss", "losses"]
    assert list(starts) == ["logits"]
