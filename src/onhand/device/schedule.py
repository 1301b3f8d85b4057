"""What the next step of an engine carries when several requests want one: pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onhand.core.errors import InputError

__all__ = ["LEAST_PROMPT_TOKENS", "Limits", "Pace", "Turn", "plan_step"]

# Of a step beside running answers, however slow prompts are: so many rows cost an engine that
# streams its weights little more than one, and a prompt always goes on.
LEAST_PROMPT_TOKENS = 8
# Of a new measurement in a running mean: about the last ten count.
_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much an engine takes on at once.

    Attributes:
        max_active: requests of one step; later ones wait for their turn.
        max_waiting: requests that may wait; one more is refused.
        max_prompt_tokens: prompt tokens of a step, so that a new request and a cancelled one
            need not wait for the whole of a long prompt.
        max_stall: how many times as long as a step of running answers alone a step may take that
            carries parts of prompts as well, as far as was measured so far.
        max_ahead: tokens of an answer that are computed before its reader has taken them; then
            the answer rests.
    """

    max_active: int = 8
    max_waiting: int = 64
    max_prompt_tokens: int = 512
    max_stall: float = 3.0
    max_ahead: int = 16

    def __post_init__(self) -> None:
        for name, value, low in (
            ("max_active", self.max_active, 1),
            ("max_waiting", self.max_waiting, 0),
            ("max_prompt_tokens", self.max_prompt_tokens, LEAST_PROMPT_TOKENS),
            ("max_stall", self.max_stall, 1),
            ("max_ahead", self.max_ahead, 1),
        ):
            if not value >= low:  # so that NaN is refused as well
                raise InputError(f"limits: {name} is {value}, must be {low} or more")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one request asks of the next step.

    Attributes:
        n_tokens: tokens that it could take: what is left of its prompt, or the one of its answer
            that was chosen last; 0 while it rests.
        is_prompt: whether they are of its prompt.
    """

    n_tokens: int
    is_prompt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast an engine was of late.

    Attributes:
        answer_step_s: a step that carries running answers; None before there was one.
        prompt_token_s: what one prompt token adds to a step; None before there was one.
    """

    answer_step_s: float | None = None
    prompt_token_s: float | None = None

    def after(self, seconds: float, *, n_answers: int, n_prompt_tokens: int) -> "Pace":
        """Return the pace with one more step in it.

        Args:
            seconds: what the step took.
            n_answers: running answers in it.
            n_prompt_tokens: prompt tokens in it.

        Returns:
            The new pace.
        """
        if n_prompt_tokens == 0:
            return replace(self, answer_step_s=_mean(self.answer_step_s, seconds))
        if self.answer_step_s is None and n_answers > 0:
            # It carried the least of a prompt, which adds little; steps of answers alone correct
            # it, but while prompts keep coming there are none.
            return replace(self, answer_step_s=seconds)
        added_s = max(seconds - (self.answer_step_s or 0.0), 0.0)
        return replace(self, prompt_token_s=_mean(self.prompt_token_s, added_s / n_prompt_tokens))

    def prompt_tokens(self, limits: Limits) -> int:
        """Return how many prompt tokens fit beside running answers.

        Args:
            limits: they say how long a step may take.

        Returns:
            From `LEAST_PROMPT_TOKENS` to `limits.max_prompt_tokens`; the least while nothing was
            measured.
        """
        if self.answer_step_s is None or self.prompt_token_s is None:
            return LEAST_PROMPT_TOKENS
        room_s = (limits.max_stall - 1) * self.answer_step_s
        if room_s >= limits.max_prompt_tokens * self.prompt_token_s:
            return limits.max_prompt_tokens
        return max(int(room_s / self.prompt_token_s), LEAST_PROMPT_TOKENS)


def plan_step(turns: Sequence[Turn], limits: Limits, pace: Pace, *, n_begun: int = 0) -> list[int]:
    """Say how many tokens of each request the next step carries.

    The first `max_active` that do not rest are in it. Answers that run get their token, always;
    prompts share what is left beside them, first come, first served.

    Args:
        turns: of all requests, in the order they came.
        limits: how much a step may carry.
        pace: how fast steps were.
        n_begun: answers that had begun when `max_active` was lowered; so many go on together.

    Returns:
        Tokens for each request, 0 where it has to wait.
    """
    wanting = [i for i, turn in enumerate(turns) if turn.n_tokens > 0]
    answers = [i for i in wanting if not turns[i].is_prompt]
    active = wanting[: limits.max_active]
    if n_begun > limits.max_active:
        # No answer that has begun stands still, however many prompts came before it.
        active = sorted({*answers[:n_begun], *active[: max(limits.max_active - len(answers), 0)]})
    has_answers = any(not turns[i].is_prompt for i in active)
    n_left = pace.prompt_tokens(limits) if has_answers else limits.max_prompt_tokens
    plan = [0] * len(turns)
    for i in active:
        if turns[i].is_prompt:
            # One that gets nothing in this step keeps its place all the same.
            plan[i] = min(turns[i].n_tokens, n_left)
            n_left -= plan[i]
        else:
            plan[i] = 1
    return plan


def _mean(before: float | None, now: float) -> float:
    return now if before is None else before + _SHARE * (now - before)
