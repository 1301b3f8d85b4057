"""`onhand.host.costs.decoders`: forecasts of matrices and of wholes, on a made-up device."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from tests.host.costs.parts import CALIBRATION, FORMS, PROFILE

from onhand.core.budget import AXES
from onhand.core.decoder import Decoder
from onhand.core.profile import DeviceProfile
from onhand.core.quantized import GroupFormat
from onhand.host.costs.decoders import FIGURES, DecoderCosts
from onhand.host.costs.synthetic import Sizes

SIZES = Sizes(width=256, mlp_width=512, n_layers=3, n_heads=4, head_dim=64)
LARGE = Sizes(width=1024, mlp_width=4096, n_layers=3, n_heads=16, head_dim=64, vocab_size=8192)


def costs_of(decoder: Decoder, *, threads: int = 1, **others: object) -> DecoderCosts:
    """Costs on the made-up device."""
    given = {"calibration": CALIBRATION, "profile": PROFILE, **others}
    return DecoderCosts(decoder, other_bytes=1000, threads=threads, **given)  # type: ignore[arg-type]


def all_as(decoder: Decoder, form: GroupFormat | None) -> dict[str, GroupFormat | None]:
    """One format throughout."""
    return dict.fromkeys(decoder.matrices(), form)


def test_figures_are_named_as_what_is_measured() -> None:
    """A budget judges both alike."""
    costs = costs_of(SIZES.decoder)

    said = costs.whole(all_as(SIZES.decoder, GroupFormat()))

    assert set(FIGURES) <= {axis.measurement for axis in AXES.values()}
    assert set(said.spread) == set(said.figures()) == set(FIGURES)
    assert json.loads(json.dumps(said.to_json()))["decode_tokens_per_s"] > 0
    assert all(math.isfinite(value) and value > 0 for value in said.figures().values())


def test_the_whole_is_its_matrices_and_a_fixed_part() -> None:
    """So that a knapsack may add: size but for words in headers, memory exactly, time nearly.

    Keys and values come from caches that the weights leave them.
    """
    decoder = SIZES.decoder
    costs = costs_of(decoder)
    random = np.random.default_rng(0)
    fixed = []
    for _ in range(6):
        formats: dict[str, GroupFormat | None] = {
            name: FORMS[random.integers(len(FORMS))] for name in decoder.matrices()
        }
        working = costs.working_bytes(formats, tokens=640)
        parts = [costs.matrix(name, form, working_bytes=working) for name, form in formats.items()]
        said = costs.whole(formats)
        fixed.append((
            said.size_bytes - sum(one.file_bytes for one in parts),
            said.peak_memory_bytes - sum(one.memory_bytes for one in parts),
            1 / said.decode_tokens_per_s - sum(one.decode_s for one in parts),
        ))

    for size, memory, seconds in fixed:
        assert size == pytest.approx(fixed[0][0], abs=2000)
        assert memory == pytest.approx(fixed[0][1], abs=2)
        assert seconds == pytest.approx(fixed[0][2], rel=0.1)


@pytest.mark.parametrize("sizes", [SIZES, LARGE])
def test_fewer_bits_take_less(sizes: Sizes) -> None:
    """On disk, in memory, and in time where memory is what is waited for."""
    costs = costs_of(sizes.decoder)

    said = [costs.whole(all_as(sizes.decoder, GroupFormat(bits=bits))) for bits in (2, 3, 4, 8)]

    for less, more in itertools.pairwise(said):
        assert less.size_bytes < more.size_bytes
        assert less.peak_memory_bytes <= more.peak_memory_bytes
        assert less.decode_tokens_per_s >= more.decode_tokens_per_s


def test_it_says_what_is_waited_for() -> None:
    """Large models wait for memory, small ones for what a step costs beside its products."""
    large, small = Sizes(), LARGE

    waits = [
        costs_of(one.decoder).whole(all_as(one.decoder, GroupFormat())).limits
        for one in (small, large)
    ]

    assert waits[0]["decode_tokens_per_s"] == "memory bandwidth"
    assert waits[1]["decode_tokens_per_s"] == "overhead"
    assert waits[0]["prefill_tokens_per_s"] == "operations"


def test_memory_that_is_slow_today_slows_large_models_alone() -> None:
    """The profile says how it is read now; calibration how it was."""
    slow = replace(PROFILE, read_bandwidth=(4e9, 5e9))

    def rate(sizes: Sizes, profile: object) -> float:
        formats = all_as(sizes.decoder, GroupFormat())
        return costs_of(sizes.decoder, profile=profile).whole(formats).decode_tokens_per_s

    assert rate(LARGE, slow) < 0.6 * rate(LARGE, PROFILE)
    assert rate(Sizes(), slow) == pytest.approx(rate(Sizes(), PROFILE), rel=1e-6)


def test_memory_that_is_slow_at_times_widens_the_margin() -> None:
    """A ceiling is then judged on the slow state."""
    formats = all_as(LARGE.decoder, GroupFormat())
    shared = replace(PROFILE, slow_read_bandwidth=(4e9, 5e9))

    steady = costs_of(LARGE.decoder).whole(formats)
    unsteady = costs_of(LARGE.decoder, profile=shared).whole(formats)

    assert unsteady.decode_tokens_per_s == steady.decode_tokens_per_s
    assert unsteady.spread["decode_tokens_per_s"] > steady.spread["decode_tokens_per_s"] + 0.5
    assert unsteady.spread["size_bytes"] == 0


def test_longer_prompts_take_longer_and_slow_answers() -> None:
    """More than in proportion: every token attends to those before it."""
    decoder = SIZES.decoder
    costs, formats = costs_of(decoder), all_as(decoder, GroupFormat())

    short = costs.whole(formats, prompt_tokens=128)
    long = costs.whole(formats, prompt_tokens=1024)

    assert long.time_to_first_token_s > 8 * short.time_to_first_token_s
    assert long.decode_tokens_per_s < short.decode_tokens_per_s
    assert long.peak_memory_bytes > short.peak_memory_bytes


def test_keys_and_values_that_no_cache_holds_are_waited_for() -> None:
    """At the speed of memory, beside what small models show of reading them."""
    decoder, formats = LARGE.decoder, all_as(LARGE.decoder, GroupFormat())
    quick = replace(PROFILE, read_bandwidth=(80e9, 160e9))

    def longer_s(profile: DeviceProfile) -> float:
        costs = costs_of(decoder, profile=profile)
        short, long = (costs.whole(formats, prompt_tokens=n) for n in (128, 1024))
        return 1 / long.decode_tokens_per_s - 1 / short.decode_tokens_per_s

    numbers = sum(layer.n_kv_heads * layer.head_dim for layer in decoder.layers)
    waited_s = 896 * 4 * numbers * (1 / 8e9 - 1 / 80e9)
    assert longer_s(PROFILE) - longer_s(quick) == pytest.approx(waited_s, rel=1e-6)


def test_prompts_are_cut_to_the_context() -> None:
    """As `onhand bench` does."""
    decoder = replace(SIZES, context=256).decoder
    costs, formats = costs_of(decoder), all_as(decoder, GroupFormat())

    assert costs.whole(formats) == costs.whole(formats, prompt_tokens=192, generated_tokens=64)


def test_two_threads_share_what_can_be_shared() -> None:
    """Quicker, and not twice as quick; energy counts both."""
    formats = all_as(LARGE.decoder, GroupFormat())

    one, two = (costs_of(LARGE.decoder, threads=n).whole(formats) for n in (1, 2))

    assert 1 < two.decode_tokens_per_s / one.decode_tokens_per_s < 2
    assert two.energy_j_per_token == pytest.approx(10.0 / two.decode_tokens_per_s)
    assert one.energy_j_per_token == pytest.approx(5.0 / one.decode_tokens_per_s)


def test_text_that_is_dear_slows_answers() -> None:
    """By what its tokenizer takes more than a plain one."""
    formats = all_as(SIZES.decoder, GroupFormat())

    plain = costs_of(SIZES.decoder).whole(formats)
    dear = costs_of(SIZES.decoder, text_ratio=6.0).whole(formats)

    more_s = 1 / dear.decode_tokens_per_s - 1 / plain.decode_tokens_per_s
    assert more_s == pytest.approx(5e-6)


def test_what_another_engine_must_run_is_estimated() -> None:
    """One float matrix is enough; the margin is wide then."""
    formats = all_as(SIZES.decoder, GroupFormat()) | {"embed": None}

    said = costs_of(SIZES.decoder).whole(formats)

    assert said.estimated
    assert said.spread["decode_tokens_per_s"] >= 0.5


def test_without_calibration_the_profile_is_all() -> None:
    """And the forecast says that it is an estimate."""
    formats = all_as(LARGE.decoder, GroupFormat())

    said = costs_of(LARGE.decoder, calibration=None).whole(formats)

    assert said.estimated
    assert said.limits["decode_tokens_per_s"] == "memory bandwidth"


def test_an_embedding_of_its_own_costs_no_time() -> None:
    """One of its rows is looked up, and the head alone is multiplied, for the last token."""
    costs = costs_of(replace(SIZES.decoder, tied=False))

    assert costs.matrix("embed", GroupFormat()).decode_s == 0
    assert costs.matrix("head", GroupFormat()).decode_s > 0
    assert costs.matrix("head", GroupFormat()).prefill_s_per_token == 0
    assert costs.matrix("layers.0.down", GroupFormat()).prefill_s_per_token > 0
