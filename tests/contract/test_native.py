"""What the native engine promises beyond the others: the same bits whatever is computed beside."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.conftest import Pack
from tests.contract.test_engine_answers import COARSE, DECODERS, FORMS, relative
from tests.models import DECODER, VOCAB, varied_decoder

from onhand import native
from onhand.core.adapter import Adapter
from onhand.core.quantized import GroupFormat
from onhand.core.weights import open_weights
from onhand.device.engines.native import NativeEngine, NativeLoaded
from onhand.device.engines.reference import ReferenceEngine
from onhand.device.probe import current_profile
from onhand.host.passes.quantize import Quantize

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
SETS: list[str] = native.module.instruction_sets()
ROW = np.random.default_rng(7).integers(0, VOCAB, 200)
LONG = replace(varied_decoder(), context=256)


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("form", [form for form in FORMS.values() if form is not None], ids=repr)
def test_every_instruction_set_answers_alike(pack: Pack, instructions: str, form: Quantize) -> None:
    """Whole numbers are exact everywhere; sums of floats differ in their last bits."""
    bundle = pack(replace(DECODER, width=80), form, accuracy_level=4)
    weights = open_weights(bundle, "small")

    found = NativeLoaded(weights, b"", 1, instructions=instructions)
    expected = NativeLoaded(weights, b"", 1, instructions="portable")

    scores = found.score(found.session(), ROW[:40])
    assert relative(scores, expected.score(expected.session(), ROW[:40])) < 0.02
    plain = ReferenceEngine().open(bundle, variant="small", threads=1)
    assert relative(scores, plain.score(plain.session(), ROW[:40])) < COARSE


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_answer_is_the_same_bits_however_it_is_computed(
    pack: Pack, instructions: str, threads: int
) -> None:
    """In one piece, in pieces of any size, beside other conversations, after a fork or a rewind."""
    bundle = pack(LONG, Quantize(method="rtn"), accuracy_level=4)
    loaded = NativeLoaded(open_weights(bundle, "small"), b"", threads, instructions=instructions)
    expected = loaded.score(loaded.session(), ROW)

    pieces, beside = loaded.session(), [loaded.session() for _ in range(3)]
    for start, end in ((0, 1), (1, 3), (3, 16), (16, 30), (30, 94), (94, 200)):
        batch = [(pieces, ROW[start:end]), *((one, ROW[: start % 7 + 1]) for one in beside)]
        np.testing.assert_array_equal(loaded.step(batch)[0], expected[end - 1])
    fork = pieces.fork()
    fork.rewind(70)
    np.testing.assert_array_equal(loaded.score(fork, ROW[70:]), expected[70:])
    pieces.rewind(199)
    np.testing.assert_array_equal(loaded.step([(pieces, ROW[199:])])[0], expected[199])


@settings(max_examples=30, deadline=None)
@given(
    bits=st.sampled_from(GroupFormat.BITS),
    group=st.sampled_from(GroupFormat.GROUP_SIZES),
    symmetric=st.booleans(),
    n=st.integers(1, 40),
    k=st.integers(1, 300),
    what=st.sampled_from(["codes", "scales", "zeros"]),
)
def test_attack_arrays_of_another_size(
    bits: int, group: int, symmetric: bool, n: int, k: int, what: str
) -> None:
    """The native part checks what it is given before it reads a byte."""
    form = GroupFormat(bits=bits, group_size=group, symmetric=symmetric)
    arrays: dict[str, Any] = {
        "codes": np.zeros(form.code_shape((n, k)), np.uint8),
        "scales": np.zeros((n, form.n_groups(k)), np.uint16),
        "zeros": None if symmetric else np.zeros(form.zero_shape((n, k)), np.uint8),
    }
    numbers = {"bits": bits, "group": group, "n_rows": n, "n_inputs": k}
    assert native.module is not None
    native.module.Matrix(**numbers, **arrays)
    if arrays[what] is None:
        return

    arrays[what] = arrays[what][:-1]

    with pytest.raises((ValueError, TypeError)):
        native.module.Matrix(**numbers, **arrays)


@pytest.mark.parametrize(("bits", "group"), [(5, 32), (0, 32), (4, 16), (4, 0), (-4, 32)])
def test_attack_formats_that_do_not_exist(bits: int, group: int) -> None:
    """Before their sizes are computed."""
    assert native.module is not None
    with pytest.raises(ValueError, match="must be"):
        native.module.Matrix(
            bits=bits,
            group=group,
            n_rows=1,
            n_inputs=32,
            codes=np.zeros(16, np.uint8),
            scales=np.zeros((1, 1), np.uint16),
            zeros=None,
        )


def test_an_unknown_instruction_set_is_named(pack: Pack) -> None:
    """It can be forced, if the processor has it."""
    weights = open_weights(pack(), "small")

    with pytest.raises(ValueError, match="no instruction set sse9"):
        NativeLoaded(weights, b"", 1, instructions="sse9")


def test_why_not(pack: Pack, tmp_path: Path) -> None:
    """What it does not run, in words."""
    engine, profile = NativeEngine(), current_profile()

    plain = engine.why_not(pack(DECODER, None), profile, variant="original")
    exact = engine.why_not(pack(), profile, variant="small")
    able = engine.why_not(pack(accuracy_level=4), profile, variant="small")

    assert plain is not None
    assert "embed is not quantised" in plain
    assert exact is not None
    assert "accuracy level 0" in exact
    assert able is None


def test_without_its_native_part_it_says_so(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no compiler was when onhand was installed."""
    monkeypatch.setattr(native, "module", None)
    monkeypatch.setattr(native, "missing", "it was not built")

    why = NativeEngine().why_not(pack(accuracy_level=4), current_profile(), variant="small")

    assert why == "it was not built"


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_with_an_adapter_of_nothing(pack: Pack, name: str) -> None:
    """Factors of zero change no bit."""
    decoder = DECODERS[name]
    bundle = pack(decoder, Quantize(method="rtn"), accuracy_level=4)
    weights = open_weights(bundle, "small")
    pairs = {
        matrix: (np.zeros((2, shape[1]), np.float32), np.zeros((shape[0], 2), np.float32))
        for matrix, shape in replace(decoder, tied=False).whole_tensors().items()
        if len(shape) == 2 and matrix not in {"embed", "positions"}
    }
    adapter = Adapter(pairs=pairs, sha256="0" * 64)

    with_it = NativeLoaded(weights, b"", 1, adapter=adapter)
    without = NativeLoaded(weights, b"", 1)

    np.testing.assert_array_equal(
        with_it.score(with_it.session(), ROW[:20]), without.score(without.session(), ROW[:20])
    )
