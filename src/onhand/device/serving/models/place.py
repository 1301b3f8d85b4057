"""Where one variant of a bundle is opened, who waits for it, and what they are told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from onhand.core.errors import OnhandError
from onhand.device.learning.in_use import InUse
from onhand.device.serving.models.facts import Facts
from onhand.device.serving.models.room import Holder
from onhand.device.serving.refusals import Refusal, RefusedRequest

__all__ = [
    "OpenModel",
    "Place",
    "Stage",
    "Ticket",
    "again",
    "no_room",
    "no_turn",
    "refuse",
    "too_large",
]

Stage = Literal["closed", "wanted", "opening", "open", "leaving", "closing"]


class OpenModel(Protocol):
    """What was opened."""

    @property
    def engine_name(self) -> str:
        """The engine that runs it."""
        ...

    @property
    def bundle_sha256(self) -> str:
        """Hash of the bundle's manifest: which version it is."""
        ...

    @property
    def learned(self) -> InUse:
        """Which learned version answers."""
        ...

    def remembered(self) -> Sequence[tuple[float, int]]:
        """Return when each conversation that is remembered was used last, and its bytes.

        The longest unused comes first.
        """
        ...

    def forget(self, n: int) -> None:
        """Forget as many of the longest unused conversations."""
        ...

    def break_off(self) -> None:
        """End all answers that run, and take no more."""
        ...

    def close(self) -> None:
        """Release what it holds; safe to call twice."""
        ...


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that waits for its model.

    Attributes:
        asked_s: since when.
        on_end: told once, when it was granted or refused.
        place: where it waits, or waited.
        number: of all that came, which this is.
        error: why it was refused.
        is_granted: whether the model answers it.
    """

    asked_s: float
    on_end: Callable[["Ticket"], None]
    place: "Place | None" = None
    number: int = 0
    error: OnhandError | None = None
    is_granted: bool = False


@dataclass(slots=True, eq=False)
class Place:
    """One variant of one version of a bundle.

    Attributes:
        facts: what is known of it.
        stage: "closed"; "wanted" by requests; "opening"; "open"; "leaving", which is open still
            and takes no more requests; "closing".
        model: it, while it is open or leaving.
        weights_bytes: what it takes when nobody asks it anything.
        measured_bytes: the same as it was found after opening; 0 where that was not possible.
        sessions_bytes: key/value memory of answers that run.
        n_leases: answers that run.
        used_s: when it was last asked, or an answer of it ended.
        opening_s: seconds that opening it took.
        stays_until_s: it goes no sooner.
        tickets: requests that wait for it, the first first.
        replaces: the version that it is opened beside, to take its place.
        is_retired: whether another version took its place.
        is_ended: whether its answers are broken off.
        failure: why it could not be opened, and until when that is told again.
    """

    facts: Facts
    stage: Stage = "closed"
    model: OpenModel | None = None
    weights_bytes: int = 0
    measured_bytes: int = 0
    sessions_bytes: int = 0
    n_leases: int = 0
    used_s: float = 0.0
    opening_s: float = 0.0
    stays_until_s: float = 0.0
    tickets: list[Ticket] = field(default_factory=list)
    replaces: "Place | None" = None
    is_retired: bool = False
    is_ended: bool = False
    failure: tuple[OnhandError, float] | None = None

    @property
    def is_there(self) -> bool:
        """Whether it takes memory."""
        return self.stage not in {"closed", "wanted"}

    @property
    def key(self) -> str:
        """Tells it from all others."""
        facts = self.facts
        return f"{facts.name}:{facts.variant}@{facts.bundle_sha256}{facts.learned.sha256}"

    def holder(self) -> Holder:
        """Return what it takes."""
        model = self.model
        return Holder(
            key=self.key,
            weights_bytes=self.weights_bytes,
            sessions_bytes=self.sessions_bytes,
            remembered=() if model is None else tuple(model.remembered()),
            used_s=self.used_s,
            n_leases=self.n_leases,
            stays_until_s=self.stays_until_s,
            is_open=self.stage == "open",
            is_leaving=self.stage in {"leaving", "closing"},
        )


def too_large(name: str, need_bytes: int, room_bytes: int) -> Refusal:
    """Say that a model does not fit, even alone."""
    message = (
        f"{name} needs about {need_bytes} bytes of memory, and all models of this server may take "
        f"{room_bytes}; ask for a smaller variant"
    )
    # The official clients ask again after a 503 unless they are told not to.
    headers = {"x-should-retry": "false"}
    return Refusal(status=503, message=message, code="model_too_large", headers=headers)


def no_room(need_bytes: int, room_bytes: int) -> Refusal:
    """Say that there never will be memory for an answer."""
    message = (
        f"prompt and answer need up to {need_bytes} bytes of memory, and beside the model there "
        f"are {max(0, room_bytes)}; shorten the prompt or lower max_tokens"
    )
    headers = {"x-should-retry": "false"}
    return Refusal(status=503, message=message, code="no_memory", headers=headers)


def no_turn() -> Refusal:
    """Say that there was no memory in time."""
    message = "the memory is taken by models that answer; ask again"
    return Refusal(status=503, message=message, code="no_memory", headers={"Retry-After": "5"})


def refuse(ticket: Ticket, error: OnhandError) -> None:
    """Tell a request that waits that it is not answered."""
    ticket.error = again(error)
    ticket.on_end(ticket)


def again(error: OnhandError) -> OnhandError:
    """Return an error like another one: one that is raised many times keeps all their traces."""
    if isinstance(error, RefusedRequest):
        return RefusedRequest(error.refusal)
    return type(error)(*error.args)
