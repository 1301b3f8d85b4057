"""The device first, and another backend where the device's answer is unsure.

What the device computes is held back until it is sure by the probabilities of its tokens. An unsure
answer is not thrown away before another backend gives content: where none does in time, it is shown
after all, since an unsure answer is better than none.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace

from onhand.core.errors import OnhandError
from onhand.device.serving.asks import Ask, Ending, Piece, Score
from onhand.device.serving.routing.attempts import Attempt, Attempts, Part, may_pass_on
from onhand.device.serving.routing.confidence import Judge, Verdict, confidence
from onhand.device.serving.routing.contests import Lane, Noting, Rules, contest, rest

__all__ = ["CascadeRules", "cascaded", "shown", "with_scores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeRules:
    """How long an answer may be held back.

    Attributes:
        judge: when the device is sure.
        wait_s: seconds after which it is judged by what there is; an answer that is wanted as a
            whole, and sure by then, may go on.
        cloud_wait_s: seconds that another backend then has for its first content.
        is_beside: whether the other backend is asked at the beginning, beside the device; what
            is known first is shown: a sure answer of the device, or the other's content.
        is_whole: whether the reader wants the answer as a whole, so that nothing is lost by
            judging all of it.
    """

    judge: Judge
    wait_s: float = 2.0
    cloud_wait_s: float = 10.0
    is_beside: bool = False
    is_whole: bool = False


def with_scores(ask: Ask, judge: Judge) -> Ask:
    """Return a request with the scores that a judge needs.

    Args:
        ask: what the client wants.
        judge: what is needed beside it.
    """
    return replace(ask, n_scores=max(ask.n_scores or 0, judge.n_scores))


def shown(part: Part, ask: Ask) -> Part | None:
    """Return a part as its client wants it: without the scores that only the judge needed.

    Args:
        part: of an answer to `with_scores(ask, ...)`.
        ask: what the client wants.

    Returns:
        None where nothing is left of it.
    """
    if not isinstance(part, Piece) or not part.scores:
        return part
    if ask.n_scores is None:
        bare = replace(part, scores=())
        return None if bare == Piece("") else bare
    n = ask.n_scores
    return replace(
        part, scores=tuple(replace(score, others=score.others[:n]) for score in part.scores)
    )


async def cascaded(
    near: Lane, far: Sequence[Lane], rules: CascadeRules, *, note: Noting,
    won: Callable[[str, str], None],
) -> AsyncGenerator[Part]:  # fmt: skip
    """Yield the device's answer where it is sure, else another's.

    Args:
        near: the device.
        far: the others, the preferred first; at least one.
        rules: how long to hold back.
        note: told of each step.
        won: told whose answer it is and why, before its first part.

    Yields:
        The parts of one answer.

    Raises:
        OnhandError: the last failure where all failed, or what the winner raised later.
    """
    attempts = Attempts()
    held = _Held(near, rules, attempts, note)
    try:
        beside = far[0].start(attempts, note) if rules.is_beside else None
        verdict = await held.judged(beside)
        if verdict == "sure":
            if beside is not None:
                note("lost", beside.name)
                attempts.drop(beside)
            note("won", near.name)
            won(near.name, held.why)
            async for part in held.all():
                yield part
            return
        note("escalated", near.name)
        found = await _elsewhere(beside, far, rules, attempts, note, has_held=held.is_alive)
        if found is None:
            note("kept-unsure", near.name)
            held.drop_others()
            won(near.name, f"{held.why}, and nobody else answered in time")
            async for part in held.all():
                yield part
            return
        winner, part = found
        held.drop()
        won(winner.name, held.why)
        yield part
        async for later in rest(winner, part):
            yield later
    finally:
        await attempts.close()


class _Held:
    """The device's answer, as far as it was read and not shown."""

    def __init__(self, lane: Lane, rules: CascadeRules, attempts: Attempts, note: Noting) -> None:
        self._ask = lane.ask
        self._rules = rules
        self._attempts = attempts
        self._note = note
        asked = replace(lane, ask=with_scores(lane.ask, rules.judge))
        self._attempt = asked.start(attempts, note)
        self._parts: list[Part] = []
        self._scores: list[Score] = []
        self.is_alive = True
        self.why = ""

    async def judged(self, beside: Attempt | None) -> Verdict:
        """Read until it can be judged, or another's content is there.

        Raises:
            OnhandError: if the request itself is wrong.
        """
        until_s: float | None = self._now() + self._rules.wait_s
        while True:
            verdict = self._verdict(is_late=False)
            if verdict != "open":
                return verdict
            waiting = {self._attempt.part()} | ({beside.part()} if beside is not None else set())
            left_s = None if until_s is None else max(0.0, until_s - self._now())
            done, _ = await asyncio.wait(
                waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if self._attempt.part() in done:
                if not self._read():
                    return "unsure"
            elif not done:
                if (verdict := self._verdict(is_late=True)) != "open":
                    return verdict
                until_s = None  # sure so far, and its reader wants all of it
            elif beside is not None and _is_content(beside):
                self.why = "the other answer began before the device was sure"
                return "unsure"
            else:
                beside = None  # it failed; `_elsewhere` sees how

    def drop(self) -> None:
        """Break it off."""
        if self.is_alive:
            self._note("lost", self._attempt.name)
            self._attempts.drop(self._attempt)

    def drop_others(self) -> None:
        """Break off all but it."""
        self._attempts.drop_others(self._attempt)

    async def all(self) -> AsyncGenerator[Part]:
        """Yield what was held back, and what comes after."""
        for part in self._parts:
            if (seen := shown(part, self._ask)) is not None:
                yield seen
        last = self._parts[-1] if self._parts else Piece("")
        async for part in rest(self._attempt, last):
            if (seen := shown(part, self._ask)) is not None:
                yield seen

    def _read(self) -> bool:
        try:
            part = self._attempt.taken()
        except OnhandError as error:
            self._note("failed", self._attempt.name)
            self._attempts.drop(self._attempt)
            self.is_alive = False
            self.why = "the device failed"
            if not may_pass_on(error):
                raise
            return False
        self._parts.append(part)
        if isinstance(part, Piece):
            self._scores.extend(part.scores)
        return True

    def _verdict(self, *, is_late: bool) -> Verdict:
        judge = self._rules.judge
        is_end = bool(self._parts) and isinstance(self._parts[-1], Ending)
        verdict = judge.verdict(self._scores, is_end=is_end or is_late)
        if verdict == "sure" and self._rules.is_whole and not is_end:
            return "open"  # nobody reads before the end: all of it is judged
        found = confidence(self._scores, judge.measure)
        if is_late and not self._scores:
            self.why = "the device had nothing to show in time"
        elif verdict != "open":
            self.why = f"the device is {verdict}: {_compared(found, judge.threshold)}"
        return verdict

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _is_content(attempt: Attempt) -> bool:
    part = attempt.part()
    return part.done() and not part.cancelled() and part.exception() is None


async def _elsewhere(
    beside: Attempt | None, far: Sequence[Lane], rules: CascadeRules, attempts: Attempts,
    note: Noting, *, has_held: bool,
) -> tuple[Attempt, Part] | None:  # fmt: skip
    # Without a held answer to fall back on there is nothing to be late for.
    timeout = asyncio.timeout(rules.cloud_wait_s if has_held else None)
    try:
        async with timeout:
            if beside is not None:
                try:
                    part = await beside.next()
                except OnhandError as error:
                    note("failed", beside.name)
                    attempts.drop(beside)
                    if not may_pass_on(error):
                        raise
                    far = far[1:]
                    if not far:
                        raise
                else:
                    note("won", beside.name)
                    return beside, part
            return await contest(far, Rules(), attempts=attempts, note=note)
    except TimeoutError:
        if not timeout.expired():
            raise
        return None
    except OnhandError:
        if not has_held:
            raise
        return None


def _compared(found: float, threshold: float) -> str:
    # As many digits as tell them apart.
    sign = ">=" if found >= threshold else "<"
    shown = [f"{found:.{n}f} {sign} {threshold:.{n}f}" for n in (2, 4, 6, 9)]
    differing = (one for one in shown if len(set(one.split(f" {sign} "))) > 1)
    return next(differing, shown[0])
