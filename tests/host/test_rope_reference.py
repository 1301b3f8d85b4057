"""Rotary positions are those of transformers."""

from typing import Any

import numpy as np
import pytest

from onhand.core.decoder import Rope

transformers = pytest.importorskip("transformers", reason="compares with transformers")
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402 - after the skip
from transformers.models.llama.modeling_llama import (  # noqa: E402 - after the skip
    LlamaRotaryEmbedding,
)

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32768,
}
CASES: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 10000.0},
    {"rope_type": "default", "rope_theta": 1000000.0},
    {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5},
    LLAMA3,
    LLAMA3 | {"factor": 32.0},
    LLAMA3 | {"rope_theta": 10000.0, "original_max_position_embeddings": 256},
    YARN,
    YARN | {"factor": 16.0, "rope_theta": 10000.0, "original_max_position_embeddings": 2048},
    YARN | {"beta_fast": 64.0, "beta_slow": 2.0},
    YARN | {"attention_factor": 0.75},
    YARN | {"factor": 1.0},
    # Both ends of the ramp before the first pair, and beyond the last.
    YARN | {"original_max_position_embeddings": 1},
    YARN | {"rope_theta": 10.0},
]
NAMES = {"rope_theta": "theta", "original_max_position_embeddings": "original_context"}


def ours(case: dict[str, Any]) -> Rope:
    """The same options under our names."""
    given = {NAMES.get(key, key): value for key, value in case.items() if key != "rope_type"}
    return Rope(scaling=case["rope_type"], **given)


def theirs(case: dict[str, Any], head_dim: int, context: int) -> Any:
    """A configuration of transformers with these options."""
    return transformers.LlamaConfig(
        hidden_size=4 * head_dim,
        head_dim=head_dim,
        num_attention_heads=4,
        max_position_embeddings=context,
        rope_parameters=dict(case),
    )


@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['rope_type']}{len(case)}")
def test_frequencies_are_those_of_transformers(case: dict[str, Any], head_dim: int) -> None:
    """The angle of each pair, and the factor on the tables."""
    rope, config = ours(case), theirs(case, head_dim, 131072)
    if case["rope_type"] == "default":
        expected, scale = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    else:
        expected, scale = ROPE_INIT_FUNCTIONS[case["rope_type"]](config, device=None)

    # Two ways to round a power to float32 differ by a few units in the last place.
    np.testing.assert_allclose(rope.inverse_frequencies(head_dim), expected.numpy(), rtol=1e-6)
    assert rope.tables(head_dim, 1)[0] == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['rope_type']}{len(case)}")
def test_tables_are_those_of_transformers(case: dict[str, Any]) -> None:
    """Cosines and sines at every position, as the model's own module makes them."""
    torch = pytest.importorskip("torch", reason="compares with torch")
    head_dim, context = 64, 512
    module = LlamaRotaryEmbedding(theirs(case, head_dim, context))

    cosines, sines = module(torch.zeros(1, 1, head_dim), torch.arange(context)[None])

    found = ours(case).tables(head_dim, context)
    half = head_dim // 2  # theirs holds every angle twice
    for mine, other in zip(found, (cosines, sines), strict=True):
        # An angle of hundreds of radians in float32 is known to about 3e-5.
        np.testing.assert_allclose(mine, other[0, :, :half].numpy(), atol=6e-5)
