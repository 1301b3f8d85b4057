"""`onhand.host.costs.work`: what a step does, counted from shapes."""

from dataclasses import replace

import pytest
from tests.models import DECODER

from onhand.host.costs.synthetic import Sizes
from onhand.host.costs.work import prompt_parts, prompt_work, step_work


def test_a_step_counted_by_hand() -> None:
    """One layer of width 4: two heads of 2 share one key head; MLP of 8; five tokens seen."""
    sizes = Sizes(width=4, mlp_width=8, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=2)

    work = step_work(sizes.decoder, context=5, threads=1)

    assert work.steps == work.layers == 1
    assert work.values == (6 * 4 + 4) + (4 + 2 * 2 + 3 * 8)
    assert work.scores == 2 * 5
    assert work.pairs == 2 * 5
    assert work.kv_bytes == 4 * 2 * 5
    assert step_work(sizes.decoder, context=5, threads=2).values == 28 + 32 / 2


def test_heads_that_do_not_divide_leave_a_thread_waiting() -> None:
    """Three key heads on two threads take as long as four."""
    sizes = Sizes(n_heads=3, n_kv_heads=3, head_dim=16)

    three = step_work(sizes.decoder, context=100, threads=2)
    four = step_work(replace(sizes, n_heads=4, n_kv_heads=4).decoder, context=100, threads=2)

    assert three.scores == four.scores


def test_a_window_ends_what_is_seen() -> None:
    """Tokens before it cost nothing."""
    layer = replace(DECODER.layers[0], window=16)
    narrow = replace(DECODER, layers=(layer, layer))

    assert step_work(narrow, context=100, threads=1) == step_work(narrow, context=16, threads=1)
    assert prompt_work(narrow, tokens=100, threads=1).scores < (
        prompt_work(DECODER, tokens=100, threads=1).scores
    )


@pytest.mark.parametrize(
    ("tokens", "parts"), [(1, [1]), (256, [256]), (257, [256, 1]), (600, [256, 256, 88])]
)
def test_prompts_are_read_in_parts(tokens: int, parts: list[int]) -> None:
    """As many rows as the engine computes at once, and the rest."""
    assert prompt_parts(tokens) == parts
    assert sum(parts) == tokens


def test_each_token_of_a_prompt_sees_those_before_it() -> None:
    """1 + 2 + 3 of them, for each number of each head."""
    work = prompt_work(DECODER, tokens=3, threads=1)

    assert work.scores == 6 * sum(layer.query_width for layer in DECODER.layers)
    assert work.pairs == 6 * sum(layer.n_heads for layer in DECODER.layers)
