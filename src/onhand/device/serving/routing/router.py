"""A model that several backends can answer for: decides who does, and carries that out."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from onhand.device.privacy.veil import Redaction
from onhand.device.sampling import Sampling
from onhand.device.serving.asks import Ask, Backend, Ending, Source, TextModel
from onhand.device.serving.governor.governed import (
    Governable,
    HoldsGovernable,
    PrefersVariant,
)
from onhand.device.serving.kinds import near_of
from onhand.device.serving.refusals import RefusedRequest
from onhand.device.serving.routing.asking import needs_of, prompt_tokens_of, refusal_of_decision
from onhand.device.serving.routing.attempts import Part
from onhand.device.serving.routing.cascade import CascadeRules, cascaded
from onhand.device.serving.routing.contests import Event, Lane, Rules, contested
from onhand.device.serving.routing.counts import RouteCounts
from onhand.device.serving.routing.meters import Meter, Purse, TokenBucket
from onhand.device.serving.routing.policies import decide
from onhand.device.serving.routing.private import decided
from onhand.device.serving.routing.running import Running
from onhand.device.serving.routing.settings import RoutingSettings
from onhand.device.serving.routing.situation import (
    Candidate,
    Decision,
    Power,
    Situation,
    stricter,
)
from onhand.device.serving.wishes import Privacy

__all__ = ["Means", "Routed", "RoutedModel", "Target"]

_USUAL_TOKENS: Final = 256  # of an answer whose length nobody bounds
_DRAW: Final = random.SystemRandom().random


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One backend that can answer for a model.

    Attributes:
        name: of it.
        backend: it; says at once where it has no room.
        patient: it; waits for room, as there is nobody else to ask.
        facts: what is known of it now; its speed is measured by the router.
    """

    name: str
    backend: Backend
    patient: Backend
    facts: Callable[[], Candidate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What all routed models of a server share.

    Attributes:
        counts: for `/metrics`.
        purse: what may be spent.
        hedges: how many hedges may be sent.
        tenants: the class that each tenant's requests have at least.
        power: what the device runs on.
        draw: a number from 0 to below 1.
        redaction: takes personal data out of requests; None where nothing does.
    """

    counts: RouteCounts
    purse: Purse = field(default_factory=lambda: Purse(0.0, now=time.time))
    hedges: TokenBucket = field(default_factory=lambda: TokenBucket(0.05))
    tenants: Mapping[str, Privacy] = field(default_factory=dict)
    power: Callable[[], Power] = Power
    draw: Callable[[], float] = _DRAW
    redaction: Redaction | None = None


class RoutedModel:
    """See `TextModel`. One event loop."""

    def __init__(
        self, front: TextModel, targets: Sequence[Target], *, balanced: Backend,
        settings: RoutingSettings, means: Means,
    ) -> None:  # fmt: skip
        """Put backends behind a name.

        Args:
            front: says what the model is called and how it samples; closed with this one. Where
                it is on this device it is one of the targets as well.
            targets: what can answer, at least one.
            balanced: all of them as one, which keeps to `Ask.only`.
            settings: who answers.
            means: what routed models share.
        """
        self._front = front
        self._targets = {target.name: target for target in targets}
        self._meters = {name: Meter(quantile=settings.hedge_quantile) for name in self._targets}
        self._settings = settings
        self._means = means
        self._balanced = balanced
        self._running = Running()
        self._cloud_share = 0.0

    @property
    def name(self) -> str:
        """What requests call it."""
        return self._front.name

    @property
    def usual(self) -> Sampling:
        """The sampling that the model's makers suggest."""
        return self._front.usual

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together, of whatever takes most."""
        return max(self._front.context, *(one.facts().context for one in self._targets.values()))

    @property
    def engine_name(self) -> str:
        """What computes its answers."""
        return self._front.engine_name

    @property
    def fingerprint(self) -> str:
        """The same for models that answer alike, to the bit."""
        return repr((self._front.fingerprint, sorted(self._targets), self._settings.policy))

    @property
    def n_active(self) -> int:
        """Answers that have not ended."""
        return max(self._running.n_active, self._front.n_active)

    @property
    def prefix_cache_bytes(self) -> int:
        """Memory of what ended conversations remember."""
        return self._front.prefix_cache_bytes

    @property
    def near(self) -> TextModel | None:
        """The model of this device; None where there is none."""
        return near_of(self._front)

    def governables(self) -> Sequence[Governable]:
        """See `HoldsGovernable`: those of the model of this device."""
        near: object = self.near
        return near.governables() if isinstance(near, HoldsGovernable) else ()

    def govern_variant(self, name: str | None) -> None:
        """See `PrefersVariant`: the model of this device does, where it can.

        Args:
            name: of the variant; None for the usual one.
        """
        near: object = self.near
        if isinstance(near, PrefersVariant):
            near.govern_variant(name)

    def use_cloud_share(self, share: float) -> None:
        """Give so many of new answers elsewhere, 0 to 1, where their policy lets them.

        Args:
            share: as a governor wants it; from any thread.
        """
        self._cloud_share = min(max(share, 0.0), 1.0)

    def break_off(self) -> None:
        """End all answers that run, and take no more; from any thread."""
        self._front.break_off()
        self._running.break_off()

    def close(self) -> None:
        """Release what it holds; safe to call twice."""
        self._front.close()

    async def answer(self, ask: Ask) -> AsyncGenerator[Part]:
        """See `Backend`.

        Yields:
            As in `Backend`.

        Raises:
            OnhandError: if nobody can answer, or as in `Backend`.
        """
        async with aclosing(self.routed(ask).parts()) as parts:
            async for part in parts:
                yield part

    def routed(self, ask: Ask) -> "Routed":
        """Decide who answers; nothing is sent yet.

        Args:
            ask: what is asked.

        Returns:
            The answer, not begun; for the mode "defer" there is none now.

        Raises:
            RefusedRequest: if nobody can or may answer.
            InputError: if the request chooses a policy that it may not.
        """
        means = self._means
        privacy = self.privacy_of(ask)
        ask = decided(ask, privacy, redaction=means.redaction, counted=means.counts.left)
        now = self._situation(ask)
        policy = self._settings.allowed(ask.wishes.policy)
        decision = decide(now, policy)
        self._means.counts.decided(policy, decision)
        if decision.mode == "refuse":
            raise RefusedRequest(refusal_of_decision(decision))
        routed = Routed(self, ask, decision, prompt_tokens=now.prompt_tokens, means=self._means)
        routed.announce()
        return routed

    def privacy_of(self, ask: Ask) -> Privacy:
        """Return the class that counts: the strictest of request, tenant and route."""
        return stricter(
            ask.wishes.privacy,
            self._settings.least_privacy,
            self._means.tenants.get(ask.tenant, "public"),
        )

    def _situation(self, ask: Ask) -> Situation:
        candidates = tuple(self.candidate(name) for name in self._targets)
        prompt_tokens = prompt_tokens_of(ask)
        return Situation(
            candidates=candidates,
            privacy=ask.wishes.privacy,
            can_redact=self._means.redaction is not None,
            needs=needs_of(ask),
            prompt_tokens=prompt_tokens,
            max_tokens=ask.max_tokens or _USUAL_TOKENS,
            deadline_s=None if ask.deadline_s is None else ask.deadline_s - _loop_s(),
            budget_left=self._means.purse.left,
            power=self._means.power(),
            cloud_share=self._cloud_share,
            is_handed_on=ask.wire is not None and ask.wire.n_hops > 0,
            draw=self._means.draw(),
            defer=ask.wishes.defer,
        )

    def candidate(self, name: str) -> Candidate:
        """Return what is known of a backend now, how fast it was here included."""
        facts = self._targets[name].facts()
        meter = self._meters[name]
        n_active = max(facts.n_active, meter.n_active)
        return replace(facts, expected=meter.expected, n_active=n_active)

    def lane(self, name: str, ask: Ask, *, is_last: bool) -> Lane:
        """Return a backend as it may be asked.

        Args:
            name: of it.
            ask: what it is asked.
            is_last: whether nobody is asked after it.
        """
        target = self._targets[name]
        backend = target.patient if is_last else target.backend
        return Lane(name=name, backend=backend, ask=ask, meter=self._meters[name])

    def hedge_s(self, name: str) -> float | None:
        """Return the seconds after which an answer of a backend is slower than usual."""
        return self._meters[name].slow_s or self._settings.hedge_s or None

    def cascade_rules(self, *, is_whole: bool) -> CascadeRules:
        """Return how long the device's answer may be held back."""
        return CascadeRules(
            judge=self._settings.judge,
            wait_s=self._settings.cascade_wait_s,
            cloud_wait_s=self._settings.cascade_cloud_wait_s,
            is_beside=self._settings.cascade_beside,
            is_whole=is_whole,
        )

    def balanced(self, ask: Ask) -> AsyncGenerator[Part]:
        """Return the answer of whoever has room among `Ask.only`."""
        return self._balanced.answer(ask)

    def begun(self, parts: AsyncGenerator[Part]) -> AsyncGenerator[Part]:
        """Return an answer's parts, counted among those that run."""
        self._means.hedges.earn()
        return self._running.held(parts)


class Routed:
    """One answer whose backends are chosen. Made by `RoutedModel.routed`.

    Attributes:
        decision: who is asked, and how.
    """

    def __init__(
        self, model: RoutedModel, ask: Ask, decision: Decision, *, prompt_tokens: int,
        means: Means,
    ) -> None:  # fmt: skip
        self.decision = decision
        self._means = means
        self._model = model
        self._ask = ask
        self._prompt_tokens = prompt_tokens
        self._winner = decision.targets[0] if decision.targets else ""
        # A backend that is several itself says which of them it is.
        self._sources: dict[str, Source] = {}

    def announce(self) -> None:
        """Tell who is to answer, as far as that is decided."""
        if self._winner and self.decision.mode != "balance":
            self._tell(self._winner, self.decision.reason)

    async def parts(self) -> AsyncGenerator[Part]:
        """Ask, and yield the answer.

        Yields:
            As in `Backend`.

        Raises:
            OnhandError: as in `Backend`.
        """
        async with (
            aclosing(self._carried_out()) as made,
            aclosing(self._model.begun(made)) as parts,
        ):
            async for part in parts:
                if isinstance(part, Ending):
                    self._ended(part)
                yield part

    def _carried_out(self) -> AsyncGenerator[Part]:
        decision, means = self.decision, self._means
        if decision.mode == "balance":
            told = self._chosen if self._ask.told is not None else None
            only = frozenset(decision.targets)
            return self._model.balanced(replace(self._ask, told=told, only=only))
        lanes = [self._lane(name) for name in decision.targets]

        def note(event: Event, name: str) -> None:
            means.counts.happened(event, name)
            if event == "lost":  # what was read of a prompt is paid for
                means.purse.pay(self._cost(name, self._prompt_tokens, 0))

        if decision.mode == "cascade":
            rules = self._model.cascade_rules(is_whole=not self._ask.wishes.is_stream)
            return cascaded(lanes[0], lanes[1:], rules, note=note, won=self._won)
        rules_of = {
            "race": Rules(at_once=len(lanes)),
            "hedge": Rules(
                hedge_s=self._model.hedge_s(decision.targets[0]), may_hedge=means.hedges.spend
            ),
        }
        rules_now = rules_of.get(decision.mode, Rules())
        return contested(
            lanes, rules_now, note=note, won=lambda name: self._won(name, decision.reason)
        )

    def _lane(self, name: str) -> Lane:
        def told(source: Source) -> None:
            self._sources[name] = source

        is_last = name == self.decision.targets[-1]
        return self._model.lane(name, replace(self._ask, told=told), is_last=is_last)

    def _won(self, name: str, reason: str) -> None:
        self._winner = name
        self._tell(name, reason)

    def _tell(self, name: str, reason: str) -> None:
        if self._ask.told is not None:
            place = self._model.candidate(name).place
            source = self._sources.get(name, Source(route=place, backend=name))
            self._ask.told(replace(source, reason=reason))

    def _chosen(self, source: Source) -> None:
        if self._ask.told is not None:
            self._ask.told(replace(source, reason=self.decision.reason))

    def _ended(self, ending: Ending) -> None:
        self._means.counts.ended(ending)
        is_one = ending.source in self.decision.targets
        name = ending.source if is_one else self._winner
        cost = self._cost(name, ending.prompt_tokens, ending.generated_tokens)
        self._means.purse.pay(cost)

    def _cost(self, name: str, prompt_tokens: int, answer_tokens: int) -> float:
        return self._model.candidate(name).cost(prompt_tokens, answer_tokens)


def _loop_s() -> float:
    return asyncio.get_running_loop().time()
