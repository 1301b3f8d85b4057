"""Answers of common steps are those computed alone, in real engines, read by real threads."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pytest
from tests.contract.conftest import Pack
from tests.models import VOCAB, varied_decoder

from onhand import native
from onhand.core.arrays import TokenArray
from onhand.core.plugins import ENGINES, load_plugin
from onhand.device.batching import Batcher
from onhand.device.engines.base import Engine, Loaded
from onhand.device.generate import generate_tokens
from onhand.device.sampling import Sampling
from onhand.device.schedule import Limits
from onhand.host.passes.quantize import Quantize

LONG = replace(varied_decoder(), context=256)
LIMITS = Limits(max_active=5, max_prompt_tokens=32, max_ahead=3)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of a conversation."""

    prompt: TokenArray
    max_tokens: int
    sampling: Sampling


def asked(n: int, *, drawn: bool) -> Sequence[Asked]:
    """Requests of all lengths; every other one sampled, from a seed, if wanted."""
    random = np.random.default_rng(5)
    return [
        Asked(
            random.integers(0, VOCAB, int(random.integers(1, 120))),
            int(random.integers(1, 40)),
            Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.1, seed=i)
            if drawn and i % 2
            else Sampling(),
        )
        for i in range(n)
    ]


def opened(name: str, pack: Pack, *, threads: int) -> Loaded:
    if name == "native" and native.module is None:
        pytest.skip(native.missing)
    engine = cast(type[Engine], load_plugin(ENGINES, name))()
    bundle = pack(LONG, Quantize(method="rtn"), accuracy_level=4 if name == "native" else 0)
    return engine.open(bundle, variant="small", threads=threads)


def computed_alone(loaded: Loaded, one: Asked) -> list[int]:
    tokens = generate_tokens(
        loaded,
        loaded.session(),
        one.prompt,
        max_tokens=one.max_tokens,
        sampling=one.sampling,
    )
    return list(tokens)


@pytest.mark.parametrize(("name", "threads"), [("native", 1), ("native", 2), ("reference", 1)])
def test_answers_are_those_computed_alone(name: str, threads: int, pack: Pack) -> None:
    """Greedy and drawn; as many conversations at once as threads read them."""
    loaded = opened(name, pack, threads=threads)
    batcher = Batcher(loaded, limits=LIMITS)
    # The last bits of the reference engine depend on the company, so nothing is drawn there.
    requests = asked(16, drawn=name == "native")

    def answer(one: Asked) -> list[int]:
        with_it = batcher.submit(
            loaded.session(), one.prompt, max_tokens=one.max_tokens, sampling=one.sampling
        )
        return list(with_it)

    with ThreadPoolExecutor(len(requests)) as pool:
        found = list(pool.map(answer, requests))
    batcher.close()

    assert found == [computed_alone(loaded, one) for one in requests]


def test_a_closed_request_leaves_its_session_as_if_alone(pack: Pack) -> None:
    """Cut at any token, rewound and asked anew: the very answer of a fresh session."""
    loaded = opened("native", pack, threads=2)
    batcher = Batcher(loaded, limits=LIMITS)
    requests = asked(12, drawn=False)

    def answer(i: int) -> list[int]:
        session = loaded.session()
        broken = batcher.submit(session, requests[i].prompt)
        for _ in range(i % 4):
            next(broken)
        broken.close()
        n_kept = min(session.length, requests[i].prompt.size - 1)
        session.rewind(n_kept)
        rest = requests[i].prompt[n_kept:]
        return list(batcher.submit(session, rest, max_tokens=requests[i].max_tokens))

    with ThreadPoolExecutor(len(requests)) as pool:
        found = list(pool.map(answer, range(len(requests))))
    batcher.close()

    assert found == [computed_alone(loaded, one) for one in requests]
