"""Statistics of a matrix's inputs, and one layer in memory at a time."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.models import DECODER, MemoryWeights, memory_model, random_tensors, varied_decoder

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.decoder import Decoder
from onhand.core.errors import ResourceError, SourceError
from onhand.core.progress import Quiet
from onhand.device.engines import forward
from onhand.host.calibrate import InputStatistics, head_logits, run_original
from onhand.host.model import Model


def sequences(*lengths: int) -> list[TokenArray]:
    """Random tokens of these lengths."""
    random = np.random.default_rng(2)
    return [random.integers(0, DECODER.vocab_size, n) for n in lengths]


def inputs_of(model: Model, calibration: Sequence[TokenArray]) -> dict[str, FloatArray]:
    """Every matrix's inputs, of all sequences behind each other, from plain forward passes."""
    seen: dict[str, list[FloatArray]] = {}
    decoder = model.decoder

    def observe(name: str, inputs: FloatArray) -> None:
        seen.setdefault(name, []).append(inputs.copy())

    for tokens in calibration:
        x = forward.embed(model.weights, tokens)
        for i, layer in enumerate(decoder.layers):
            x = forward.run_layer(
                model.weights,
                i,
                x,
                forward.LayerMemory.empty(layer, tokens.size),
                start=0,
                rope=decoder.rope.tables(layer.head_dim, tokens.size),
                observe=observe,
            )
        head = "embed" if decoder.tied else "head"
        hidden = forward.final_hidden(model.weights, x)
        forward.multiply(model.weights, head, hidden, observe=observe)
    return {name: np.concatenate(parts) for name, parts in seen.items()}


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize(
    "decoder",
    [
        DECODER,
        varied_decoder(),
        replace(varied_decoder(), ranks={"layers.1.down": 20, "head": 33}),
    ],
    ids=["tied", "varied", "factors"],
)
def test_moments_are_those_of_the_inputs(decoder: Decoder, group_size: int) -> None:
    """X^T X over tokens, block by block, padded with zeros: by brute force."""
    model, texts = memory_model(decoder), sequences(20, 7)
    run = run_original(model, calibration=texts, heldout=sequences(5), progress=Quiet())

    expected = inputs_of(model, texts)

    assert set(run.statistics.products) == set(expected)
    for name, x in expected.items():
        k = x.shape[1]
        groups = -(-k // group_size)
        found = run.statistics.moments(name, group_size, k)
        assert found is not None
        assert found.shape == (groups, group_size, group_size)
        for number in range(groups):
            part = x[:, number * group_size : (number + 1) * group_size]
            block = np.zeros((group_size, group_size))
            block[: part.shape[1], : part.shape[1]] = part.T.astype(np.float64) @ part / len(x)
            np.testing.assert_allclose(found[number], block, atol=1e-5 * np.abs(block).max())


def test_what_was_not_observed_has_no_moments() -> None:
    """An embedding with a head of its own is only looked up; and no text gives no moments."""
    model = memory_model(replace(DECODER, tied=False))
    run = run_original(model, calibration=sequences(5), heldout=[], progress=Quiet())
    silent = run_original(model, calibration=[], heldout=sequences(5), progress=Quiet())

    assert run.statistics.moments("embed", 32, 64) is None
    assert run.statistics.moments("head", 32, 64) is not None
    assert silent.statistics.moments("head", 32, 64) is None
    assert silent.statistics.n_tokens == 0
    assert run.hidden == []


def test_observing_twice_adds_up() -> None:
    """Token by token or at once."""
    x = np.random.default_rng(0).standard_normal((9, 40)).astype(np.float32)
    at_once, in_parts = InputStatistics(n_tokens=9), InputStatistics(n_tokens=9)
    at_once.observe("a", x)
    for row in x:
        in_parts.observe("a", row[None])

    found, expected = (s.moments("a", 32, 40) for s in (in_parts, at_once))

    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_head_in_blocks_is_the_head() -> None:
    """Tied or not."""
    for decoder in (DECODER, replace(DECODER, tied=False)):
        model = memory_model(decoder)
        hidden = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)

        found = head_logits(model)(hidden)

        np.testing.assert_allclose(found, forward.logits(model.weights, hidden), rtol=1e-6)


def test_one_layer_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix is read once for all sequences, and never again after the next layer begins."""
    reads: list[str] = []

    def watched(weights: MemoryWeights, name: str) -> FloatArray:
        reads.append(name)
        return weights.tensors[name]

    monkeypatch.setattr(MemoryWeights, "matrix", watched)
    model = memory_model()

    run_original(model, calibration=sequences(5, 6), heldout=sequences(7), progress=Quiet())

    parts = ("qkv", "out", "gate_up", "down")
    assert reads == [f"layers.{i}.{part}" for i in (0, 1) for part in parts]


def test_numbers_that_overflow_are_refused() -> None:
    """Every weight is finite, and the model is of no use all the same."""
    tensors = random_tensors({**DECODER.matrices(), **DECODER.vectors()})
    tensors["layers.1.down"] = np.full_like(tensors["layers.1.down"], 3e38)

    with pytest.raises(SourceError, match="layer 1 gives a NaN or an infinity"):
        run_original(
            memory_model(tensors=tensors), calibration=sequences(5), heldout=[], progress=Quiet()
        )


@pytest.mark.parametrize("decoder", [DECODER, varied_decoder()], ids=["tied", "varied"])
def test_whole_moments_are_those_of_all_pairs(decoder: Decoder) -> None:
    """X^T X over tokens by brute force; the groups' moments are its blocks."""
    model, texts = memory_model(decoder), sequences(20, 7)

    run = run_original(model, calibration=texts, heldout=[], progress=Quiet(), whole=True)
    grouped = run_original(model, calibration=texts, heldout=[], progress=Quiet())

    for name, x in inputs_of(model, texts).items():
        expected = x.T.astype(np.float64) @ x / len(x)
        found = run.statistics.second_moments(name)
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
        blocks, others = (one.statistics.moments(name, 32, x.shape[1]) for one in (run, grouped))
        assert blocks is not None
        assert others is not None
        np.testing.assert_allclose(blocks, others, atol=1e-5 * np.abs(expected).max())
        assert grouped.statistics.second_moments(name) is None


def test_moments_in_a_folder_are_those_in_memory(tmp_path: Path) -> None:
    """A file for each matrix, nothing half-written."""
    model, texts = memory_model(), sequences(20, 7)

    kept = run_original(
        model, calibration=texts, heldout=[], progress=Quiet(), whole=True, folder=tmp_path
    )
    plain = run_original(model, calibration=texts, heldout=[], progress=Quiet(), whole=True)

    for name in plain.statistics.products:
        assert isinstance(kept.statistics.products[name], Path)
        found, expected = (one.statistics.second_moments(name) for one in (kept, plain))
        np.testing.assert_array_equal(found, expected)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".npz"}


def test_moments_that_were_cut_off_meanwhile_are_told(tmp_path: Path) -> None:
    """The file is named."""
    model, texts = memory_model(), sequences(20, 7)
    run = run_original(
        model, calibration=texts, heldout=[], progress=Quiet(), whole=True, folder=tmp_path
    )
    place = tmp_path / "layers.0.qkv.npy"
    place.write_bytes(place.read_bytes()[:-8])

    with pytest.raises(ResourceError, match=re.escape(str(place))):
        run.statistics.second_moments("layers.0.qkv")
