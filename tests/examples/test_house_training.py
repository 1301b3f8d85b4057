"""The house assistant's network and optimizer do what the libraries' do."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="trains")
transformers = pytest.importorskip("transformers", reason="compares with transformers")

from examples.house_assistant.muon import Muon, orthogonal  # noqa: E402 (needs torch)
from examples.house_assistant.network import (  # noqa: E402 (needs torch)
    Llama,
    Shape,
    export_weights,
    load_weights,
)

SMALL = Shape(vocabulary=50, width=32, n_layers=2, head_width=8, hidden=48)


def network(shape: Shape, seed: int = 0) -> Llama:
    """A network that has learnt nothing but adds something in every block."""
    torch.manual_seed(seed)
    made = Llama(shape)
    for weight in made.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    return made


@pytest.mark.parametrize("length", [1, 127, 128, 129, 300, 512, 513, 700])
def test_logits_are_those_of_transformers(tmp_path: Path, length: int) -> None:
    """At every border between the ways in which attention is computed."""
    ours = network(SMALL)
    export_weights(ours, tmp_path)
    load_weights(ours, tmp_path)  # rounded to float16, as theirs are
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, local_files_only=True
    )
    tokens = torch.randint(0, 50, (2, length))

    with torch.no_grad():
        expected = theirs(tokens).logits
        found = ours(tokens)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_new_network_passes_the_stream_on() -> None:
    """Blocks add nothing before they have learnt something."""
    made = Llama(SMALL)
    tokens = torch.tensor([[3, 7, 11]])

    stream = made.stream(tokens)

    torch.testing.assert_close(stream, made.norm(made.embed_tokens(tokens)))


@pytest.mark.parametrize("shape", [(3, 8, 16), (2, 16, 8), (1, 6, 6)])
def test_orthogonal_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    """Jordan's steps bring them between 0.7 and 1.2, and bfloat16 adds a little."""
    torch.manual_seed(1)

    found = torch.linalg.svdvals(orthogonal(torch.randn(shape)).float())

    assert found.min() > 0.3
    assert found.max() < 1.3


def test_muon_steps_are_those_of_torch() -> None:
    """Matrices of one shape together move as each of them alone."""
    torch.manual_seed(2)
    start = [torch.randn(size) for size in ((8, 16), (24, 16), (8, 16), (16, 24))]
    ours, theirs = ([torch.nn.Parameter(one.clone()) for one in start] for _ in range(2))
    steps = [
        Muon(ours, lr=0.1),
        torch.optim.Muon(
            theirs, lr=0.1, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
    ]

    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        for optimizer in steps:
            optimizer.step()

    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


def test_muon_resumes_from_what_it_saved() -> None:
    """A checkpoint holds the momentum."""
    torch.manual_seed(3)
    start, gradients = torch.randn(4, 6), torch.randn(4, 4, 6)
    whole, halted = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizer = Muon([whole], lr=0.1)
    for gradient in gradients:
        whole.grad = gradient.clone()
        optimizer.step()

    first = Muon([halted], lr=0.1)
    for gradient in gradients[:2]:
        halted.grad = gradient.clone()
        first.step()
    second = Muon([halted], lr=0.1)
    second.load_state_dict(first.state_dict())
    for gradient in gradients[2:]:
        halted.grad = gradient.clone()
        second.step()

    torch.testing.assert_close(halted, whole)
