"""A model whose logits are a function of all tokens so far: a wrong memory gives other answers."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from onhand.core.adapter import Adapter
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import ContextOverflow, EngineError
from onhand.device.engines.base import Session

__all__ = ["TakesAdapters", "ToyLoaded", "ToySession", "mixed"]

Rule = Callable[[tuple[int, ...]], FloatArray]


@cache
def _row(tokens: tuple[int, ...], vocab_size: int, seed: int) -> FloatArray:
    digest = hashlib.sha256(repr((tokens, seed)).encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return random.normal(scale=1.5, size=vocab_size).astype(np.float32)


def mixed(vocab_size: int, *, reach: int = 2, seed: int = 0) -> Rule:
    """Logits that depend on the last `reach` tokens, so that texts repeat themselves."""
    return lambda tokens: _row(tokens[-reach:], vocab_size, seed)


class ToySession:
    """See `Session`."""

    def __init__(self, context: int) -> None:
        self.context = context
        self.tokens: list[int] = []
        self.is_closed = False

    @property
    def length(self) -> int:
        """See `Session`."""
        return 0 if self.is_closed else len(self.tokens)

    def rewind(self, length: int) -> None:
        """See `Session`."""
        assert 0 <= length <= self.length
        del self.tokens[length:]

    def fork(self) -> Session:
        """See `Session`."""
        forked = ToySession(self.context)
        forked.tokens = list(self.tokens)
        return forked

    def save_state(self) -> bytes:
        """See `Session`."""
        raise NotImplementedError

    def load_state(self, state: bytes) -> None:
        """See `Session`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Session`."""
        self.is_closed = True


class ToyLoaded:
    """See `Loaded`; it counts steps and the rows of each, and pretends that they take time."""

    def __init__(self, rule: Rule, *, vocab_size: int, context: int = 100) -> None:
        self.rule = rule
        self.vocab_size = vocab_size
        self.context = context
        self.rows: list[int] = []
        self.step_s, self.row_s = 1.0, 0.1
        self.now = 0.0
        self.made: list[ToySession] = []
        self.fails_after: int | None = None
        self.is_closed = False

    def session(self, *, context: int | None = None) -> ToySession:
        """See `Loaded`."""
        self.made.append(ToySession(context or self.context))
        return self.made[-1]

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """See `Loaded`."""
        return np.stack([self.score(session, tokens)[-1] for session, tokens in batch])

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """See `Loaded`."""
        assert isinstance(session, ToySession)
        assert len(tokens) > 0
        assert all(0 <= token < self.vocab_size for token in tokens)
        if session.length + len(tokens) > session.context:
            raise ContextOverflow("does not fit")
        self.rows.append(len(tokens))
        self.now += self.step_s + self.row_s * (len(tokens) - 1)
        found = []
        for token in tokens.tolist():
            session.tokens.append(token)
            found.append(self.rule(tuple(session.tokens)))
        if self.fails_after is not None and len(self.rows) > self.fails_after:
            raise EngineError("broke off")
        return np.stack(found)

    def close(self) -> None:
        """See `Loaded`."""
        self.is_closed = True


class TakesAdapters:
    """The part of `AdaptingLoaded` that knows names."""

    added: dict[str, Adapter]

    @property
    def adapters(self) -> tuple[str, ...]:
        """See `AdaptingLoaded`."""
        return tuple(self.added)

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """See `AdaptingLoaded`."""
        assert name not in self.added
        self.added[name] = adapter

    def remove_adapter(self, name: str) -> None:
        """See `AdaptingLoaded`."""
        del self.added[name]
