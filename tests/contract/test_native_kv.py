"""Keys and values in int8: all that holds for fp16 holds, but for a small error."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.contract.test_engine_answers import COARSE, relative
from tests.contract.test_native_attention import DECODERS, ROW
from tests.models import DECODER, memory_model, random_tensors

from onhand import native
from onhand.core.decoder import Decoder
from onhand.core.errors import EngineUnavailable, InputError
from onhand.core.progress import Quiet
from onhand.core.weights import open_weights
from onhand.device.engines.base import KvKind
from onhand.device.engines.native import NativeLoaded
from onhand.device.engines.reference import ReferenceEngine
from onhand.device.opening import open as open_session
from onhand.device.opening import open_engine
from onhand.host.calibrate import InputStatistics
from onhand.host.pack import pack_bundle, plan_variants
from onhand.host.passes.quantize import Quantize

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
SETS: list[str] = native.module.instruction_sets()
FORM = Quantize(method="rtn")


def opened(
    pack: Pack, decoder: Decoder, *, kv: KvKind = "int8", threads: int = 2, instructions: str = ""
) -> NativeLoaded:
    """The model, its memory in one kind."""
    weights = open_weights(pack(decoder, FORM, accuracy_level=4), "small")
    return NativeLoaded(weights, bytes(32), threads, kv=kv, instructions=instructions)


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_it_stays_near_the_reference(pack: Pack, decoder: Decoder, instructions: str) -> None:
    """Keys and values within half a step of 1/127 of a head's largest number."""
    plain = ReferenceEngine().open(
        pack(decoder, FORM, accuracy_level=4), variant="small", threads=1
    )
    loaded = opened(pack, decoder, instructions=instructions)

    found = loaded.score(loaded.session(), ROW)

    assert relative(found, plain.score(plain.session(), ROW)) < COARSE


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("name", ["heads that share a key head", "windows"])
def test_bits_do_not_depend_on_company(pack: Pack, name: str, instructions: str) -> None:
    """In pieces, beside others, after a fork, a rewind, and a state that was saved and loaded."""
    expected_of = opened(pack, DECODERS[name], instructions=instructions)
    expected = expected_of.score(expected_of.session(), ROW)
    loaded = opened(pack, DECODERS[name], threads=3, instructions=instructions)
    pieces, beside = loaded.session(), loaded.session()
    for start, end in ((0, 9), (9, 10), (10, 69), (69, 200)):
        batch = [(pieces, ROW[start:end]), (beside, ROW[: start % 11 + 1])]
        np.testing.assert_array_equal(loaded.step(batch)[0], expected[end - 1])

    fork, again = pieces.fork(), loaded.session()
    again.load_state(pieces.save_state())
    assert again.save_state() == pieces.save_state()
    fork.rewind(70)
    loaded.score(pieces, ROW[::-1])

    np.testing.assert_array_equal(loaded.score(fork, ROW[70:]), expected[70:])
    np.testing.assert_array_equal(loaded.score(again, ROW[200:]), expected[200:])


def test_large_numbers_in_few_places_cost_little(tmp_path: Path) -> None:
    """As of models whose keys have biases far above their other numbers."""
    decoder = replace(DECODER, qkv_bias=True, context=512)
    tensors = random_tensors({**decoder.matrices(), **decoder.vectors()}, seed=1)
    first_key = decoder.layers[0].query_width
    tensors["layers.0.qkv_bias"][first_key + 7 : first_key + 32 : 16] += 50.0
    bundle = pack_bundle(
        memory_model(decoder, tensors=tensors),
        plan_variants(decoder, {"small": FORM}),
        InputStatistics(),
        tmp_path,
        accuracy_level=4,
        provenance={},
        threads=1,
        progress=Quiet(),
    ).bundle
    weights = open_weights(bundle, "small")

    few, many = (NativeLoaded(weights, b"", 1, kv=kv) for kv in ("fp16", "int8"))

    found = many.score(many.session(), ROW[:64])
    assert relative(found, few.score(few.session(), ROW[:64])) < COARSE


def test_a_state_names_its_kind_and_takes_its_room(pack: Pack) -> None:
    """One byte for a number and four for a scale, or two bytes; one kind is not the other."""
    kinds: tuple[KvKind, ...] = ("fp16", "int8")
    states = {}
    for kv in kinds:
        loaded = opened(pack, DECODER, kv=kv)
        session = loaded.session()
        loaded.step([(session, ROW[:100])])
        states[kv] = session.save_state()
    heads = 2 * 2 * 100 * DECODER.layers[0].n_kv_heads  # layers, keys and values, tokens, heads
    head_bytes = len(states["fp16"]) - heads * 2 * 16

    assert len(states["int8"]) == head_bytes + heads * (16 + 4)
    for kv, state in zip(kinds, reversed(states.values()), strict=True):
        with pytest.raises(InputError, match="of another bundle, variant, engine or adapter"):
            opened(pack, DECODER, kv=kv).session().load_state(state)


@pytest.mark.parametrize("size", [1, 5, 4000])
def test_attack_damaged_states(pack: Pack, size: int) -> None:
    """A state that lost its end is refused, and the session stays as it was."""
    loaded = opened(pack, DECODER)
    session = loaded.session()
    loaded.step([(session, ROW[:100])])
    state = session.save_state()

    for damaged in (state[:-size], state + bytes(size), state[:-4] + b"\x00\x00\xc0\x7f"):
        with pytest.raises(InputError, match="saved state is damaged"):
            session.load_state(damaged)

    assert session.save_state() == state


def test_attack_parts_of_another_kind(pack: Pack) -> None:
    """The native part checks types and shapes."""
    conversation = opened(pack, DECODER).inner.conversation(None)
    parts = opened(pack, DECODER, kv="fp16").inner.conversation(None).state()

    with pytest.raises(ValueError, match="another number of parts"):
        conversation.load(parts, 0)
    with pytest.raises(ValueError, match="another type"):
        conversation.load([*parts, *parts], 0)
    with pytest.raises(ValueError, match="another shape"):
        conversation.load(conversation.state(), 1)
    with pytest.raises(ValueError, match="0 or more"):
        conversation.load(conversation.state(), -1)


def test_the_front_door_finds_an_engine_that_can(pack: Pack) -> None:
    """The others say why not."""
    bundle = pack(accuracy_level=4)

    loaded, name, passed_over = open_engine(
        bundle, variant="small", engine=None, threads=1, kv="int8"
    )
    loaded.close()

    assert name == "native"
    assert set(passed_over.values()) <= {"it does not keep keys and values as int8"}
    with open_session(bundle.root, kv="int8", threads=1) as session:
        assert session.engine_name == "native"
    with pytest.raises(EngineUnavailable, match="reference: it does not keep keys and values as"):
        open_engine(bundle, variant="small", engine="reference", threads=1, kv="fp16")


def test_an_unknown_kind_is_named(pack: Pack) -> None:
    """Before any engine is asked."""
    with pytest.raises(InputError, match="kv is 'int4', must be one of fp16, int8"):
        open_session(pack().root, kv="int4")  # type: ignore[arg-type] # what a user may write
