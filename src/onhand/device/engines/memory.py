"""What engines share about sessions: bounds of a step, and a memory as bytes."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from onhand.core.adapter import Adapter
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle
from onhand.core.errors import ContextOverflow, InputError

__all__ = [
    "PartShape",
    "Saved",
    "check_batch",
    "check_context",
    "check_fits",
    "check_open",
    "check_rewind",
    "check_span",
    "check_tokens",
    "narrowed_key",
    "pack_span",
    "pack_state",
    "state_key",
    "unpack_parts",
    "unpack_span",
    "unpack_state",
]


class OwnedSession(Protocol):
    """A session that knows whose it is."""

    @property
    def loaded(self) -> object:
        """The weights it belongs to."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        ...

    @property
    def context(self) -> int:
        """Most tokens that it can remember."""
        ...

    @property
    def length(self) -> int:
        """Tokens remembered."""
        ...


PartShape = tuple[int, int, np.dtype[Any]]
"""Heads, numbers of each for a token, and their type."""

Saved = bytes | memoryview
"""What was saved, where it lies."""

OwnSession = TypeVar("OwnSession", bound=OwnedSession)

_MAGIC = b"onhand-kv1"
_SPAN_MAGIC = b"onhand-span-1\n\0\0"  # with what follows 64 bytes: numbers lie as in memory
_KEY_BYTES = 32
_FEW = 16


def check_tokens(tokens: TokenArray, vocab_size: int) -> TokenArray:
    """Return one row's tokens as int64 if they are of use.

    Raises:
        InputError: if the row is empty, not one-dimensional, or names a token that is not there.
    """
    row = np.asarray(tokens)
    if row.ndim != 1 or row.size == 0 or row.dtype.kind not in "iu":
        raise InputError(
            f"tokens must be a non-empty row of integers, found {row.dtype} {row.shape}"
        )
    # Of a few numbers Python finds the ends sooner than numpy, whose code the weights that were
    # read since the last step have pushed out of the caches.
    few = row.tolist() if row.size <= _FEW else [int(row.min()), int(row.max())]
    low, high = min(few), max(few)
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise InputError(f"token {wrong} is outside the vocabulary of {vocab_size}")
    return row.astype(np.int64, copy=False)


def check_batch(
    batch: Sequence[tuple[object, TokenArray]],
    kind: type[OwnSession],
    *,
    owner: object,
    vocab_size: int,
) -> list[tuple[OwnSession, TokenArray]]:
    """Return the rows of a step, checked before any of them runs.

    Args:
        batch: sessions and their tokens.
        kind: the engine's own class of sessions.
        owner: the `Loaded` that they must belong to.
        vocab_size: tokens are below it.

    Returns:
        The sessions, each once, with their (T,) int64 tokens.

    Raises:
        InputError: if a row is empty or names a token that is not there, or a session is foreign,
            closed or given twice.
        ContextOverflow: if tokens do not fit.
    """
    rows: list[tuple[OwnSession, TokenArray]] = []
    for session, tokens in batch:
        if not isinstance(session, kind) or session.loaded is not owner:
            raise InputError("a session of another engine or bundle was given to step")
        if session.closed or any(session is other for other, _ in rows):
            raise InputError("a session in a step is closed, or given twice")
        row = check_tokens(tokens, vocab_size)
        check_fits(session.length, row.size, session.context)
        rows.append((session, row))
    if not rows:
        raise InputError("a step needs at least one row")
    return rows


def check_fits(length: int, n_new: int, context: int) -> None:
    """Refuse tokens that do not fit.

    Raises:
        ContextOverflow: if `length + n_new` is more than `context`.
    """
    if length + n_new > context:
        raise ContextOverflow(
            f"{length} tokens remembered and {n_new} new ones do not fit a context of {context}; "
            "shorten the prompt or rewind the session"
        )


def check_open(closed: bool, what: str) -> None:
    """Refuse what was closed.

    Raises:
        InputError: if `closed`.
    """
    if closed:
        raise InputError(f"{what} is closed; open a new one")


def check_rewind(length: int, remembered: int) -> None:
    """Refuse a rewind to where the session never was.

    Raises:
        InputError: if `length` is not within 0 .. `remembered`.
    """
    if not 0 <= length <= remembered:
        raise InputError(f"cannot rewind to {length}: the session remembers {remembered} tokens")


def check_context(context: int | None, most: int) -> int:
    """Return the context of a new session.

    Raises:
        InputError: if it is below 1 or above `most`.
    """
    chosen = most if context is None else context
    if not 1 <= chosen <= most:
        raise InputError(f"context is {chosen}, must be 1 to {most}, which the model was made for")
    return chosen


def state_key(bundle: Bundle, variant: str, engine: str, adapter: Adapter | None) -> bytes:
    """Return the 32 bytes that name what a memory belongs to: weights, engine and adapter."""
    name = f"{bundle.manifest_sha256} {variant} {engine}"
    if adapter is not None:
        name += f" {adapter.sha256}"
    return hashlib.sha256(name.encode()).digest()


def narrowed_key(key: bytes, *names: str) -> bytes:
    """Return the 32 bytes of a key that names more: what else a memory belongs to."""
    return hashlib.sha256(b" ".join([key, *(name.encode() for name in names)])).digest()


def pack_state(key: bytes, length: int, parts: Sequence[np.ndarray]) -> bytes:
    """Return a memory as bytes.

    Args:
        key: 32 bytes as of `state_key`.
        length: tokens remembered.
        parts: (n_kv_heads, length, head_dim) keys and values, layer by layer.

    Returns:
        The bytes; `unpack_state` reads them.
    """
    body = [np.ascontiguousarray(part).tobytes() for part in parts]
    return b"".join([_MAGIC, key, length.to_bytes(8, "little"), *body])


