"""`[routing]` and `[outbox]` of serve.toml: who answers, and what is answered later."""

import math
from dataclasses import dataclass

from onhand.core.errors import InputError
from onhand.core.tables import unknown
from onhand.device.serving.routing.confidence import MEASURES, Judge, Measure
from onhand.device.serving.routing.policies import check_policy
from onhand.device.serving.routing.sending import Retries
from onhand.device.serving.wishes import PRIVACY_CLASSES, Privacy

__all__ = ["OutboxSettings", "RouteSettings", "RoutingSettings", "check_privacy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """`[routing]`: who answers the requests of a model that several can answer.

    Attributes:
        policy: see `onhand.device.serving.routing.policies`.
        policies: others that a request may choose by its header `x-route-policy`; "local-only"
            may be chosen always.
        privacy: the class that every request has at least: "public", "redact" or "private".
        daily_budget: most that answers of a day may cost, in the currency of the backends'
            prices; 0 for no limit.
        hedge_share: extra requests by hedging for each ordinary one, at most.
        hedge_quantile: the share of answers whose first content comes sooner than a hedge.
        hedge_s: seconds before a hedge until enough answers were seen to know the quantile; 0
            sends none until then.
        cascade_measure: of confidence: "mean", "least" or "margin".
        cascade_threshold: confidence from which the device's answer is shown.
        cascade_window_tokens: tokens after which a stream is judged.
        cascade_early_tokens: tokens after which it may be shown early.
        cascade_early: confidence that is enough then.
        cascade_wait_s: seconds after which it is judged by what there is.
        cascade_cloud_wait_s: seconds that another backend has, before the device's unsure answer
            is shown after all.
        cascade_beside: whether the other backend is asked at once, beside the device.
    """

    policy: str = "balanced"
    policies: tuple[str, ...] = ()
    privacy: str = "public"
    daily_budget: float = 0.0
    hedge_share: float = 0.05
    hedge_quantile: float = 0.95
    hedge_s: float = 0.0
    cascade_measure: str = "mean"
    cascade_threshold: float = 0.6
    cascade_window_tokens: int = 24
    cascade_early_tokens: int = 6
    cascade_early: float = 0.9
    cascade_wait_s: float = 2.0
    cascade_cloud_wait_s: float = 10.0
    cascade_beside: bool = False

    def __post_init__(self) -> None:
        for name in (self.policy, *self.policies):
            check_policy(name)
        check_privacy(self.privacy)
        if self.cascade_measure not in MEASURES:
            raise InputError(f"cascade_measure: {unknown('one', self.cascade_measure, MEASURES)}")
        for name in ("hedge_share", "cascade_threshold", "cascade_early"):
            if not 0 <= (share := float(getattr(self, name))) <= 1:
                raise InputError(f"{name} is {share:g}, must be from 0 to 1")
        if not 0 < self.hedge_quantile < 1:
            raise InputError(f"hedge_quantile is {self.hedge_quantile:g}, must be within 0 and 1")
        for name in ("daily_budget", "hedge_s", "cascade_wait_s", "cascade_cloud_wait_s"):
            if not 0 <= (value := float(getattr(self, name))) < math.inf:
                raise InputError(f"{name} is {value:g}, must be 0 or more")
        for name in ("cascade_window_tokens", "cascade_early_tokens"):
            if (count := int(getattr(self, name))) < 1:
                raise InputError(f"{name} is {count}, must be 1 or more")

    @property
    def least_privacy(self) -> Privacy:
        """The class that every request has at least."""
        return check_privacy(self.privacy)

    @property
    def judge(self) -> Judge:
        """When the device is sure."""
        measure: Measure = self.cascade_measure  # type: ignore[assignment] # checked above
        return Judge(
            measure=measure,
            threshold=self.cascade_threshold,
            window_tokens=self.cascade_window_tokens,
            early_tokens=self.cascade_early_tokens,
            early=self.cascade_early,
        )

    def allowed(self, policy: str) -> str:
        """Return the policy of a request.

        Args:
            policy: that it chooses; "" for none.

        Raises:
            InputError: if there is none of that name, or requests may not choose it.
        """
        if not policy or policy == self.policy:
            return self.policy
        check_policy(policy)
        if policy != "local-only" and policy not in self.policies:
            known = ", ".join(sorted({self.policy, "local-only", *self.policies}))
            raise InputError(f"policy {policy!r} may not be chosen here, but {known}")
        return policy


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings:
    """One `[[route]]`: what is different for one model.

    Attributes:
        model: its name.
        policy: "" for that of `[routing]`.
        privacy: the class that its requests have at least; the stricter of both counts.
    """

    model: str
    policy: str = ""
    privacy: str = "public"

    def __post_init__(self) -> None:
        if self.policy:
            check_policy(self.policy)
        check_privacy(self.privacy)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxSettings:
    """`[outbox]`: requests that are answered later.

    Attributes:
        most_bytes: of all requests and answers; 0 for no outbox.
        most_waiting: requests of one tenant that wait.
        expire_s: seconds after which a request is of no use any more.
        kept_s: seconds for which an answer is kept for its client.
        poll_s: seconds between two looks whether anybody can be asked again.
        first_s: seconds until the second attempt; doubled before each further one.
        most_s: but no longer than this.
    """

    most_bytes: int = 16 * 2**20
    most_waiting: int = 1000
    expire_s: float = 86400.0
    kept_s: float = 7 * 86400.0
    poll_s: float = 1.0
    first_s: float = 1.0
    most_s: float = 60.0

    def __post_init__(self) -> None:
        if self.most_bytes < 0:
            raise InputError(f"most_bytes is {self.most_bytes}, must be 0 or more")
        if self.most_waiting < 1:
            raise InputError(f"most_waiting is {self.most_waiting}, must be 1 or more")
        for name in ("expire_s", "kept_s", "poll_s", "first_s", "most_s"):
            if not 0 < (value := float(getattr(self, name))) < math.inf:
                raise InputError(f"{name} is {value:g}, must be above 0")

    @property
    def retries(self) -> Retries:
        """When what was not answered is sent again."""
        return Retries(
            poll_s=self.poll_s, first_s=self.first_s, most_s=self.most_s, kept_s=self.kept_s
        )


def check_privacy(name: str) -> Privacy:
    """Return a privacy class by its name.

    Raises:
        InputError: if there is none of that name.
    """
    if name not in PRIVACY_CLASSES:
        raise InputError(f"privacy: {unknown('class', name, PRIVACY_CLASSES)}")
    return name
