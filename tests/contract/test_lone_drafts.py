"""The answer that runs alone in a batcher, drafted: the same tokens, in fewer steps."""

import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.device.watched import WatchedLoaded, alone, prompt
from tests.models import VOCAB

from onhand import native
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.weights import open_weights
from onhand.device.batching import Batcher
from onhand.device.engines.native import NativeLoaded
from onhand.device.generate import generate_tokens
from onhand.device.request import Request
from onhand.device.sampling import Sampling
from onhand.device.schedule import Limits

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
PROMPT = np.random.default_rng(3).integers(0, VOCAB, 20)
SAMPLINGS = {
    "greedy": Sampling(),
    "penalty": Sampling(repetition_penalty=1.2),
    "seed": Sampling(temperature=0.9, top_k=20, top_p=0.9, repetition_penalty=1.1, seed=5),
}


@pytest.fixture
def loaded(pack: Pack) -> Iterator[NativeLoaded]:
    """The tiny model, int4."""
    found = NativeLoaded(open_weights(pack(accuracy_level=4), "small"), b"", 2)
    yield found
    found.close()


def drafting(loaded: NativeLoaded, **limits: int) -> Batcher:
    """A batcher that drafts; every step takes as long as any other, so drafts pay."""
    ticks = count()
    batcher = Batcher(loaded, limits=Limits(**limits), clock=lambda: float(next(ticks)))
    batcher.stepper.draft_alone()
    return batcher


def plain(loaded: NativeLoaded, prompt: TokenArray, sampling: Sampling, **how: Any) -> list[int]:
    return list(generate_tokens(loaded, loaded.session(), prompt, sampling=sampling, **how))


def n_accepted(batcher: Batcher) -> int:
    drafts = batcher.stepper.drafts
    assert drafts is not None
    return drafts.n_accepted


@pytest.mark.parametrize("how", SAMPLINGS)
def test_its_tokens_are_those_of_plain_decoding(loaded: NativeLoaded, how: str) -> None:
    """And what the session remembers is the same, so that the conversation can go on."""
    session = loaded.session()
    batcher = drafting(loaded)
    found = list(batcher.submit(session, PROMPT, max_tokens=60, sampling=SAMPLINGS[how]))

    assert found == plain(loaded, PROMPT, SAMPLINGS[how], max_tokens=60)
    assert session.length == len(PROMPT) + 59
    if how == "greedy":  # a random model repeats itself soon
        assert n_accepted(batcher) > 10
    text = np.asarray([*PROMPT.tolist(), *found])
    again = list(batcher.submit(session, text[-1:], max_tokens=9, seen=text))
    assert again == plain(loaded, text, Sampling(), max_tokens=9)


def test_it_ends_where_plain_decoding_ends(loaded: NativeLoaded) -> None:
    """At a stop token, at the most tokens, and with the context, whatever was guessed beyond."""
    whole = plain(loaded, PROMPT, Sampling(), max_tokens=60)
    for stop in sorted(set(whole[20:]))[:6]:
        request = drafting(loaded).submit(loaded.session(), PROMPT, max_tokens=60, stop_ids=[stop])
        assert list(request) == whole[: whole.index(stop) + 1]
        assert request.finish_reason == "stop"
    for n in (1, 2, 3, 21, 30, 31, 32, 33, 34, 59):
        request = drafting(loaded).submit(loaded.session(), PROMPT, max_tokens=n)
        assert list(request) == whole[:n]
        assert request.finish_reason == "length"
    for context in (21, 22, 40, 41, 42, 43, 44, 45):
        request = drafting(loaded).submit(loaded.session(context=context), PROMPT)
        assert list(request) == whole[: context - 19]
        assert request.finish_reason == "context"


def test_drafts_go_and_come_between_steps_and_beside_others(loaded: NativeLoaded) -> None:
    """Switched at any time, with other answers coming and going: every answer is its own."""
    batcher = drafting(loaded, max_ahead=4)
    prompts = [np.random.default_rng(i).integers(0, VOCAB, 10 + i) for i in range(6)]
    expected = [
        plain(loaded, one, Sampling(), max_tokens=40 + 5 * i) for i, one in enumerate(prompts)
    ]
    is_over = threading.Event()

    def switch() -> None:
        while not is_over.is_set():
            batcher.stepper.draft_no_more()
            batcher.stepper.draft_alone()

    switching = threading.Thread(target=switch)
    switching.start()
    found: dict[int, list[int]] = {}

    def read(i: int, request: Request) -> None:
        found[i] = list(request)

    readers = []
    for i, one in enumerate(prompts):
        request = batcher.submit(loaded.session(), one, max_tokens=40 + 5 * i)
        readers.append(threading.Thread(target=read, args=(i, request)))
        readers[-1].start()
        if i % 2:
            readers[-1].join()
    for reader in readers:
        reader.join()
    is_over.set()
    switching.join()
    batcher.close()

    assert [found[i] for i in range(len(prompts))] == expected


class Watching:
    """Hears every token of an answer."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def forbidden(self) -> None:
        """See `Watcher`."""

    def chose(self, logits: FloatArray, token: int) -> None:
        """See `Watcher`."""
        assert int(np.argmax(logits)) == token
        self.heard.append(token)


def test_what_watches_an_answer_sees_it_token_by_token(loaded: NativeLoaded) -> None:
    """Scores and grammars are followed as without drafts."""
    batcher, watching = drafting(loaded), Watching()
    found = list(batcher.submit(loaded.session(), PROMPT, max_tokens=40, watchers=[watching]))

    assert watching.heard == found == plain(loaded, PROMPT, Sampling(), max_tokens=40)
    assert n_accepted(batcher) == 0


def test_an_engine_that_cannot_check_does_without() -> None:
    """Nothing is drafted, and nothing fails."""
    plainly = WatchedLoaded()
    batcher = Batcher(plainly)
    batcher.stepper.draft_alone()

    assert batcher.stepper.drafts is None
    assert not batcher.stepper.can_draft
    assert list(batcher.submit(plainly.session(), prompt(5), max_tokens=9)) == alone(prompt(5), 9)