def unpack_state(
    state: bytes, key: bytes, shapes: Sequence[tuple[int, int]], *, context: int
) -> tuple[int, list[FloatArray]]:
    """Undo `pack_state` of float32 parts; see `unpack_parts`, which this is."""
    parts = [(heads, width, np.dtype(np.float32)) for heads, width in shapes]
    return unpack_parts(state, key, parts, context=context)


def unpack_parts(
    state: bytes, key: bytes, shapes: Sequence[PartShape], *, context: int
) -> tuple[int, list[Any]]:
    """Undo `pack_state`.

    Args:
        state: what `pack_state` returned.
        key: 32 bytes as of `state_key`.
        shapes: heads, width and type of each part.
        context: most tokens that the session can remember.

    Returns:
        The length, and the parts, each (heads, length, width).

    Raises:
        InputError: if the bytes are damaged, or of another bundle, variant, engine or adapter.
        ContextOverflow: if the saved memory is longer than `context`.
    """
    (length,), start = _head(state, _MAGIC, key, n_numbers=1)
    if length > context:
        raise ContextOverflow(
            f"saved state has {length} tokens, the session's context is {context}"
        )
    return length, _parts(state, start, length, shapes)


def pack_span(key: bytes, begin: int, parts: Sequence[np.ndarray]) -> bytes:
    """Return a part of a memory as bytes.

    Args:
        key: 32 bytes, see `SpanSession.span_key`.
        begin: tokens that come before it.
        parts: (n_kv_heads, tokens, width) keys and values, layer by layer.

    Returns:
        The bytes; `unpack_span` reads them.
    """
    end = begin + parts[0].shape[1]
    numbers = [number.to_bytes(8, "little") for number in (begin, end)]
    body = [np.ascontiguousarray(part).data for part in parts]
    return b"".join([_SPAN_MAGIC, key, *numbers, *body])


def unpack_span(
    span: Saved, key: bytes, shapes: Sequence[PartShape], *, length: int, context: int
) -> tuple[int, list[Any]]:
    """Undo `pack_span`.

    Args:
        span: what `pack_span` returned.
        key: 32 bytes, see `SpanSession.span_key`.
        shapes: heads, width and type of each part.
        length: tokens that the session remembers.
        context: most tokens that it can remember.

    Returns:
        The tokens it is of, and the parts, each (heads, tokens, width).

    Raises:
        InputError: if the bytes are damaged, of other weights or another engine, or do not begin
            where the session ends.
        ContextOverflow: if the span ends beyond `context`.
    """
    (begin, end), start = _head(span, _SPAN_MAGIC, key, n_numbers=2)
    if begin != length:
        raise InputError(f"a span of tokens from {begin} on cannot follow {length} tokens")
    if end > context:
        raise ContextOverflow(
            f"the span has tokens up to {end}, the session's context is {context}"
        )
    if end < begin:
        raise InputError(f"saved span is damaged: it ends at {end}, before {begin}")
    return end - begin, _parts(span, start, end - begin, shapes)


def check_span(begin: int, end: int, remembered: int) -> None:
    """Refuse a part of a memory that is not there.

    Raises:
        InputError: if not 0 <= `begin` <= `end` <= `remembered`.
    """
    if not 0 <= begin <= end <= remembered:
        raise InputError(
            f"tokens {begin} to {end} are no part of the {remembered} that the session remembers"
        )


def _head(saved: Saved, magic: bytes, key: bytes, *, n_numbers: int) -> tuple[list[int], int]:
    """Return the numbers behind magic and key, and where the parts begin.

    Raises:
        InputError: if magic or key are others.
    """
    named = len(magic) + _KEY_BYTES
    start = named + 8 * n_numbers
    head = bytes(saved[:start])
    if len(head) < start or not head.startswith(magic):
        raise InputError("saved state is damaged: it does not begin as one")
    if head[len(magic) : named] != key:
        raise InputError("saved state is of another bundle, variant, engine or adapter")
    places = range(named, start, 8)
    return [int.from_bytes(head[place : place + 8], "little") for place in places], start


def _parts(saved: Saved, start: int, length: int, shapes: Sequence[PartShape]) -> list[Any]:
    sizes = [heads * length * width * dtype.itemsize for heads, width, dtype in shapes]
    if len(saved) != start + sum(sizes):
        raise InputError(
            f"saved state is damaged: {len(saved)} bytes, {start + sum(sizes)} expected"
        )
    parts: list[np.ndarray] = []
    of_one_kind = len({dtype for *_, dtype in shapes}) == 1
    if of_one_kind:  # one look at all is sooner done than one at each
        _check_finite(np.frombuffer(saved, shapes[0][2], offset=start))
    for size, (heads, width, dtype) in zip(sizes, shapes, strict=True):
        part = np.frombuffer(saved, dtype, count=size // dtype.itemsize, offset=start)
        if not of_one_kind:
            _check_finite(part)
        parts.append(part.reshape(heads, length, width))
        start += size
    return parts


def _check_finite(part: np.ndarray) -> None:
    """Refuse numbers that are none.

    Raises:
        InputError: if there is one.
    """
    if part.size == 0 or part.dtype.kind != "f":
        return
    if part.dtype == np.float16:
        # By its bits, since numpy has no instructions for halves. With an exponent of ones it is no
        # number: the largest of all positive ones with a sign, and of all without.
        bits = part.view(np.uint16)
        is_finite = bool(bits.view(np.int16).max() < 0x7C00 and bits.max() < 0xFC00)
    else:
        is_finite = bool(np.isfinite(part).all())
    if not is_finite:
        raise InputError("saved state is damaged: it holds a number that is not finite")
