"""A fake model whose steps are remembered and can be held up, and what it answers alone."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
from tests.device.test_generate import FakeLoaded, mixing
from tests.device.toy_model import ToySession

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import InputError
from onhand.device.engines.base import Session
from onhand.device.generate import generate_tokens
from onhand.device.sampling import Sampling


class WatchedLoaded:
    """A fake model that remembers its steps, and calls back before each."""

    def __init__(self, *, context: int = 200) -> None:
        self.inner = FakeLoaded(mixing, context=context)
        self.vocab_size = self.inner.vocab_size
        self.context = context
        self.steps: list[list[int]] = []  # of each, the tokens of its rows
        self.threads: set[int] = set()
        self.before: Callable[[], None] = lambda: None

    def session(self, *, context: int | None = None) -> Session:
        """See `Loaded`."""
        return self.inner.session(context=context)

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """See `Loaded`."""
        for session, _ in batch:
            assert isinstance(session, ToySession)
            if session.is_closed:
                raise InputError("a session is closed")
        self.steps.append([len(tokens) for _, tokens in batch])
        self.threads.add(threading.get_ident())
        self.before()
        return self.inner.step(batch)

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """See `Loaded`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Loaded`."""


class Gate:
    """Lets steps through one by one."""

    def __init__(self, loaded: WatchedLoaded) -> None:
        self._free = threading.Semaphore(0)
        self._waits = threading.Semaphore(0)
        loaded.before = self._pass

    def _pass(self) -> None:
        self._waits.release()
        assert self._free.acquire(timeout=60)

    def wait(self) -> None:
        """Until a step has begun."""
        assert self._waits.acquire(timeout=60)

    def open(self, n_steps: int = 1) -> None:
        """Let so many steps end."""
        self._free.release(n_steps)


def row(*tokens: int) -> TokenArray:
    return np.asarray(tokens, dtype=np.int64)


def prompt(n: int, seed: int = 0) -> TokenArray:
    return np.random.default_rng(seed).integers(0, 256, n)


def alone(tokens: TokenArray, n: int, sampling: Sampling = Sampling()) -> list[int]:  # noqa: B008
    """The answer that nothing else was computed beside."""
    loaded = FakeLoaded(mixing)
    return list(generate_tokens(loaded, loaded.session(), tokens, max_tokens=n, sampling=sampling))
