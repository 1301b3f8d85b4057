"""`onhand.host.costs.measuring` and its neighbours: real measurements, no times asserted."""

from pathlib import Path

import pytest
from tests.host.costs.parts import FORMS, PROFILE
from tests.models import tokenizer_json

from onhand import native
from onhand.core.errors import EngineUnavailable
from onhand.device.bench import bench
from onhand.device.probe import current_profile
from onhand.device.text import open_tokenizer
from onhand.host.costs import answers, measuring, starting
from onhand.host.costs.calibration import Stream
from onhand.host.costs.decoders import DecoderCosts
from onhand.host.costs.measuring import (
    measure_calibration,
    measure_products,
    measure_streams,
    own_cache_bytes,
    undisturbed,
)
from onhand.host.costs.speed import SpeedGauge
from onhand.host.costs.synthetic import Sizes, made_tokenizer, make_bundle
from onhand.host.costs.text import text_ratio

needs_native = pytest.mark.skipif(native.module is None, reason="the native part is not built")


@needs_native
def test_products_are_timed_in_every_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one row and with many, none of them free."""
    monkeypatch.setattr(measuring, "_PRODUCT_S", 1e-5)
    monkeypatch.setattr(measuring, "_ROUNDS", 1)
    monkeypatch.setattr(measuring, "_WEIGHTS", 2**14)
    assert native.module is not None

    rates = measure_products(native.module)

    assert {(one.bits, one.group_size, one.symmetric) for one in rates} == {
        (form.bits, form.group_size, form.symmetric) for form in FORMS
    }
    assert all(one.weight_s > 0 and one.output_s >= 0 for one in rates)


@needs_native
def test_streams_are_timed_by_threads_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits a core's own cache is read by each thread as if it were alone."""
    monkeypatch.setattr(measuring, "_STREAM_S", 1e-5)
    assert native.module is not None

    found = measure_streams(native.module, [1, 2], most_bytes=2**21, own_bytes=2**20)

    alone = [one for one in found if one.threads == 1]
    both = [one for one in found if one.threads == 2]
    assert [one.working_bytes for one in alone] == sorted(one.working_bytes for one in alone)
    assert max(one.working_bytes for one in alone) <= 2**21
    assert both[0].working_bytes == 2 * alone[0].working_bytes
    for streams in (alone, both):
        rates = [one.bytes_per_s for one in streams]
        assert rates == sorted(rates, reverse=True)


def test_a_disturbed_stream_is_as_quick_as_a_longer_one() -> None:
    """What fits a smaller place is never read more slowly; threads are apart."""
    given = [(1, 10, 9.0), (1, 20, 3.0), (1, 30, 5.0), (2, 10, 2.0), (2, 20, 1.0)]
    streams = [Stream(threads=n, working_bytes=size, bytes_per_s=rate) for n, size, rate in given]

    found = undisturbed(streams)

    assert [one.bytes_per_s for one in found] == [9.0, 5.0, 5.0, 2.0, 1.0]
    assert [one.working_bytes for one in found] == [size for _, size, _ in given]


def test_the_own_cache_is_the_largest_that_nobody_shares() -> None:
    """From the profile."""
    assert own_cache_bytes(PROFILE) == 2**20


@pytest.mark.parametrize("n_tokens", [300, 5000])
def test_made_tokenizers_have_so_many_tokens(n_tokens: int) -> None:
    """They open as real ones do, and turn text into tokens and back."""
    tokenizer = open_tokenizer(made_tokenizer(n_tokens))

    assert tokenizer.vocab_size == n_tokens
    assert tokenizer.decode(tokenizer.encode_plain("abc xyz")) == "abcxyz"


def test_a_plain_tokenizer_costs_about_once() -> None:
    """A positive number, finite."""
    assert 0 < text_ratio(tokenizer_json()) < 1000


def test_without_the_native_part_there_is_nothing_to_measure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the reason says so."""
    monkeypatch.setattr(native, "module", None)
    monkeypatch.setattr(native, "missing", "it is not built")

    with pytest.raises(EngineUnavailable, match="native: it is not built"):
        measure_calibration(current_profile())


@needs_native
def test_the_speed_is_seconds_of_a_product_and_of_a_step(tmp_path: Path) -> None:
    """Of a very small model; a step has more than one product in it."""
    assert native.module is not None
    gauge = SpeedGauge(native.module, tmp_path)

    best = gauge.best(2)

    gauge.close()
    assert 0 < best.product_s < 1
    assert best.product_s < best.step_s < 1


@pytest.mark.slow
@needs_native
def test_what_is_said_of_a_bundle_is_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size to the byte and memory within a tenth; times are said, and not judged here."""
    for name, seconds in (("_PRODUCT_S", 1e-4), ("_STREAM_S", 1e-3)):
        monkeypatch.setattr(measuring, name, seconds)
    monkeypatch.setattr(answers, "_ANSWERS_S", 1e-3)
    for module in (measuring, answers):
        monkeypatch.setattr(module, "_ROUNDS", 1)
    monkeypatch.setattr(measuring, "_STREAM_BYTES", (2**18, 2**24))
    monkeypatch.setattr(measuring, "_BANDWIDTH_BYTES", 2**24)
    monkeypatch.setattr(starting, "_RUNS", 1)
    sizes = Sizes(width=192, mlp_width=384, n_layers=3, n_heads=6, vocab_size=2048)
    bundle = make_bundle(sizes, tmp_path / "b", tokens=sizes.vocab_size)
    # A large one takes many seconds, and says the same.
    monkeypatch.setattr(measuring, "_LARGE", Sizes(n_layers=4))
    calibration = measure_calibration(current_profile())
    costs = DecoderCosts(
        sizes.decoder,
        current_profile(),
        other_bytes=(bundle.root / "tokenizer.json").stat().st_size,
        threads=1,
        calibration=calibration,
    )

    said = costs.whole(
        bundle.manifest.variants["sample"].matrices, prompt_tokens=64, generated_tokens=16
    )

    found = bench(
        bundle.root, engine="native", prompt_tokens=64, generated_tokens=16, threads=1, runs=1
    )
    assert said.size_bytes == found["size_bytes"].value
    peak = found["peak_memory_bytes"].value
    assert said.peak_memory_bytes == pytest.approx(peak, rel=0.1)
    assert not said.estimated
    assert all(value > 0 for value in said.figures().values())
