"""How many tokens to draft: as many as pay, judged by what was accepted and what steps cost.

Nothing here reads a clock: seconds come in, a number of tokens comes out.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

__all__ = ["MOST_DRAFTED", "Acceptance", "Choice", "DraftPace", "StepCosts", "best_length"]

MOST_DRAFTED: Final = 15

# The part of the time of plain decoding that drafts may cost in all, before what they win.
_PRICE = 0.04
# A plain step that is quicker gains nothing: deciding takes a tenth of it in Python.
_LEAST_STEP_S = 0.0005
_FADE = 0.998  # of both sums, for each token
_LEAST_GAIN = 1.02
# What a row more may cost beside the first, where nothing tells.
_LEAST_SLOPE, _MOST_SLOPE = 0.03, 0.25
_REFRESH_STEPS = 64  # drafted steps until a plain one is timed again
_FIRST_WAIT, _LONGEST_WAIT = 16, 512  # tokens between trials


def expected_tokens(acceptance: float, n_drafted: int) -> float:
    """Return how many tokens a step yields if each drafted one is right independently.

    Args:
        acceptance: probability that a token is right if all before it are, 0 to 1.
        n_drafted: tokens drafted.

    Returns:
        From 1 to `n_drafted` + 1: the right ones, and the one chosen after them.

    Source:
        Equation 1 of arXiv:2211.17192.
    """
    total, power = 1.0, 1.0
    for _ in range(n_drafted):
        power *= acceptance
        total += power
    return total


def best_length(acceptance: float, step_s: Sequence[float], *, reach: int | None = None) -> int:
    """Return the number of drafted tokens that gives the most tokens per second.

    Args:
        acceptance: as in `expected_tokens`.
        step_s: seconds of a step with 0, 1, 2, ... drafted tokens, drafting and choosing included.
        reach: most tokens to draft; None for as many as `step_s` tells of.

    Returns:
        The number; 0 where no draft wins at least 2 %.
    """
    most = len(step_s) - 1 if reach is None else min(reach, len(step_s) - 1)
    best, best_rate = 0, _LEAST_GAIN / step_s[0]
    total, power = 1.0, 1.0
    for n in range(1, most + 1):
        power *= acceptance
        total += power
        if total / step_s[n] > best_rate:
            best, best_rate = n, total / step_s[n]
    return best


@dataclass(slots=True)
class Acceptance:
    """The share of compared tokens that were right, of late ones most.

    Attributes:
        right: right ones, older ones counting less.
        compared: all of them, likewise. Begins as if one of two had been right.
    """

    right: float = 1.0
    compared: float = 2.0

    def record(self, n_right: int, n_compared: int) -> None:
        """Count tokens."""
        # The weight of a token is halved by the 34 that come after it.
        fade = 0.98**n_compared
        self.right = self.right * fade + n_right
        self.compared = self.compared * fade + n_compared

    def share(self) -> float:
        """Return it, 0 to 1."""
        return self.right / self.compared


class StepCosts:
    """What a step costs by its rows: medians of what was timed, never falling, filled between."""

    _KEPT: Final = 9
    _ENOUGH: Final = 3  # times of a number of rows until they are believed
    _OLD: Final = 512

    def __init__(self) -> None:
        self._samples: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._last: dict[int, int] = {}
        self._n_recorded = 0
        self._row_s = math.inf
        self._curve: list[float] = []

    def record(self, rows: int, seconds: float) -> None:
        """Keep the time of one step.

        Args:
            rows: tokens fed, at least 1.
            seconds: what it took, drafting and choosing included.
        """
        self._n_recorded += 1
        self._last[rows] = self._n_recorded
        kept = self._samples.setdefault(rows, deque(maxlen=self._KEPT))
        # A clock may be too coarse to see a tiny step.
        kept.append(max(seconds, 1e-9))
        median = sorted(kept)[len(kept) // 2] if len(kept) >= self._ENOUGH else min(kept)
        before = self._medians.get(rows)
        self._medians[rows] = median
        # Drawing the curve anew costs more than a tiny model's token: only when it has moved.
        if before is None or abs(median - before) > 0.02 * before or self._n_recorded % 64 == 0:
            self._curve = []

    def prompt(self, rows: int, seconds: float) -> None:
        """Keep what each row of a prompt cost.

        Args:
            rows: tokens fed, more than `MOST_DRAFTED` + 1.
            seconds: what the step took.
        """
        self._row_s = seconds / rows

    def is_measured(self, rows: int) -> bool:
        """Whether steps of so many rows were timed often enough of late."""
        return len(self._samples.get(rows, ())) >= self._ENOUGH

    def typical(self, rows: int) -> float:
        """Return the median of the times of a number of rows that was timed."""
        return self._medians[rows]

    def widest(self) -> int:
        """Return the most rows that were timed lately."""
        return max(self._samples, default=0)

    def seconds(self) -> Sequence[float]:
        """Return (MOST_DRAFTED + 1,) seconds for 1, 2, ... rows, or () before a step of 1 row."""
        if not self._curve and 1 in self._samples:
            self._forget_old()
            rows = sorted(self._medians)
            values = _never_falling(
                [self._believed(n) for n in rows], [len(self._samples[n]) for n in rows]
            )
            wanted = np.arange(1, MOST_DRAFTED + 2)
            curve = np.interp(wanted, rows, values)
            beyond = np.maximum(wanted - rows[-1], 0)
            self._curve = (curve + beyond * self._slope(rows[-1], values)).tolist()
        return self._curve

    def _believed(self, rows: int) -> float:
        # The first step of its width may meet cold caches, or another process: it is tried again.
        if self.is_measured(rows):
            return self._medians[rows]
        return min(self._medians[rows], self._medians[1] * (1 + _MOST_SLOPE * (rows - 1)))

    def _slope(self, widest: int, values: Sequence[float]) -> float:
        """Guess what a row more costs beyond what was timed."""
        plain = values[0]
        if widest > 1:
            return max((values[-1] - plain) / (widest - 1), _LEAST_SLOPE * plain)
        # A prompt's rows are the cheapest there are, but for a first prompt on cold caches.
        return min(self._row_s, _MOST_SLOPE * plain)

    def _forget_old(self) -> None:
        for rows, last in list(self._last.items()):
            if rows > 1 and self._n_recorded - last > self._OLD:
                del self._samples[rows], self._medians[rows], self._last[rows]


def _never_falling(values: list[float], weights: list[int]) -> list[float]:
    """Return the nearest values, by weighted squares, of which none is below the one before.

    Source:
        Pool adjacent violators: Ayer et al., Annals of Mathematical Statistics 26 (1955).
    """
    pools: list[tuple[float, int, int]] = []  # mean, weight, members
    for value, weight in zip(values, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, n, m), (b, k, j) = pools[-2:]
            pools[-2:] = [((a * n + b * k) / (n + k), n + k, m + j)]
    return [mean for mean, _, members in pools for _ in range(members)]


@dataclass(frozen=True, slots=True)
class Choice:
    """What to do in a step.

    Attributes:
        n_tokens: to draft; 0 for a plain step.
        why: "pays" or "trial" for a draft; "nothing" to guess, or a guess is held back: "off"
            (it does not pay), "price" (it might cost too much) or "timing" (a plain step is due).
    """

    n_tokens: int
    why: Literal["pays", "trial", "nothing", "off", "price", "timing"]


@dataclass(slots=True)
class DraftPace:
    """Learns from every step of a session and says how many tokens to draft in the next.

    What drafts cost beyond plain decoding, less what they won, stays below a share of the time
    that plain decoding would have taken: whatever is accepted, the whole takes at most 1 / 0.95
    of that. Both sums fade, so that it holds for every few hundred tokens as well, and no win
    of long ago is gambled away; that the sum of faded parts keeps the bound is plain algebra.

    Attributes:
        costs: seconds of a step by its rows.
        gives_up: whether plain steps turned out too quick to be worth a thought, for good.
        balance_s: seconds won or lost, of late ones most.
        plain_s: seconds that plain decoding would have taken, likewise.
    """

    costs: StepCosts = field(default_factory=StepCosts)
    gives_up: bool = False
    balance_s: float = 0.0
    plain_s: float = 0.0
    _grades: dict[int, Acceptance] = field(default_factory=dict)
    _read_s: float = 0.0  # per token that a drafter reads
    _since_plain: int = 0
    _since_trial: int = 0
    _wait: int = _FIRST_WAIT

    def acceptance(self, grade: int) -> float:
        """Return the share of tokens that are right in guesses of a grade."""
        known = self._grades.get(grade)
        return Acceptance().share() if known is None else known.share()

    def decide(
        self, grade: int | None, *, most: int = MOST_DRAFTED, is_free: bool, backlog: int = 0
    ) -> Choice:
        """Say how many tokens to draft.

        Args:
            grade: of the guess; None if there is none.
            most: tokens that there is room for.
            is_free: whether guesses are known without being paid for, so that those held back
                are compared as well.
            backlog: tokens that the drafter has to read first.

        Returns:
            The number, and why.
        """
        if grade is None or most < 1:
            return Choice(0, "nothing")
        step_s = self.costs.seconds()
        if not step_s or self._since_plain >= _REFRESH_STEPS:
            return Choice(0, "timing")
        # Into rows that were not timed yet it goes step by step.
        reach = min(most, 2 * max(self.costs.widest(), 1) - 1)
        share = self.acceptance(grade)
        n = best_length(share, step_s, reach=reach)
        if n == 0:
            if is_free or self._since_trial < self._wait:
                return Choice(0, "off")
            price = backlog * self._read_s + self._risk(1)
            return Choice(1, "trial") if self._affords(price) else Choice(0, "price")
        while n > 0 and not self._affords(self._risk(n)):
            n = best_length(share, step_s, reach=n - 1)
        return Choice(n, "pays" if n else "price")

    def _risk(self, n: int) -> float:
        """Return what a step of n drafted tokens may cost in vain, in seconds."""
        step_s = self.costs.seconds()
        extra_s = step_s[n] - step_s[0]
        return extra_s if self.costs.is_measured(n + 1) else 2 * extra_s

    def _affords(self, price_s: float) -> bool:
        return self.balance_s - price_s >= -_PRICE * self.plain_s

    def prompt(self, rows: int, seconds: float) -> None:
        """Learn from the step that read a prompt what many rows cost."""
        if rows > MOST_DRAFTED + 1:
            self.costs.prompt(rows, seconds)

    def read(self, n_tokens: int, seconds: float, *, choice: Choice) -> None:
        """Learn what a drafter's reading cost.

        Args:
            n_tokens: that it read.
            seconds: what it took.
            choice: what it was done for; a trial pays for it.
        """
        self._read_s = seconds / n_tokens
        if choice.why == "trial":
            self.balance_s -= seconds

    def step(self, n_drafted: int, n_chosen: int, *, step_s: float) -> None:
        """Learn from a step.

        Args:
            n_drafted: tokens drafted; 0 for a plain step.
            n_chosen: tokens that it yielded, at least 1.
            step_s: seconds of drafting, of the model, and of choosing tokens.
        """
        self.costs.record(n_drafted + 1, step_s)
        self._since_trial += n_chosen
        fade = _FADE**n_chosen
        self.balance_s *= fade
        self.plain_s *= fade
        if n_drafted == 0:
            self._since_plain = 0
            self.plain_s += step_s
            self.gives_up = self.costs.is_measured(1) and self.costs.typical(1) < _LEAST_STEP_S
            return
        self._since_plain += 1
        # Not this step's own time: what else the machine does meanwhile is no draft's fault.
        plain_s, taken_s = self.costs.seconds()[0], self.costs.typical(n_drafted + 1)
        self.balance_s += n_chosen * plain_s - min(taken_s, (n_drafted + 1) * plain_s)
        self.plain_s += n_chosen * plain_s

    def compared(self, grade: int, n_right: int, n_compared: int) -> None:
        """Learn how many of the compared tokens of a guess were right."""
        self._grades.setdefault(grade, Acceptance()).record(n_right, n_compared)

    def tried(self, n_right: int) -> None:
        """Learn from a trial: try again soon after a right token, later after a wrong one."""
        self._since_trial = 0
        self._wait = max(self._wait // 8, 1) if n_right else min(self._wait * 2, _LONGEST_WAIT)
