"""A step that ends in chosen tokens, in every engine."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypedDict, get_args

from onhand.core.arrays import TokenArray
from onhand.core.errors import EngineUnavailable, InputError
from onhand.device.engines.base import (
    Bf16Prefill,
    DraftChecker,
    Engine,
    KvEngine,
    KvKind,
    Loaded,
    Session,
    StepSampler,
    TwoStageHead,
)
from onhand.device.sampling import Sampler

__all__ = [
    "EngineWays",
    "HeadUse",
    "PrefillUse",
    "StepCheck",
    "StepSample",
    "check_by_scores",
    "check_samplers",
    "opener_of",
    "step_check_of",
    "step_sample_of",
    "use_head",
    "use_prefill",
]

HeadUse = Literal["full", "two-stage"]
PrefillUse = Literal["exact", "bf16"]


class EngineWays(TypedDict, total=False):
    """How an engine is to compute, by names and defaults of `onhand.device.opening.open_engine`."""

    head: HeadUse
    kv: KvKind | None
    prefill: PrefillUse


StepSample = Callable[[Sequence[tuple[Session, TokenArray]], Sequence[Sampler | None]], list[int]]
StepCheck = Callable[[Session, TokenArray, Sampler], list[int]]


def step_sample_of(loaded: Loaded) -> StepSample:
    """Return `StepSampler.step_sample` of an engine, or the same made of `step` and `sample`.

    Args:
        loaded: the weights.

    Returns:
        What takes a batch and its samplers, and returns token ids.
    """
    if isinstance(loaded, StepSampler):
        return loaded.step_sample
    return partial(sample_by_scores, loaded)


def sample_by_scores(
    loaded: Loaded,
    batch: Sequence[tuple[Session, TokenArray]],
    samplers: Sequence[Sampler | None],
) -> list[int]:
    """Choose tokens by their scores; see `StepSampler.step_sample`.

    Args:
        loaded: the weights.
        batch: sessions and tokens.
        samplers: one for each row.

    Returns:
        Token ids, -1 where there is no sampler.
    """
    check_samplers(len(batch), samplers)
    logits = loaded.step(batch)
    return [
        -1 if sampler is None else sampler.sample(row)
        for row, sampler in zip(logits, samplers, strict=True)
    ]


def step_check_of(loaded: Loaded) -> StepCheck:
    """Return `DraftChecker.step_check` of an engine, or the same made of `score` and `sample`.

    Args:
        loaded: the weights.

    Returns:
        What takes a session, tokens and a sampler, and returns token ids.
    """
    if isinstance(loaded, DraftChecker):
        return loaded.step_check
    return partial(check_by_scores, loaded)


def check_by_scores(
    loaded: Loaded, session: Session, tokens: TokenArray, sampler: Sampler
) -> list[int]:
    """Check drafted tokens by their scores; see `DraftChecker.step_check`.

    Args:
        loaded: the weights.
        session: one of its sessions.
        tokens: (T,) int64.
        sampler: how to choose.

    Returns:
        Up to T token ids.
    """
    chosen: list[int] = []
    for row, following in zip(loaded.score(session, tokens), [*tokens[1:], None], strict=True):
        chosen.append(sampler.sample(row))
        if chosen[-1] != following:
            break
    return chosen


def check_samplers(n_rows: int, samplers: Sequence[Sampler | None]) -> None:
    """Refuse samplers that do not match a batch.

    Args:
        n_rows: of the batch.
        samplers: one for each row.

    Raises:
        InputError: if there are more or fewer than rows, or one is given twice.
    """
    if len(samplers) != n_rows:
        raise InputError(f"{len(samplers)} samplers for {n_rows} rows, expected one for each")
    given = [id(sampler) for sampler in samplers if sampler is not None]
    if len(set(given)) != len(given):
        raise InputError("a sampler in a step is given twice; each conversation needs its own")


def opener_of(engine: Engine, kv: KvKind | None) -> Callable[..., Loaded]:
    """Return `Engine.open` that keeps keys and values as wanted.

    Args:
        engine: the engine.
        kv: "fp16" or "int8"; None for the engine's own way.

    Returns:
        What takes the arguments of `Engine.open`.

    Raises:
        InputError: if there is no such way.
        EngineUnavailable: if the engine cannot.
    """
    if kv is None:
        return engine.open
    if kv not in get_args(KvKind):
        raise InputError(f"kv is {kv!r}, must be one of {', '.join(get_args(KvKind))}")
    if isinstance(engine, KvEngine) and kv in engine.kv_kinds:
        return partial(engine.open, kv=kv)
    raise EngineUnavailable(f"it does not keep keys and values as {kv}")


def use_head(loaded: Loaded, head: HeadUse, *, engine_name: str) -> None:
    """Say how the head of freshly opened weights is to be used; close them where it cannot be.

    Args:
        loaded: the weights.
        head: "full" scores every token; "two-stage" is `TwoStageHead`.
        engine_name: whose they are, for the message.

    Raises:
        InputError: if there is no such use of a head.
        EngineUnavailable: if the engine has no head of two stages.
    """
    if head not in get_args(HeadUse):
        loaded.close()
        raise InputError(f"head is {head!r}, must be 'full' or 'two-stage'")
    if head == "two-stage":
        if not isinstance(loaded, TwoStageHead):
            loaded.close()
            raise EngineUnavailable(f"{engine_name} has no head of two stages; native has one")
        loaded.use_two_stage_head()


def use_prefill(loaded: Loaded, prefill: PrefillUse, *, engine_name: str) -> None:
    """Say how freshly opened weights are to read prompts; close them where they cannot.

    Args:
        loaded: the weights.
        prefill: "exact" gives the same bits however a prompt is cut; "bf16" is `Bf16Prefill`.
        engine_name: whose they are, for the message.

    Raises:
        InputError: if there is no such way.
        EngineUnavailable: if the engine has none in bf16, or the processor no fast one.
    """
    if prefill not in get_args(PrefillUse):
        loaded.close()
        raise InputError(f"prefill is {prefill!r}, must be 'exact' or 'bf16'")
    if prefill == "exact":
        return
    try:
        if not isinstance(loaded, Bf16Prefill):
            raise EngineUnavailable(f"{engine_name} has no prefill in bf16; native has one")
        loaded.use_bf16_prefill()
    except EngineUnavailable:
        loaded.close()
        raise
