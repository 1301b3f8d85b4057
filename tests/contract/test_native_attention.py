"""Attention of the native engine: every shape of heads, windows, caps and positions."""

from dataclasses import replace

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.contract.test_engine_answers import COARSE, relative
from tests.models import DECODER, VOCAB

from onhand import native
from onhand.core.arrays import FloatArray
from onhand.core.decoder import Decoder, DecoderLayer, Rope
from onhand.core.weights import open_weights
from onhand.device.engines.native import NativeLoaded
from onhand.device.engines.reference import ReferenceEngine
from onhand.device.engines.rotary_blocks import RotaryBlocks
from onhand.host.passes.quantize import Quantize

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
SETS: list[str] = native.module.instruction_sets()
ROW = np.random.default_rng(7).integers(0, VOCAB, 300)
FORM = Quantize(method="rtn")
MANY = DecoderLayer(n_heads=7, n_kv_heads=1, head_dim=48, mlp_width=64)
NEAR = DecoderLayer(n_heads=3, n_kv_heads=3, head_dim=20, mlp_width=64, window=70)
NEARER = DecoderLayer(n_heads=4, n_kv_heads=2, head_dim=32, mlp_width=64, window=5)
LONG = Rope(
    scaling="longrope",
    factor=4.0,
    original_context=64,
    short_factors=(1.0,) * 8,
    long_factors=tuple(1.0 + i for i in range(8)),
)
DECODERS = {
    "heads that share a key head": replace(DECODER, context=512, layers=(MANY, MANY)),
    "windows": replace(DECODER, context=512, layers=(NEAR, NEARER)),
    "capped scores": replace(DECODER, context=512, attention_softcap=2.0),
    "capped scores in windows": replace(
        DECODER, context=512, layers=(NEARER, NEAR), attention_softcap=5.0
    ),
    "positions that change with the length": replace(DECODER, context=512, rope=LONG),
}


def opened(pack: Pack, decoder: Decoder, *, threads: int = 2, instructions: str) -> NativeLoaded:
    """The model in one instruction set."""
    weights = open_weights(pack(decoder, FORM, accuracy_level=4), "small")
    return NativeLoaded(weights, b"", threads, instructions=instructions)


def whole(loaded: NativeLoaded) -> FloatArray:
    """Scores after every token of a row that is fed at once."""
    return loaded.score(loaded.session(), ROW)


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_it_attends_as_the_reference_does(pack: Pack, decoder: Decoder, instructions: str) -> None:
    """Over several pages, from the first token on."""
    bundle = pack(decoder, FORM, accuracy_level=4)
    plain = ReferenceEngine().open(bundle, variant="small", threads=1)

    found = whole(opened(pack, decoder, instructions=instructions))

    assert relative(found, plain.score(plain.session(), ROW)) < COARSE


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("name", [name for name in DECODERS if "length" not in name])
def test_company_changes_no_bit(pack: Pack, name: str, instructions: str) -> None:
    """Rows that attend together, and a row alone with one thread: the same scores."""
    decoder = DECODERS[name]
    expected = whole(opened(pack, decoder, instructions=instructions))
    for threads in (1, 3):
        loaded = opened(pack, decoder, threads=threads, instructions=instructions)
        pieces, beside = loaded.session(), loaded.session()
        for start, end in ((0, 9), (9, 10), (10, 61), (61, 69), (69, 130), (130, 131), (131, 300)):
            batch = [(pieces, ROW[start:end]), (beside, ROW[: start % 11 + 1])]
            np.testing.assert_array_equal(loaded.step(batch)[0], expected[end - 1])


@pytest.mark.parametrize("instructions", SETS)
def test_long_positions_are_those_of_the_reference(pack: Pack, instructions: str) -> None:
    """The whole of what is fed decides, as in the reference: a prompt, and then token by token."""
    decoder = DECODERS["positions that change with the length"]
    loaded = opened(pack, decoder, instructions=instructions)
    plain = ReferenceEngine().open(
        pack(decoder, FORM, accuracy_level=4), variant="small", threads=1
    )
    mine, theirs = loaded.session(), plain.session()

    for start, end in ((0, 60), (60, 64), (64, 65), (65, 90)):
        found = loaded.step([(mine, ROW[start:end])])
        assert relative(found, plain.step([(theirs, ROW[start:end])])) < COARSE


def test_long_and_short_conversations_in_one_step(pack: Pack) -> None:
    """Each turns by its own tables."""
    loaded = opened(pack, DECODERS["positions that change with the length"], instructions="")
    long, short = loaded.session(), loaded.session()

    both = loaded.step([(long, ROW[:65]), (short, ROW[:64])])

    np.testing.assert_array_equal(both[0], loaded.step([(loaded.session(), ROW[:65])])[0])
    np.testing.assert_array_equal(both[1], loaded.step([(loaded.session(), ROW[:64])])[0])


@pytest.mark.parametrize("rope", [Rope(), Rope(share=0.5, theta=1e6), LONG], ids=repr)
def test_tables_grow_by_blocks_of_the_same_numbers(rope: Rope) -> None:
    """However a conversation grows, they are those of the whole context; nothing is made before."""
    decoder = replace(DECODER, context=2**17, rope=rope)
    parts: dict[int, list[FloatArray]] = {}
    tables = RotaryBlocks(
        decoder, block=100, add=lambda number, part: parts.setdefault(number, []).append(part)
    )
    assert not parts

    for length in (1, 100, 101, 99, 64, 512, 2**17):
        tables.reach(length)

    layer = tables.layers[0]
    cosines, sines = rope.tables(16, 2**17, long=rope.scaling == "longrope")
    grown = np.concatenate(parts[max(layer.plain, layer.stretched)])[: 2**17]
    np.testing.assert_array_equal(grown, np.concatenate([cosines, sines], axis=1))
    assert layer.limit == (64 if rope is LONG else 0)
    assert [table.shape[1] // 2 for (table, *_) in parts.values()] == tables.halves


def test_attack_positions_that_are_not_there(pack: Pack) -> None:
    """The native part asks for tables of their size, and never reads beyond."""
    loaded = opened(pack, DECODER, instructions="")
    conversation = loaded.inner.conversation(None)

    with pytest.raises(ValueError, match="rotary positions are missing"):
        loaded.inner.step([conversation], [np.array([1])], False)
    with pytest.raises(ValueError, match="another shape"):
        loaded.inner.extend(0, np.zeros((3, 16), np.float32))
    with pytest.raises(ValueError, match="no such rotary table"):
        loaded.inner.extend(1, np.zeros((1024, 16), np.float32))
