"""Several adapters at once in the native engine: sessions choose, and share a step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.contract.test_engine_adapters import make_adapter
from tests.contract.test_engine_answers import COARSE, relative
from tests.models import DECODER, VOCAB, varied_decoder

from onhand import native
from onhand.core.adapter import Adapter
from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.weights import open_weights
from onhand.device.engines.base import as_adapting
from onhand.device.engines.native import NativeEngine, NativeLoaded
from onhand.device.engines.reference import ReferenceEngine
from onhand.host.passes.quantize import Quantize

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
SETS: list[str] = native.module.instruction_sets()
ROW = np.random.default_rng(3).integers(0, VOCAB, 40)
FACTORS = replace(varied_decoder(), ranks={"layers.0.down": 20, "layers.1.qkv": 31})


@pytest.fixture
def bundle(pack: Pack) -> Bundle:
    """Layers that differ, biases, and matrices of two factors."""
    return pack(FACTORS, Quantize(method="rtn"), accuracy_level=4)


@pytest.fixture
def adapters(tmp_path: Path) -> dict[str, Adapter]:
    """One of all matrices, one of some."""
    return {
        "all": make_adapter(tmp_path / "all", FACTORS),
        "some": make_adapter(tmp_path / "some", FACTORS, ("down_proj", "1.self_attn.k_proj")),
    }


def loaded_with(
    bundle: Bundle, adapters: dict[str, Adapter], *, threads: int = 2, instructions: str = ""
) -> NativeLoaded:
    """The bundle, and adapters that sessions may choose."""
    loaded = NativeLoaded(open_weights(bundle, "small"), b"", threads, instructions=instructions)
    for name, adapter in adapters.items():
        loaded.add_adapter(name, adapter)
    return loaded


def test_an_empty_adapter_is_the_model_itself(bundle: Bundle, adapters: dict[str, Adapter]) -> None:
    """To the bit: what a device learned is taken back so, while the model answers."""
    weights = open_weights(bundle, "small")
    loaded = NativeLoaded(weights, b"", 1, adapter=adapters["all"])
    loaded.add_adapter("nothing", Adapter(pairs={}, sha256="0" * 64))
    plain = loaded_with(bundle, {}, threads=1)

    found = loaded.score(loaded.session(adapter="nothing"), ROW)

    np.testing.assert_array_equal(found, plain.score(plain.session(), ROW))


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_rows_of_several_adapters_share_a_step(
    bundle: Bundle, adapters: dict[str, Adapter], instructions: str, threads: int
) -> None:
    """Each has the bits that it has alone, with other threads, in one piece or several."""
    together = loaded_with(bundle, adapters, threads=threads, instructions=instructions)
    alone = loaded_with(bundle, adapters, instructions=instructions)
    names = ["all", None, "some", None, "all"]
    expected = {name: alone.score(alone.session(adapter=name), ROW) for name in names}
    sessions = [together.session(adapter=name) for name in names]

    for start, end in ((0, 1), (1, 12), (12, 13), (13, 40)):
        found = together.step([(session, ROW[start:end]) for session in sessions])

        for name, row in zip(names, found, strict=True):
            np.testing.assert_array_equal(row, expected[name][end - 1])
    assert relative(expected["all"], expected[None]) > COARSE
    assert relative(expected["some"], expected[None]) > COARSE


@pytest.mark.parametrize("name", ["all", "some"])
def test_a_chosen_adapter_is_the_one_of_opening(
    bundle: Bundle, adapters: dict[str, Adapter], name: str
) -> None:
    """Added while it runs, given to `open`, and in the reference engine."""
    plain = ReferenceEngine().open(bundle, variant="small", threads=1, adapter=adapters[name])
    given = NativeEngine().open(bundle, variant="small", threads=1, adapter=adapters[name])
    loaded = loaded_with(bundle, adapters)

    found = loaded.score(loaded.session(adapter=name), ROW)

    np.testing.assert_array_equal(found, given.score(given.session(), ROW))
    assert relative(found, plain.score(plain.session(), ROW)) < COARSE


def test_a_removed_adapter_stays_with_its_sessions(
    bundle: Bundle, adapters: dict[str, Adapter]
) -> None:
    """And with their forks; the name is free for another one."""
    loaded = loaded_with(bundle, adapters)
    session, other = loaded.session(adapter="all"), loaded.session(adapter="some")
    expected, others = loaded.score(session, ROW), loaded.score(other, ROW)
    session.rewind(20)

    loaded.remove_adapter("all")
    assert loaded.adapters == ("some",)
    loaded.add_adapter("all", adapters["some"])

    fork = session.fork()
    np.testing.assert_array_equal(loaded.score(fork, ROW[20:]), expected[20:])
    np.testing.assert_array_equal(loaded.score(session, ROW[20:]), expected[20:])
    np.testing.assert_array_equal(loaded.score(loaded.session(adapter="all"), ROW), others)


def test_a_memory_is_of_its_adapter(bundle: Bundle, adapters: dict[str, Adapter]) -> None:
    """A state goes to sessions of the same adapter only, by its contents and not by its name."""
    loaded, again = loaded_with(bundle, adapters), loaded_with(bundle, {})
    again.add_adapter("another name", adapters["all"])
    session = loaded.session(adapter="all")
    loaded.step([(session, ROW)])
    state = session.save_state()

    same = again.session(adapter="another name")
    same.load_state(state)

    assert same.length == ROW.size
    for other in (loaded.session(), loaded.session(adapter="some")):
        with pytest.raises(InputError, match="another bundle, variant, engine or adapter"):
            other.load_state(state)


def test_names_are_checked(bundle: Bundle, adapters: dict[str, Adapter]) -> None:
    """A name that is taken, empty, or unknown."""
    loaded = loaded_with(bundle, adapters)

    for name in ("all", ""):
        with pytest.raises(InputError, match="empty or taken"):
            loaded.add_adapter(name, adapters["some"])
    with pytest.raises(InputError, match="no adapter 'else'; added are: all, some"):
        loaded.session(adapter="else")
    with pytest.raises(InputError, match="no adapter 'else'"):
        loaded.remove_adapter("else")
    loaded.close()
    with pytest.raises(InputError, match="the model is closed"):
        loaded.add_adapter("late", adapters["some"])
    assert loaded.adapters == ()


def test_engines_that_take_one_adapter_say_so(bundle: Bundle) -> None:
    """In one sentence."""
    loaded = loaded_with(bundle, {})
    assert as_adapting(loaded) is loaded

    with pytest.raises(InputError, match="takes one adapter, as it opens a bundle"):
        as_adapting(ReferenceEngine().open(bundle, variant="small", threads=1))


def test_attack_factors_of_another_shape(pack: Pack, adapters: dict[str, Adapter]) -> None:
    """The native part checks what it is given."""
    loaded = loaded_with(pack(DECODER, Quantize(method="rtn"), accuracy_level=4), {})

    with pytest.raises(ValueError, match="another shape"):
        loaded.add_adapter("wide", adapters["all"])
    with pytest.raises(ValueError, match="for each matrix"):
        loaded.inner.adapter([None])
