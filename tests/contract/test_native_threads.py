"""Threads of the native engine, changed while conversations run: the bits stay the same."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.models import DECODER

from onhand import native
from onhand.core.arrays import FloatArray
from onhand.core.errors import InputError
from onhand.core.weights import open_weights
from onhand.device.engines.base import ThreadsLoaded
from onhand.device.engines.native import NativeLoaded
from onhand.device.sampling import Sampler, Sampling
from onhand.host.passes.quantize import Quantize

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
V = 4003
LARGE = replace(DECODER, vocab_size=V, tied=False)
PROMPT = np.random.default_rng(3).integers(0, V, 40)
TURNS = (4, 1, 3, 1, 2, 4, 1, 4)
HOW = {
    "greedy": Sampling(),
    "sampled": Sampling(temperature=1.3, top_k=50, top_p=0.9, repetition_penalty=1.2, seed=3),
}


def load(pack: Pack, threads: int) -> NativeLoaded:
    bundle = pack(LARGE, Quantize(method="rtn"), accuracy_level=4)
    return NativeLoaded(open_weights(bundle, "small"), b"", threads)


def answer(loaded: NativeLoaded, sampling: Sampling, turns: tuple[int, ...]) -> list[Any]:
    """Tokens of a prompt and of single steps, the number of threads changed before each."""
    session = loaded.session()
    sampler = Sampler(sampling, seen=PROMPT)
    tokens = PROMPT
    found = []
    for n in turns:
        loaded.use_threads(n)
        chosen = loaded.step_sample([(session, tokens)], [sampler])
        found.append(chosen[0])
        tokens = np.asarray(chosen)
    return found


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("head", ["full", "two-stage"])
def test_tokens_do_not_depend_on_the_threads(pack: Pack, how: str, head: str) -> None:
    """An answer whose threads change at every step is that of one thread, to the last token."""
    changing, alone = load(pack, 4), load(pack, 1)
    if head == "two-stage":
        changing.use_two_stage_head(candidates=64)
        alone.use_two_stage_head(candidates=64)

    ones = (1,) * len(TURNS)
    assert answer(changing, HOW[how], TURNS) == answer(alone, HOW[how], ones)


def test_logits_do_not_depend_on_the_threads(pack: Pack) -> None:
    """Rows of several conversations have the same bits before and after a change."""
    loaded = load(pack, 4)

    def rows() -> FloatArray:
        return loaded.step([(loaded.session(), PROMPT[i : i + 9]) for i in range(6)])

    before = rows()
    loaded.use_threads(1)
    np.testing.assert_array_equal(rows(), before)
    loaded.use_threads(3)
    np.testing.assert_array_equal(rows(), before)


def test_what_many_threads_found_is_forgotten_by_few(pack: Pack) -> None:
    """The best token that a thread found which is gone is never chosen again."""
    loaded = load(pack, 4)
    for n in (4, 1, 4, 2):
        loaded.use_threads(n)
        for i in range(5):
            prompt = PROMPT[i : i + 7]
            (token,) = loaded.step_sample(
                [(loaded.session(), prompt)], [Sampler(Sampling(), seen=prompt)]
            )

            assert token == int(np.argmax(loaded.step([(loaded.session(), prompt)])[0]))


@pytest.mark.parametrize("n", [0, -1, 4, 1025])
def test_no_more_than_it_was_opened_with(pack: Pack, n: int) -> None:
    """Its working memory is made for so many; one more is refused, and nothing has changed."""
    loaded = load(pack, 3)

    with pytest.raises(InputError, match="must be 1 to 3"):
        loaded.use_threads(n)
    assert (loaded.threads, loaded.most_threads) == (3, 3)
    with pytest.raises(ValueError, match="threads"):
        loaded.inner.use_threads(n)


def test_it_is_a_loaded_whose_threads_change(pack: Pack) -> None:
    """What the server asks for is there, until it is closed."""
    loaded = load(pack, 2)

    assert isinstance(loaded, ThreadsLoaded)
    loaded.use_threads(1)
    assert (loaded.threads, loaded.most_threads, loaded.inner.threads) == (1, 2, 1)
    loaded.close()
    with pytest.raises(InputError, match="closed"):
        loaded.use_threads(2)


@pytest.fixture
def one_core() -> Iterator[None]:
    """Let this thread and those that it begins compute on one core, in turns."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system lets nobody choose a core")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_core")
def test_threads_without_a_core_are_given_up(pack: Pack) -> None:
    """Two that share a core wait for each other; the answers stay the same."""
    loaded, alone = load(pack, 2), load(pack, 1)

    def give_up(*, wanted: int) -> list[FloatArray]:
        end = time.monotonic() + 30
        found = []
        while loaded.inner.computing != wanted and time.monotonic() < end:
            found.append(loaded.step([(loaded.session(), PROMPT)]))
        return found

    found = give_up(wanted=1)

    assert (loaded.threads, loaded.inner.computing) == (2, 1)
    expected = alone.step([(alone.session(), PROMPT)])
    for rows in (found[0], found[-1], loaded.step([(loaded.session(), PROMPT)])):
        np.testing.assert_array_equal(rows, expected)
    give_up(wanted=2)
    assert loaded.inner.computing == 2, "it is never tried again"
    loaded.use_threads(2)
    loaded.inner.yield_cores(False)
    for _ in range(50):
        loaded.step([(loaded.session(), PROMPT)])
    assert loaded.inner.computing == 2


def test_threads_change_while_steps_run(pack: Pack) -> None:
    """Another thread may change them at any time; steps wait for it, and stay right."""
    loaded = load(pack, 4)
    expected = loaded.step([(loaded.session(), PROMPT)])
    is_over = threading.Event()

    def change() -> None:
        while not is_over.is_set():
            for n in (1, 4, 2, 3):
                loaded.use_threads(n)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(60):
            np.testing.assert_array_equal(loaded.step([(loaded.session(), PROMPT)]), expected)
    finally:
        is_over.set()
        changing.join()
