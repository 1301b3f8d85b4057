"""What is asked of a model and what comes back, whoever answers."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from onhand.device.privacy.spans import Kind
from onhand.device.sampling import Sampling
from onhand.device.serving.wishes import Wishes
from onhand.device.template import Message
from onhand.device.tools.kinds import CallPart, ToolUse

if TYPE_CHECKING:
    from onhand.device.privacy.veil import Veil

__all__ = [
    "Ask",
    "Backend",
    "Departure",
    "EndReason",
    "Ending",
    "Fronts",
    "Piece",
    "Route",
    "Score",
    "Source",
    "TextModel",
    "Wire",
    "joined",
]

EndReason = Literal["stop", "length", "tool_calls"]
Route = Literal["local", "peer", "cloud"]
"""Where an answer is computed: on this device, on another of its owner's, or elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who answers.

    Attributes:
        route: where.
        backend: its name; "local" for this device.
        reason: why it was chosen; "" where there was no choice.
    """

    route: Route = "local"
    backend: str = "local"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """That a request leaves this device, or does not; nothing of what it says.

    Attributes:
        backend: where to.
        form: "as-is", "redacted" for one without its personal data, or "kept" for one that was
            to leave and could not.
        found: kind of personal data -> how many values of it were replaced.
        finds_names: whether names of persons were looked for.
    """

    backend: str
    form: Literal["as-is", "redacted", "kept"]
    found: Mapping[Kind, int] = field(default_factory=dict)
    finds_names: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A request as its client gave it, in the form in which another server takes it.

    Attributes:
        path: of OpenAI's API.
        fields: of the body, as they were given, but for the model's name, the number of
            choices and the way the answer is sent; what was left out is left out here.
        model: the name by which it was asked for; "" for whatever there is.
        headers: that go with it, such as "x-request-id".
        n_hops: servers of ours that handed it on before.
    """

    path: Literal["chat/completions", "completions"]
    fields: Mapping[str, object]
    model: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    n_hops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One answer that is wanted.

    Attributes:
        tenant: for whom.
        prompt: a text to continue as it is, or the messages of a conversation.
        max_tokens: most tokens of the answer; None for as many as the context holds.
        sampling: how tokens are chosen.
        stop: texts that end the answer; they are not shown.
        grammar: what the answer must follow, as `onhand.device.guide` takes it; None for none.
        tools: what the answer may call; None for nothing. With a grammar as well, an answer that
            calls nothing follows it.
        n_scores: likeliest tokens to name at each place, and the chosen one; None for no scores.
        deadline_s: until when the answer is of use, on the event loop's clock; None for no end.
        wire: the same request as other servers take it; None where it came by no route.
        told: called with who answers as soon as that is known, and again where it changes
            before the first piece.
        wishes: what the request says of who may answer it, and when.
        only: names of the backends that may answer; None for all.
        veil: takes personal data out of it before it leaves; None where nothing does.
        left: called before it leaves; returns what takes that back where it did not after all.
    """

    tenant: str
    prompt: str | Sequence[Message]
    max_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    grammar: str | None = None
    tools: ToolUse | None = None
    n_scores: int | None = None
    deadline_s: float | None = None
    wire: Wire | None = field(default=None, repr=False)
    told: Callable[[Source], None] | None = field(default=None, repr=False, compare=False)
    wishes: Wishes = field(default_factory=Wishes)
    only: frozenset[str] | None = None
    veil: "Veil | None" = field(default=None, repr=False, compare=False)
    left: Callable[[Departure], Callable[[], None]] | None = field(
        default=None, repr=False, compare=False
    )


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a token was.

    Attributes:
        token: its bytes.
        logprob: natural logarithm of its probability, before temperature and other choices.
        others: the likeliest tokens of its place, likeliest first; without others of their own.
    """

    token: bytes
    logprob: float
    others: tuple["Score", ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer.

    Attributes:
        text: what comes next; empty only where there are scores, or a part of a call.
        scores: of the tokens since the last piece, where they are wanted.
        call: a part of a call of a tool; None for none.
    """

    text: str
    scores: tuple[Score, ...] = ()
    call: CallPart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """An answer's end.

    Attributes:
        reason: "stop" where the model or a stop text ended it, "length" where room or
            `max_tokens` did, "tool_calls" where it ended and has at least one whole call.
        prompt_tokens: of the whole prompt.
        cached_tokens: those of them that were not computed again.
        generated_tokens: of the answer.
        source: who answered: "local", or the name of another backend.
        fingerprint: of the model that did, where it may be another than when it was asked; else "".
        route: where that is.
        is_repeatable: whether the same request may be given this answer again.
        sent_bytes: over the network for it.
        received_bytes: likewise.
        left: what left this device for it.
    """

    reason: EndReason
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    source: str = "local"
    fingerprint: str = ""
    route: Route = "local"
    is_repeatable: bool = True
    sent_bytes: int = 0
    received_bytes: int = 0
    left: tuple[Departure, ...] = ()


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Return an answer in as few pieces as say the same: a text, or a call, in each.

    Args:
        pieces: of one answer, in order.

    Returns:
        Them, joined; a call that was cut off is there, and not ended.
    """
    whole: list[Piece] = []
    for piece in pieces:
        last = whole[-1] if whole else None
        if last is None or not _goes_on(last.call, piece.call):
            whole.append(piece)
            continue
        call = last.call
        if call is not None and piece.call is not None:
            arguments = call.arguments + piece.call.arguments
            call = replace(call, arguments=arguments, is_end=piece.call.is_end)
        whole[-1] = Piece(last.text + piece.text, last.scores + piece.scores, call)
    return whole


def _goes_on(last: CallPart | None, part: CallPart | None) -> bool:
    if last is None or part is None:
        return last is part
    return last.index == part.index


class Backend(Protocol):
    """Something that answers."""

    def answer(self, ask: Ask) -> AsyncGenerator[Piece | Ending]:
        """Answer as it is computed: pieces, then one ending.

        Closing the iterator breaks the answer off.

        Raises:
            OnhandError: what went wrong; no ending comes then.
        """
        ...


@runtime_checkable
class Fronts(Protocol):
    """A model that stands before one of this device, and before others."""

    @property
    def near(self) -> "TextModel | None":
        """The model of this device; None where there is none."""
        ...


class TextModel(Backend, Protocol):
    """A backend under a name that requests call it by."""

    @property
    def name(self) -> str:
        """What requests call it."""
        ...

    @property
    def usual(self) -> Sampling:
        """The sampling that the model's makers suggest."""
        ...

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        ...

    @property
    def engine_name(self) -> str:
        """What computes its answers."""
        ...

    @property
    def fingerprint(self) -> str:
        """The same for models that answer alike, to the bit."""
        ...

    @property
    def n_active(self) -> int:
        """Answers that have not ended."""
        ...

    @property
    def prefix_cache_bytes(self) -> int:
        """Memory of what ended conversations remember."""
        ...

    def break_off(self) -> None:
        """End all answers that run, and take no more."""
        ...

    def close(self) -> None:
        """Break answers off and release what it holds; safe to call twice."""
        ...
