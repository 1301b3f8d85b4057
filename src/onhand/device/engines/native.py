"""The project's own kernels: a whole step in one call, on CPUs.

Products take their inputs as int8, one scale for each group, as ONNX Runtime does at accuracy
level 4; a token's answer is the same bits whatever is computed beside it, but where prompts are
asked for in bf16.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from onhand import __version__, native
from onhand.core.adapter import Adapter
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.core.profile import DeviceProfile
from onhand.core.weights import BundleWeights, open_weights
from onhand.device.engines.base import KvKind, Session
from onhand.device.engines.choosing import check_by_scores, check_samplers, sample_by_scores
from onhand.device.engines.memory import (
    check_batch,
    check_context,
    check_open,
    narrowed_key,
    state_key,
)
from onhand.device.engines.native_description import describe
from onhand.device.engines.native_session import NativeSession, aligned
from onhand.device.engines.rotary_blocks import RotaryBlocks
from onhand.device.sampling import Sampler, check_highest

__all__ = ["NativeEngine", "NativeLoaded", "NativeSession", "choose_alone", "chooser_of"]

# What stands in the place of a token where none could be chosen, and the highest logit then.
_FAILED = {-1: -math.inf, -2: math.nan, -3: math.inf}


@dataclass(frozen=True, slots=True)
class _Adapted:
    """An adapter as the native part has it, None for none, and the key of its memories."""

    inner: Any
    key: bytes


class NativeLoaded:
    """See `AdaptingLoaded`."""

    def __init__(
        self,
        weights: BundleWeights,
        key: bytes,
        threads: int,
        *,
        adapter: Adapter | None = None,
        kv: KvKind = "fp16",
        instructions: str = "",
    ) -> None:
        """Pack the weights.

        Args:
            weights: quantised, every matrix.
            key: names the memories of its sessions, see `state_key`.
            threads: of one step.
            adapter: of sessions that choose none.
            kv: what keys and values are kept as; "int8" has a scale for each token and head.
            instructions: one of `native.module.instruction_sets()`; "" for the best.
        """
        self.decoder = weights.decoder
        self.closed = False
        self.kv = kv
        self.key = key if kv == "fp16" else narrowed_key(key, kv)
        self.vocab_size = self.decoder.vocab_size
        self.context = self.decoder.context
        self._choosers: WeakKeyDictionary[Sampler, Any] = WeakKeyDictionary()
        self._rotary = RotaryBlocks(self.decoder, block=_module().ROTARY_BLOCK, add=self._extend)
        edges, layers = describe(_module(), weights, self._rotary, threads)
        edges["kv"] = kv
        self.inner: Any = _module().Decoder(edges, layers, threads, instructions)
        self._head: Any = edges["head"][-1]
        self._coarse: Any = None
        self.threads = self.most_threads = threads
        self._adapters: dict[str, _Adapted] = {}
        self._plain = _Adapted(None, self.key) if adapter is None else self._adapted(adapter)

    @property
    def adapters(self) -> tuple[str, ...]:
        """See `AdaptingLoaded`."""
        return tuple(self._adapters)

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """See `AdaptingLoaded`.

        Raises:
            InputError: if the name is empty or taken, or the model is closed.
        """
        check_open(self.closed, "the model")
        if not name or name in self._adapters:
            raise InputError(f"adapter name {name!r} is empty or taken; remove that one first")
        self._adapters[name] = self._adapted(adapter)

    def remove_adapter(self, name: str) -> None:
        """See `AdaptingLoaded`."""
        self._chosen(name)
        del self._adapters[name]

    def session(self, *, context: int | None = None, adapter: str | None = None) -> NativeSession:
        """See `AdaptingLoaded`."""
        check_open(self.closed, "the model")
        chosen = self._plain if adapter is None else self._chosen(adapter)
        inner = self.inner.conversation(chosen.inner)
        span_key = narrowed_key(chosen.key, __version__, self.inner.isa)
        checked = check_context(context, self.context)
        return NativeSession(self, checked, inner, chosen.key, span_key=span_key)

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """See `Loaded`."""
        rows = self._checked(batch)
        return self._run(rows, every=False)

    def step_sample(
        self, batch: Sequence[tuple[Session, TokenArray]], samplers: Sequence[Sampler | None]
    ) -> list[int]:
        """See `StepSampler`."""
        if any(sampler is not None and sampler.needs_scores for sampler in samplers):
            return sample_by_scores(self, batch, samplers)
        rows = self._checked(batch)
        check_samplers(len(rows), samplers)
        sessions = [session.inner for session, _ in rows]
        # One token as a number: an array would be taken apart on the other side each time.
        tokens = [int(row[0]) if row.size == 1 else aligned(row) for _, row in rows]
        choosers = [None if sampler is None else self._chooser(sampler) for sampler in samplers]
        chosen: list[Any] = [_draw(sampler) for sampler in samplers]
        self.inner.choose(sessions, tokens, choosers, chosen)
        for sampler, token in zip(samplers, chosen, strict=True):
            if sampler is not None:
                _settle(sampler, token)
        return chosen

    def step_check(self, session: Session, tokens: TokenArray, sampler: Sampler) -> list[int]:
        """See `DraftChecker`."""
        # What is seen differs from place to place, and watchers want to see every row.
        if sampler.sampling.repetition_penalty != 1 or sampler.needs_scores:
            return check_by_scores(self, session, tokens, sampler)
        ((own, row),) = self._checked([(session, tokens)])
        draws = [_draw(sampler) for _ in range(row.size)]
        found: list[Any] = list(draws)
        self.inner.choose_each(own.inner, aligned(row), self._chooser(sampler), found)
        n_chosen = 1
        for given, token in zip(row[1:].tolist(), found, strict=False):
            if given != token:
                break
            n_chosen += 1
        if sampler.sampling.temperature > 0:
            sampler.put_back(draws[n_chosen:])
        for token in found[:n_chosen]:
            _settle(sampler, token)
        return found[:n_chosen]

    def use_threads(self, n: int) -> None:
        """See `ThreadsLoaded`.

        Raises:
            InputError: if there cannot be so many, or the weights are closed.
            EngineError: if the system gives no more threads; there is one then.
        """
        check_open(self.closed, "the model")
        if not 1 <= n <= self.most_threads:
            raise InputError(f"threads is {n}, must be 1 to {self.most_threads}, as it was opened")
        try:
            self.inner.use_threads(n)
        except RuntimeError as error:
            raise EngineError(f"native: the system gives no more threads: {error}") from error
        finally:
            self.threads = int(self.inner.threads)

    def use_two_stage_head(self, *, candidates: int = 256) -> None:
        """See `TwoStageHead`.

        Raises:
            InputError: if `candidates` is below 1, or the weights are closed.
        """
        check_open(self.closed, "the model")
        if candidates < 1:
            raise InputError(f"candidates is {candidates}, must be 1 or more")
        if self._coarse is None:
            self._coarse = self._head.coarse(self.threads)
        self.inner.use_two_stages(self._coarse, candidates)

    def use_bf16_prefill(self) -> None:
        """See `Bf16Prefill`.

        Raises:
            EngineUnavailable: if the processor has no tile instructions for bf16.
            InputError: if the weights are closed.
        """
        check_open(self.closed, "the model")
        if not self.inner.use_bf16_prefill():
            lacking = "this processor has no tile instructions for bf16 (AMX)"
            raise EngineUnavailable(f"native: {lacking}; leave prefill exact")

    def head_bytes(self) -> tuple[int, int]:
        """Return the bytes of the packed head, and of its coarse copy, 0 where there is none."""
        return self._head.n_bytes, 0 if self._coarse is None else self._coarse.n_bytes

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """See `Loaded`."""
        return self._run(self._checked([(session, tokens)]), every=True)

    def close(self) -> None:
        """See `Loaded`."""
        self.closed = True
        self.inner = self._head = self._coarse = None
        self._adapters = {}
        self._plain = _Adapted(None, self.key)

    def _chosen(self, name: str) -> "_Adapted":
        if name not in self._adapters:
            there = ", ".join(self._adapters) or "none"
            raise InputError(f"there is no adapter {name!r}; added are: {there}")
        return self._adapters[name]

    def _adapted(self, adapter: Adapter) -> "_Adapted":
        names = [
            f"layers.{i}.{part}"
            for i in range(len(self.decoder.layers))
            for part in ("qkv", "out", self.decoder.inner, "down")
        ]
        found = (adapter.pairs.get(name) for name in [*names, "head"])
        pairs = [pair and (aligned(pair[0]), aligned(pair[1])) for pair in found]
        return _Adapted(self.inner.adapter(pairs), narrowed_key(self.key, adapter.sha256))

    def _extend(self, table: int, block: FloatArray) -> None:
        self.inner.extend(table, aligned(block))

    def _run(self, rows: list[tuple[NativeSession, TokenArray]], *, every: bool) -> FloatArray:
        sessions = [session.inner for session, _ in rows]
        tokens = [aligned(row) for _, row in rows]
        scores: FloatArray = self.inner.step(sessions, tokens, every)
        return scores

    def _chooser(self, sampler: Sampler) -> Any:
        # The sampler is what remembers; its native counterpart hears what is new.
        chooser = self._choosers.get(sampler)
        if chooser is None:
            chooser = self._choosers[sampler] = chooser_of(sampler, self.vocab_size)
        for token in sampler.seen_since(chooser.n_seen):
            chooser.see(token)
        return chooser

    def _checked(
        self, batch: Sequence[tuple[Session, TokenArray]]
    ) -> list[tuple[NativeSession, TokenArray]]:
        check_open(self.closed, "the model")
        rows = check_batch(batch, NativeSession, owner=self, vocab_size=self.vocab_size)
        for session, row in rows:
            self._rotary.reach(session.length + row.size)
        return rows


def choose_alone(sampler: Sampler, logits: FloatArray) -> int:
    """Choose a token by the native part alone: what `Sampler.sample` does, to the last bit.

    Args:
        sampler: how, and what it has seen; it remembers the token.
        logits: (V,) float32.

    Returns:
        A token id.

    Raises:
        EngineError: as in `Sampler.sample`.
        EngineUnavailable: if there is no native part.
    """
    chooser = chooser_of(sampler, len(logits))
    for seen in sampler.seen_since(0):
        chooser.see(seen)
    token = int(chooser.choose(aligned(logits), _draw(sampler)))
    _settle(sampler, token)
    return token


def chooser_of(sampler: Sampler, vocab_size: int) -> Any:
    """Return the native counterpart of a sampler; it has seen nothing yet.

    Args:
        sampler: how to choose.
        vocab_size: V, logits in a row.

    Returns:
        What `Decoder.choose` takes.

    Raises:
        EngineUnavailable: if there is no native part.
    """
    how, forbidden = sampler.sampling, sampler.forbidden
    return _module().Chooser(
        temperature=how.temperature,
        top_k=min(how.top_k, vocab_size),
        top_p=how.top_p,
        min_p=how.min_p,
        penalty=how.repetition_penalty,
        vocab_size=vocab_size,
        forbidden=None if forbidden is None else forbidden.astype(np.uint8),
    )


def _settle(sampler: Sampler, token: int) -> None:
    if token < 0:
        check_highest(_FAILED[token])
    sampler.remember(token)


def _draw(sampler: Sampler | None) -> float:
    return 0.0 if sampler is None or sampler.sampling.temperature == 0 else sampler.draw()


def _module() -> Any:
    if native.module is None:
        raise EngineUnavailable(f"native: {native.missing}")
    return native.module


class NativeEngine:
    """See `KvEngine` and `WaysEngine`."""

    name: ClassVar[str] = "native"
    kv_kinds: ClassVar[tuple[KvKind, ...]] = ("fp16", "int8")

    def __init__(self, instructions: str = "") -> None:
        """Use one of `native.module.instruction_sets()`; "" for the best."""
        self._instructions = instructions

    def ways(self, profile: DeviceProfile) -> tuple[str, ...]:
        """See `WaysEngine`: none, for the best instructions are taken untold."""
        return ()

    def using(self, way: str) -> "NativeEngine":
        """See `WaysEngine`. Where there is no native part, `why_not` will say so.

        Raises:
            InputError: if this processor does not have it.
        """
        if native.module is not None and way not in native.module.instruction_sets():
            known = ", ".join(native.module.instruction_sets())
            raise InputError(f"native: there is no {way!r} on this processor, but {known}")
        return NativeEngine(way)

    def why_not(self, bundle: Bundle, profile: DeviceProfile, *, variant: str) -> str | None:
        """Return None if it can run a variant here, else a reason."""
        if native.module is None:
            return native.missing
        chosen = bundle.manifest.variants[variant]
        # Positions are looked up and never multiplied.
        plain = [name for name, form in chosen.matrices.items() if form is None]
        plain = [name for name in plain if name != "positions"]
        if plain:
            return f"it runs quantised matrices, and {plain[0]} is not quantised"
        if chosen.accuracy_level != 4:
            return (
                f"it rounds the inputs of products to int8, and the variant asks for accuracy "
                f"level {chosen.accuracy_level}, which does not"
            )
        return None

    def open(
        self,
        bundle: Bundle,
        *,
        variant: str,
        threads: int,
        adapter: Adapter | None = None,
        kv: KvKind = "fp16",
    ) -> NativeLoaded:
        """See `KvEngine`.

        Raises:
            EngineError: if the native part refuses what the bundle describes.
        """
        key = state_key(bundle, variant, self.name, None)
        weights = open_weights(bundle, variant)
        try:
            return NativeLoaded(
                weights, key, threads, adapter=adapter, kv=kv, instructions=self._instructions
            )
        except (ValueError, TypeError) as error:
            raise EngineError(f"native: {error}") from error
