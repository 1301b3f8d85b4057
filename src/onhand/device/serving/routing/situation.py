"""What a routing policy may look at, and what it says. Facts and decisions, no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from onhand.device.serving.asks import Route
from onhand.device.serving.wishes import PRIVACY_CLASSES, Defer, Privacy

__all__ = [
    "Candidate",
    "Decision",
    "Expected",
    "Mode",
    "Power",
    "Situation",
    "stricter",
]

Mode = Literal["first", "balance", "cascade", "race", "hedge", "defer", "refuse"]
"""How a decision's targets are asked.

first: one after the other, the next only where the last failed. balance: one of them, by what
they have to do, and another where that failed. cascade: the device, and the next
where its answer is unsure. race: all at once, the first content wins. hedge: the next beside the
last where that is slower than usual. defer: later, from the outbox. refuse: not at all.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How fast a backend has been of late; None for what was never seen.

    Attributes:
        first_s: seconds from the question to the first content.
        token_s: seconds for each further token.
    """

    first_s: float | None = None
    token_s: float | None = None

    def answer_s(self, n_tokens: int) -> float | None:
        """Return the seconds that an answer should take; None where nothing is known.

        Args:
            n_tokens: of the answer.
        """
        if self.first_s is None:
            return None
        return self.first_s + max(n_tokens - 1, 0) * (self.token_s or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that could answer.

    Attributes:
        name: of the backend.
        place: where it answers.
        is_healthy: whether its last health checks passed and it is not cut off for errors.
        context: most tokens of prompt and answer together; 0 where it is not known.
        capabilities: what it can beside text: "tools", "schema", "pictures", "scores".
        sees_personal: whether it may see personal data that a request of the class "redact" holds.
        n_active: requests that it answers now.
        most_active: requests that it answers at once; 0 where it is not known.
        expected: how fast it has been.
        prompt_cost: of a thousand tokens of a prompt, in the budget's currency.
        answer_cost: of a thousand tokens of an answer.
    """

    name: str
    place: Route
    is_healthy: bool = True
    context: int = 0
    capabilities: frozenset[str] = frozenset()
    sees_personal: bool = False
    n_active: int = 0
    most_active: int = 0
    expected: Expected = field(default_factory=Expected)
    prompt_cost: float = 0.0
    answer_cost: float = 0.0

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """Return what an answer costs, in the budget's currency."""
        return (prompt_tokens * self.prompt_cost + answer_tokens * self.answer_cost) / 1000

    def answer_s(self, n_tokens: int) -> float | None:
        """Return the seconds that an answer should take, the wait for a place included.

        Args:
            n_tokens: of the answer.
        """
        alone_s = self.expected.answer_s(n_tokens)
        if alone_s is None or not self.most_active:
            return alone_s
        # Whoever finds all places taken waits for whole rounds of answers like this one.
        return alone_s * (1 + self.n_active // self.most_active)


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What the device runs on.

    Attributes:
        battery: charge from 0 to 1; None where there is no battery.
        is_plugged: whether it is on mains.
    """

    battery: float | None = None
    is_plugged: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that a policy may look at.

    Attributes:
        candidates: what could answer, in the order of the settings.
        privacy: the strictest of what request, tenant and route say.
        can_redact: whether this server can take personal data out of a request.
        needs: capabilities that the answer needs.
        prompt_tokens: of the prompt; an upper bound where it was not counted.
        max_tokens: of the answer; the context's rest where the request does not say.
        deadline_s: seconds that are left for the answer; None for no deadline.
        budget_left: what may still be spent, in the budget's currency; None for no budget.
        power: what the device runs on.
        cloud_share: share of answers that the governor wants to be given elsewhere, 0 to 1.
        is_handed_on: whether another device handed the request on.
        draw: a number from 0 to below 1, drawn for this request; decides about `cloud_share`.
        defer: whether the request may be answered later.
    """

    candidates: tuple[Candidate, ...]
    privacy: Privacy = "public"
    can_redact: bool = False
    needs: frozenset[str] = frozenset()
    prompt_tokens: int = 0
    max_tokens: int = 256
    deadline_s: float | None = None
    budget_left: float | None = None
    power: Power = field(default_factory=Power)
    cloud_share: float = 0.0
    is_handed_on: bool = False
    draw: float = 0.5
    defer: Defer = "never"

    @property
    def is_online(self) -> bool:
        """Whether anything beyond the device was reached by its last health check."""
        return any(one.is_healthy for one in self.candidates if one.place != "local")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Who is asked, and how.

    Attributes:
        mode: how the targets are asked.
        targets: names of backends, the preferred first; empty for "defer" and "refuse".
        reason: in words, without anything of the request; ASCII.
        why: the reason's kind in one word, for counts.
        passed_over: name of a backend that cannot answer this -> the reason.
        is_passing: for "refuse", whether asking again later may help.
    """

    mode: Mode
    targets: tuple[str, ...] = ()
    reason: str
    why: str
    passed_over: Mapping[str, str] = field(default_factory=dict)
    is_passing: bool = False


def stricter(*classes: Privacy) -> Privacy:
    """Return the strictest of some privacy classes."""
    return max(classes, key=PRIVACY_CLASSES.index, default="public")
