"""Prompts in bf16: near the reference, and nothing else changes."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.contract.test_engine_adapters import make_adapter
from tests.contract.test_engine_answers import DECODERS, relative
from tests.models import DECODER, VOCAB, varied_decoder

from onhand import native
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import EngineUnavailable, InputError
from onhand.core.quantized import GroupFormat
from onhand.core.weights import open_weights
from onhand.device.engines.base import Bf16Prefill, KvKind
from onhand.device.engines.choosing import use_prefill
from onhand.device.engines.native import NativeLoaded
from onhand.device.engines.reference import ReferenceEngine
from onhand.device.opening import open as open_session
from onhand.device.opening import open_engine, open_model
from onhand.host.passes.quantize import Quantize

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
SETS: list[str] = native.module.instruction_sets()
needs_tiles = pytest.mark.skipif(
    "amx" not in SETS, reason="this processor has no tile instructions for bf16"
)
# A number in bf16 is off by 0.2 % at most, and a layer's products together by less than half a
# percent of what they give; the rest is of the head, whose inputs are int8.
NEAR = 0.02
ROW = np.random.default_rng(7).integers(0, VOCAB, 320)
PROMPT = ROW[:100]
INT4 = Quantize(method="rtn")
# Widths that fill no group and no step of 32, biases, and matrices of two factors.
FACTORS = replace(
    varied_decoder(), ranks={"layers.0.out": 1, "layers.0.down": 20, "layers.1.gate_up": 80}
)


def load(
    bundle: Bundle, *, threads: int = 2, instructions: str = "", kv: KvKind = "fp16"
) -> NativeLoaded:
    """Opened as by default: exact."""
    weights = open_weights(bundle, "small")
    return NativeLoaded(weights, bytes(32), threads, instructions=instructions, kv=kv)


def load_bf16(bundle: Bundle, *, threads: int = 2, kv: KvKind = "fp16") -> NativeLoaded:
    """Opened for prompts in bf16."""
    loaded = load(bundle, threads=threads, kv=kv)
    loaded.use_bf16_prefill()
    return loaded


def packed(pack: Pack, decoder: Decoder = FACTORS, form: Quantize = INT4) -> Bundle:
    return pack(decoder, form, accuracy_level=4)


def expected(bundle: Bundle, row: np.ndarray = PROMPT, **given: Any) -> FloatArray:
    """Scores of the reference engine."""
    plain = ReferenceEngine().open(bundle, variant="small", threads=1, **given)
    return plain.score(plain.session(), row)


def forms(bits: int) -> Iterator[Quantize]:
    """Every group size, with zero points and without."""
    for group_size, symmetric in product(GroupFormat.GROUP_SIZES, (True, False)):
        yield Quantize(bits=bits, group_size=group_size, symmetric=symmetric, method="rtn")


@needs_tiles
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_prompts_in_every_form_are_nearer_than_in_int8(pack: Pack, bits: int) -> None:
    """The exact way rounds inputs to int8, which is coarser; it is exact in its bits only."""
    for form in forms(bits):
        bundle = packed(pack, FACTORS, form)
        exact, bf16 = load(bundle), load_bf16(bundle)

        plain = expected(bundle)
        scores = bf16.score(bf16.session(), PROMPT)

        assert relative(scores, plain) < NEAR
        assert relative(scores, plain) < relative(exact.score(exact.session(), PROMPT), plain)


@needs_tiles
@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("n", [32, 33, 47, 100])
def test_prompts_of_every_decoder(pack: Pack, decoder: Decoder, n: int) -> None:
    """Of whole blocks of rows, and of others."""
    bundle = packed(pack, decoder)
    loaded = load_bf16(bundle)

    assert relative(loaded.score(loaded.session(), ROW[:n]), expected(bundle, ROW[:n])) < NEAR


@needs_tiles
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_long_prompts_with_any_number_of_threads(pack: Pack, threads: int) -> None:
    """Of more rows than are computed at once; threads share outputs, which changes no bit."""
    bundle = packed(pack, replace(FACTORS, context=320))
    one, several = load_bf16(bundle, threads=1), load_bf16(bundle, threads=threads)

    found = several.score(several.session(), ROW)

    np.testing.assert_array_equal(found, one.score(one.session(), ROW))
    assert relative(found, expected(bundle, ROW)) < NEAR


@needs_tiles
def test_small_steps_are_the_same_bits(pack: Pack) -> None:
    """Prompts of less than 32 tokens, single tokens, and the head, whatever came before."""
    bundle = packed(pack)
    exact, bf16 = load(bundle), load_bf16(bundle)
    short, same = bf16.session(), exact.session()
    np.testing.assert_array_equal(bf16.score(short, ROW[:31]), exact.score(same, ROW[:31]))

    long, taken = bf16.session(), exact.session()
    bf16.step([(long, PROMPT)])
    taken.load_state(long.save_state())

    for one, other in ((short, same), (long, taken)):
        for part in (ROW[100:101], ROW[101:109], ROW[109:110]):
            np.testing.assert_array_equal(bf16.score(one, part), exact.score(other, part))


@needs_tiles
def test_a_prompt_is_kept_as_any_other(pack: Pack) -> None:
    """After a fork, a rewind, and a state that was saved and loaded the same bits follow."""
    bundle = packed(pack)
    loaded = load_bf16(bundle)
    session, again = loaded.session(), loaded.session()
    scores = loaded.score(session, PROMPT)
    fork = session.fork()
    again.load_state(session.save_state())
    for one in (session, fork, again):
        one.rewind(60)
    after = [loaded.score(one, ROW[60:85]) for one in (session, fork, again)]
    session.rewind(0)

    np.testing.assert_array_equal(after[0], after[1])
    np.testing.assert_array_equal(after[0], after[2])
    assert relative(after[0], expected(bundle)[60:85]) < NEAR
    assert again.length == 85
    np.testing.assert_array_equal(loaded.score(session, PROMPT), scores)


@needs_tiles
def test_conversations_share_a_step(pack: Pack) -> None:
    """A prompt beside short ones, and 40 conversations of a token each."""
    bundle = packed(pack)
    loaded = load_bf16(bundle)
    beside = [loaded.session() for _ in range(40)]
    parts = [ROW[i : i + 3 + i % 3] for i in range(40)]
    plain = [expected(bundle, np.append(part, 7)) for part in parts]

    prompt = loaded.step([(loaded.session(), PROMPT), *zip(beside, parts, strict=True)])
    token = loaded.step([(session, np.array([7])) for session in beside])

    assert relative(prompt[0], expected(bundle)[-1]) < NEAR
    assert relative(prompt[1:], np.stack([scores[-2] for scores in plain])) < NEAR
    assert relative(token, np.stack([scores[-1] for scores in plain])) < NEAR


@needs_tiles
def test_adapters_add_to_prompts(pack: Pack, tmp_path: Path) -> None:
    """One of all matrices, one of some and none share a step; one comes after the choice."""
    bundle = packed(pack)
    ends = {"all": ("",), "some": ("down_proj", "1.self_attn.k_proj")}
    adapters = {name: make_adapter(tmp_path / name, FACTORS, end) for name, end in ends.items()}
    loaded = load(bundle)
    loaded.add_adapter("all", adapters["all"])
    loaded.use_bf16_prefill()
    loaded.add_adapter("some", adapters["some"])
    names = ("all", None, "some")

    found = loaded.step([(loaded.session(adapter=name), PROMPT) for name in names])

    for name, scores in zip(names, found, strict=True):
        given = None if name is None else adapters[name]
        assert relative(scores, expected(bundle, adapter=given)[-1]) < NEAR


@needs_tiles
def test_the_likeliest_token_stays_where_it_is_well_ahead(pack: Pack) -> None:
    """By a third of what logits spread by: over ten times what bf16 moves them by."""
    bundle = packed(pack, replace(DECODER, context=256))
    row = ROW[:256]
    plain = expected(bundle, row)
    second, first = np.partition(plain, -2)[:, -2:].T
    ahead = first - second > plain.std() / 3
    loaded = load_bf16(bundle)

    likeliest = loaded.score(loaded.session(), row).argmax(axis=1)

    assert ahead.sum() > 30
    np.testing.assert_array_equal(likeliest[ahead], plain.argmax(axis=1)[ahead])


@needs_tiles
def test_it_goes_with_the_other_options(pack: Pack) -> None:
    """Keys and values in int8, and a head of two stages; from the front door."""
    bundle = packed(pack)
    loaded = load_bf16(bundle, kv="int8")
    ways: dict[str, Any] = {"kv": "int8", "head": "two-stage", "prefill": "bf16", "threads": 1}

    assert relative(loaded.score(loaded.session(), PROMPT), expected(bundle)) < 2 * NEAR
    with open_session(bundle.root, **ways) as session:
        assert session.engine_name == "native"
    with open_model(bundle.root, **ways) as model:
        assert model.engine_name == "native"


@needs_tiles
def test_an_engine_without_it_is_passed_over(pack: Pack) -> None:
    """The first that has it is taken, and why not those before it is said."""
    bundle = pack(accuracy_level=4)
    wanted: dict[str, Any] = {"variant": "small", "threads": 1, "prefill": "bf16"}

    loaded, name, _ = open_engine(bundle, engine=None, **wanted)

    assert isinstance(loaded, Bf16Prefill)
    assert name == "native"
    loaded.close()
    for other in ("onnx", "reference"):
        with pytest.raises(EngineUnavailable, match=f"{other} has no prefill in bf16; native has"):
            open_engine(bundle, engine=other, **wanted)
    with pytest.raises(InputError, match="prefill is 'fp8', must be 'exact' or 'bf16'"):
        open_engine(bundle, engine="native", **(wanted | {"prefill": "fp8"}))


@pytest.mark.parametrize("instructions", [name for name in SETS if name != "amx"])
def test_processors_without_tiles_refuse_it(pack: Pack, instructions: str) -> None:
    """In one sentence; the weights are closed then."""
    loaded = load(packed(pack), instructions=instructions)
    why = r"^native: this processor has no tile instructions for bf16 \(AMX\); leave prefill exact$"

    with pytest.raises(EngineUnavailable, match=why):
        use_prefill(loaded, "bf16", engine_name="native")

    assert loaded.closed
    with pytest.raises(InputError, match="the model is closed"):
        loaded.use_bf16_prefill()


def test_engines_without_it_refuse_it(pack: Pack) -> None:
    """With the engine that has it; what is exact is refused nowhere."""
    loaded = ReferenceEngine().open(pack(), variant="small", threads=1)

    use_prefill(loaded, "exact", engine_name="reference")
    with pytest.raises(EngineUnavailable, match="reference has no prefill in bf16; native has one"):
        use_prefill(loaded, "bf16", engine_name="reference")
