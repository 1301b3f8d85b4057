"""What a build may be asked for, its memory ceiling, its texts, and sources of third parties."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import DECODER, memory_model, sample_text, tokenizer_json

from onhand.core import plugins
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError, ResourceError, SourceError
from onhand.core.quantized import GroupFormat
from onhand.device.text import open_tokenizer
from onhand.host import sources
from onhand.host.memory import MemoryGuard
from onhand.host.model import Model
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize
from onhand.host.texts import cut_sequences, split_texts


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"transforms": {}}, "at least one variant"),
        ({"accuracy_level": 2}, "accuracy level is 2, must be 0, 1 or 4"),
        ({"threads": 0}, "threads is 0, must be 1 or more"),
        ({"threads": -1}, "threads is -1"),
        ({"max_ram": 0}, "the memory ceiling is 0 bytes"),
    ],
)
def test_options_outside_their_range_are_refused(change: dict[str, Any], reason: str) -> None:
    """Before a source is opened."""
    given: dict[str, Any] = {"transforms": {"int4": Quantize()}, **change}

    with pytest.raises(InputError, match=reason):
        BuildOptions(**given)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "magic"}, "method is 'magic', must be one of rtn, hqq, clip, awq"),
        ({"bits": 5}, "bits is 5"),
        ({"embed_bits": 7}, "bits is 7"),
        ({"group_size": 48}, "group_size is 48"),
        ({"layers": 4}, "layers is 4, must be like"),
        ({"layers": {"*.down": 8}}, "'.*down' is 8, must be like"),
        ({"layers": {"*.down": {"bits": 5}}}, "bits of '.*down' is 5, must be one of 2, 3, 4, 8"),
        ({"layers": {"*.down": {"bits": True}}}, "bits of '.*down' is True"),
        ({"layers": {"*.down": {"symmetric": 1}}}, "symmetric of '.*down' is 1"),
        ({"layers": {"*.down": {"group": 64}}}, "has 'group'; known: bits, group_size"),
        ({"distil": -1}, "distil is -1"),
    ],
)
def test_a_quantisation_that_is_not_there_is_refused(change: dict[str, Any], reason: str) -> None:
    """When it is asked for, not when a weight is reached."""
    with pytest.raises(InputError, match=reason):
        Quantize(**change)


def test_memory_over_the_ceiling_stops_the_work() -> None:
    """With what it took; without a ceiling nothing stops."""
    free = MemoryGuard(None)
    free.check("quantizing")
    assert free.peak_bytes > 10**6
    MemoryGuard(2**50).check("quantizing")

    with pytest.raises(ResourceError, match=r"quantizing took .*, --max-ram allows 1\.0 KiB"):
        MemoryGuard(1024).check("quantizing")


def tokenizer() -> Any:
    """The tiny model's."""
    return open_tokenizer(tokenizer_json(), where="tiny")


def test_the_two_parts_of_a_text_share_nothing(tmp_path: Path) -> None:
    """The beginning calibrates, the end is held out; together they are the text."""
    path = tmp_path / "lines.txt"
    path.write_text(sample_text(400), encoding="utf-8")
    whole = tokenizer().encode_plain(path.read_text(encoding="utf-8"))

    texts = split_texts(tokenizer(), path, DECODER, max_tokens=10**6)

    parts = [np.concatenate(part.sequences) for part in (texts.calibration, texts.heldout)]
    assert [part.size for part in parts] == [texts.calibration.n_tokens, texts.heldout.n_tokens]
    # A rest that is too short to judge by is left out at the end of each part.
    np.testing.assert_array_equal(parts[0], whole[: parts[0].size])
    assert 0.6 < texts.calibration.n_tokens / (parts[0].size + parts[1].size) < 0.8
    assert max(row.size for row in texts.heldout.sequences) <= DECODER.context
    assert texts.notes == ()
    assert str(tmp_path) not in str(texts.heldout.to_json())


def test_without_a_text_the_sample_is_used_and_it_is_said() -> None:
    """In the notes and in what the report says."""
    texts = split_texts(tokenizer(), None, DECODER, max_tokens=300)

    assert "no calibration text was given" in texts.notes[0]
    assert texts.calibration.what == "first 70 % of the built-in sample text"
    assert texts.calibration.n_tokens <= 300 + DECODER.context


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_too_short_to_judge_by_is_refused(text: str) -> None:
    """One token says nothing."""
    with pytest.raises(InputError, match="too few to judge anything by"):
        cut_sequences(tokenizer(), text, DECODER, what="the text", max_tokens=None)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    """Its tokens are not the model's."""
    small = Decoder(vocab_size=100, width=64, context=128, norm_epsilon=1e-5, layers=DECODER.layers)

    with pytest.raises(InputError, match="vocabulary is 100: they do not belong together"):
        cut_sequences(tokenizer(), sample_text(20), small, what="the text", max_tokens=None)


class ThirdSource:
    """A source of a third party: understands one word. See `Source`."""

    name = "third"

    def why_not(self, location: str) -> str | None:
        """Only the word."""
        return None if location == "the-word" else "is not the word"

    def load(self, location: str) -> Model:
        """A model in memory."""
        return memory_model()


@pytest.fixture
def with_source(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """A function that registers one more source."""

    def register(made: object) -> None:
        monkeypatch.setattr(sources, "plugin_names", lambda group: ["huggingface", "third"])
        monkeypatch.setattr(
            sources,
            "load_plugin",
            lambda group, name: made if name == "third" else plugins.load_plugin(group, name),
        )

    return register


def test_a_source_of_a_third_party_is_asked_too(with_source: Callable[[object], None]) -> None:
    """After ours has said why it does not understand; both reasons are given."""
    with_source(ThirdSource)

    assert sources.load_model("the-word").name == "tiny"
    with pytest.raises(SourceError, match=r"huggingface: .*; third: is not the word"):
        sources.load_model("another word")


def test_a_source_that_is_no_class_is_refused(with_source: Callable[[object], None]) -> None:
    """The name is given."""
    with_source(42)

    with pytest.raises(SourceError, match="source 'third' is not a class"):
        sources.load_model("the-word")


def test_some_matrices_get_other_bits() -> None:
    """The first pattern that fits counts, before the bits of all others."""
    made = Quantize(bits=3, embed_bits=8, layers={"layers.0.*": {"bits": 8}, "*.down": {"bits": 4}})

    formats = made.plan(DECODER).formats

    bits = {name: form.bits for name, form in formats.items() if form is not None}
    assert bits["embed"] == bits["layers.0.down"] == bits["layers.0.qkv"] == 8
    assert (bits["layers.1.down"], bits["layers.1.qkv"]) == (4, 3)


def test_a_matrix_may_have_a_format_of_its_own_or_stay_whole() -> None:
    """Group size and zero points as well as bits; 32 bits are float32, and the report says so."""
    other = {"bits": 2, "group_size": 128, "symmetric": False}
    made = Quantize(layers={"layers.0.down": other, "embed": {"bits": 32}})

    report = made.plan(DECODER)

    assert report.formats["layers.0.down"] == GroupFormat(bits=2, group_size=128, symmetric=False)
    assert report.formats["embed"] is None
    assert report.kept["embed"] == "float32, as was asked for"


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    """With the names that there are."""
    with pytest.raises(InputError, match=r"no matrix is called 'layer\..*layers\.\*\.qkv"):
        Quantize(layers={"layer.*": {"bits": 8}}).plan(DECODER)
