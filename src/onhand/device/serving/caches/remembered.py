"""What ended conversations remember, kept so that their beginning need not be computed again."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.device.engines.base import Loaded, Session
from onhand.device.serving.caches.model_blocks import Begun, ModelBlocks
from onhand.device.tracks import new_session

__all__ = ["NewSession", "Remembered"]

NewSession = Callable[[bool], Session]
"""Whether what was learned answers in it -> an empty session."""

# A shorter beginning is computed again sooner than a memory is forked for it.
_LEAST_SHARED = 16


@dataclass(slots=True, eq=False)
class _Kept:
    tenant: str
    session: Session
    tokens: TokenArray  # as many as the session remembers
    used_s: float
    is_inside: bool = True  # of the scope of what was learned
    begun: Begun | None = None  # of an earlier process, which nobody asked for yet


class Remembered:
    """Sessions of one model that nobody uses at the moment. May be shared between threads.

    A conversation that goes on finds its own; another that begins alike, as with the same
    instructions, gets a fork. What is left of one tenant is never used for another, not even
    where the texts are the same: how soon an answer begins would say what others asked.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        context: int,
        token_bytes: int,
        most_bytes: int,
        page_tokens: int = 1,
        clock: Callable[[], float] = time.monotonic,
        blocks: ModelBlocks | None = None,
    ) -> None:
        """Start with none.

        Args:
            loaded: the weights.
            context: most tokens of a session.
            token_bytes: what the memory of one token takes.
            most_bytes: of all that is kept; the longest unused goes first.
            page_tokens: tokens whose memory is taken at once.
            clock: seconds that only grow.
            blocks: what is kept on the disk beside it; None for nothing.
        """
        self._loaded = loaded
        self._blocks = blocks
        self._context = context
        self._token_bytes = token_bytes
        self._most_bytes = most_bytes
        self._page_tokens = page_tokens
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: list[_Kept] = []  # the latest last
        self._new_session: NewSession = partial(new_session, loaded, context=context)
        self._generation = 0

    @property
    def generation(self) -> int:
        """How often new sessions became other ones; to be read before `take`."""
        return self._generation

    def begin(self) -> None:
        """Remember the latest conversations of the process before, as far as they were read."""
        if self._blocks is None:
            return
        with self._lock:
            generation, new = self._generation, self._new_session
        pages = self._most_bytes // (self._token_bytes * self._page_tokens)
        begun = self._blocks.begun(lambda: new(True), most_tokens=pages * self._page_tokens)
        dropped: list[Begun] = []
        for one in begun:
            # What has been asked meanwhile is more recent, and they are the latest first.
            kept = _Kept("", one.session, one.tokens, self._clock(), begun=one)
            with self._lock:
                has_room = self._taken() + self._size(kept) <= self._most_bytes
                if has_room and generation == self._generation:
                    self._kept.insert(0, kept)
                else:
                    dropped.append(one)
        for one in dropped:
            one.session.close()

    def adapt(self, new: NewSession) -> None:
        """Begin new sessions in another way, and forget all that were computed in the one before.

        Args:
            new: makes one.
        """
        with self._lock:
            self._new_session = new
            self._generation += 1
            dropped, self._kept = self._kept, []
        for kept in dropped:
            kept.session.close()

    @property
    def n_bytes(self) -> int:
        """Memory of all that is kept; forks that share pages count in full."""
        with self._lock:
            return self._taken()

    def ages(self) -> list[tuple[float, int]]:
        """Return when each was used last, and its bytes; the longest unused first."""
        with self._lock:
            return [(one.used_s, self._size(one)) for one in self._kept]

    def forget(self, n: int) -> None:
        """Forget the longest unused ones.

        Args:
            n: how many.
        """
        with self._lock:
            dropped, self._kept = self._kept[:n], self._kept[n:]
        for kept in dropped:
            kept.session.close()

    def take(self, tenant: str, tokens: TokenArray, *, is_inside: bool = True) -> Session:
        """Return a session that remembers as much of the beginning of a prompt as is in memory.

        Args:
            tenant: who asks.
            tokens: (T,) int64, T >= 1; the last is never taken as known, for its scores are needed.
            is_inside: whether what was learned answers: the other sessions are kept apart.

        Returns:
            The session, the caller's own now; it remembers the first `length` of `tokens`.

        Raises:
            InputError: if the model is closed.
        """
        with self._lock:
            best, n_shared = self._best(tenant, tokens, is_inside)
            if best is not None and n_shared == best.tokens.size:
                self._kept.remove(best)
                return best.session
            if best is not None:
                session = best.session.fork()
                session.rewind(n_shared)
                return session
            # With the lock: what made sessions until now may be gone the moment after.
            return self._new_session(is_inside)

    def restore(self, tenant: str, session: Session, tokens: TokenArray) -> None:
        """Let a session remember more of a prompt, where blocks on the disk know more.

        Args:
            tenant: who asks.
            session: what `take` returned.
            tokens: as given to `take`.
        """
        if self._blocks is not None:
            self._blocks.restore(tenant, session, tokens[:-1])

    def give_back(
        self,
        tenant: str,
        session: Session,
        tokens: TokenArray,
        *,
        generation: int = 0,
        is_inside: bool = True,
    ) -> None:
        """Keep a session whose answer ended; one of another generation is forgotten.

        Args:
            tenant: whose it was.
            session: the caller's no more.
            tokens: (T,) int64, of prompt and answer; they begin with what it remembers.
            generation: as it was before `take`.
            is_inside: as given to `take`.
        """
        known = np.array(tokens[: session.length])
        ended = _Kept(tenant, session, known, self._clock(), is_inside)
        dropped: list[_Kept] = []
        if self._blocks is not None:
            self._blocks.keep(tenant, session, ended.tokens)
        with self._lock:
            is_other = generation != self._generation
            is_small = ended.tokens.size < _LEAST_SHARED
            if is_other or is_small or self._size(ended) > self._most_bytes:
                dropped.append(ended)
            else:
                self._kept.append(ended)
                while self._taken() > self._most_bytes:
                    dropped.append(self._kept.pop(0))
        for kept in dropped:
            kept.session.close()

    def close(self) -> None:
        """Forget all; safe to call twice."""
        with self._lock:
            kept, self._kept = self._kept, []
        for one in kept:
            one.session.close()

    def _taken(self) -> int:
        return sum(self._size(one) for one in self._kept)

    def _size(self, one: _Kept) -> int:
        n_pages = -(-one.tokens.size // self._page_tokens)
        return n_pages * self._page_tokens * self._token_bytes

    def _best(self, tenant: str, tokens: TokenArray, is_inside: bool) -> tuple[_Kept | None, int]:
        best, most = None, _LEAST_SHARED - 1
        for one in reversed(self._kept):
            if one.is_inside != is_inside or not self._is_of(one, tenant):
                continue
            if (n := _shared(one.tokens, tokens[:-1])) > most:
                best, most = one, n
        return best, most

    def _is_of(self, one: _Kept, tenant: str) -> bool:
        if one.begun is None or self._blocks is None:
            return one.begun is None and one.tenant == tenant
        return self._blocks.is_of(one.begun, tenant)


def _shared(known: TokenArray, tokens: TokenArray) -> int:
    n = min(known.size, tokens.size)
    differs = np.flatnonzero(known[:n] != tokens[:n])
    return int(differs[0]) if differs.size else n
