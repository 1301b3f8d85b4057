"""What an inference engine must offer. Adapters match these shapes; nobody subclasses."""

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol, runtime_checkable

from onhand.core.adapter import Adapter
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.profile import DeviceProfile
from onhand.device.sampling import Sampler

__all__ = [
    "AdaptingLoaded",
    "Bf16Prefill",
    "DraftChecker",
    "Engine",
    "KvEngine",
    "KvKind",
    "Loaded",
    "Session",
    "StepSampler",
    "ThreadsLoaded",
    "TwoStageHead",
    "as_adapting",
]

KvKind = Literal["fp16", "int8"]
"""What a memory keeps keys and values as: 16-bit floats, or bytes with a scale for each head."""


class Session(Protocol):
    """The key/value memory of one conversation. One thread at a time."""

    @property
    def length(self) -> int:
        """Tokens remembered."""
        ...

    @property
    def context(self) -> int:
        """Most tokens that this session can remember."""
        ...

    def rewind(self, length: int) -> None:
        """Forget every token after the first `length`.

        Raises:
            InputError: if `length` is negative or more than is remembered.
        """
        ...

    def fork(self) -> "Session":
        """Return a new session that remembers the same tokens; the two then go apart."""
        ...

    def save_state(self) -> bytes:
        """Return the key/value memory as bytes that `load_state` of the same engine reads."""
        ...

    def load_state(self, state: bytes) -> None:
        """Replace the memory by a saved one.

        Raises:
            InputError: if the bytes are damaged, or of another bundle, variant,
                engine or adapter.
        """
        ...

    def close(self) -> None:
        """Release the memory; safe to call twice."""
        ...


class Loaded(Protocol):
    """Weights in memory, shared between sessions and threads."""

    @property
    def vocab_size(self) -> int:
        """Logits in a row."""
        ...

    @property
    def context(self) -> int:
        """Most tokens that a session can remember."""
        ...

    def session(self, *, context: int | None = None) -> Session:
        """Start a conversation with an empty memory.

        Args:
            context: most tokens to remember; None for the model's own context.

        Raises:
            InputError: if `context` is below 1 or above the model's.
        """
        ...

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """Append tokens to each session and score what follows.

        Args:
            batch: for each row a session of this `Loaded` and its (T,) int64 tokens, T >= 1; a
                session appears once, and lengths may differ.

        Returns:
            (B, V) float32: for each row the logits after its last token.

        Raises:
            InputError: if a token is outside the vocabulary, a row is empty, or a session is
                given twice, is closed, or belongs to another `Loaded`.
            ContextOverflow: if tokens do not fit; no session has changed then.
        """
        ...

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """Append tokens to one session and score after every one of them.

        Args:
            session: a session of this `Loaded`.
            tokens: (T,) int64, T >= 1.

        Returns:
            (T, V) float32: row t holds the logits after token t.

        Raises:
            InputError: as in `step`.
            ContextOverflow: as in `step`.
        """
        ...

    def close(self) -> None:
        """Release the weights; safe to call twice. Sessions are of no use afterwards."""
        ...


@runtime_checkable
class StepSampler(Protocol):
    """A `Loaded` that also chooses tokens where it scores them, so that no logits need to leave it.

    Engines may offer it; `onhand.device.engines.choosing` does the same with `Loaded.step` for
    those that do not.
    """

    def step_sample(
        self, batch: Sequence[tuple[Session, TokenArray]], samplers: Sequence[Sampler | None]
    ) -> list[int]:
        """Append tokens to each session and choose what follows.

        Args:
            batch: as in `Loaded.step`.
            samplers: one for each row, each given once; it remembers the token, and chooses the
                one that `Sampler.sample` would. None for a row after which nothing is chosen, as
                a part of a prompt.

        Returns:
            For each row its token id, -1 where its sampler is None.

        Raises:
            InputError: as in `Loaded.step`, or if there is not one sampler for each row.
            ContextOverflow: as in `Loaded.step`.
            EngineError: as in `Sampler.sample`; tokens are in the sessions' memory then.
        """
        ...


@runtime_checkable
class DraftChecker(Protocol):
    """A `Loaded` that checks drafted tokens where it scores them.

    Engines may offer it; `onhand.device.engines.choosing` does the same with `Loaded.score` for
    those that do not.
    """

    def step_check(self, session: Session, tokens: TokenArray, sampler: Sampler) -> list[int]:
        """Append tokens to a session, and choose what follows each as long as the next is right.

        Args:
            session: as in `Loaded.score`.
            tokens: (T,) int64: the last of a text, then what may follow.
            sampler: it remembers the tokens that are returned, and no others.

        Returns:
            Up to T token ids: those that `Sampler.sample` chooses after each token in turn, up
            to the first that is not the token given next. All T tokens are in the session's memory.

        Raises:
            InputError: as in `Loaded.step`.
            ContextOverflow: as in `Loaded.step`.
            EngineError: as in `Sampler.sample`; tokens are in the session's memory then.
        """
        ...


@runtime_checkable
class TwoStageHead(StepSampler, Protocol):
    """A `Loaded` that can look for a token's candidates in a coarse copy of its head first.

    The vocabulary's matrix is over a quarter of what a small model reads for a token. A copy of
    2 bits is read instead, and only its best candidates are scored by the head itself.
    """

    def use_two_stage_head(self, *, candidates: int = 256) -> None:
        """Choose tokens among candidates from now on, in `step_sample`.

        A candidate's logit has the same bits as in `step`; a token that is no candidate is never
        chosen, as if its logit were -inf. `step` and `score` use the whole head as before.

        Args:
            candidates: tokens that the coarse copy finds likeliest, all of which are candidates;
                so is what lies beside them.

        Raises:
            InputError: if `candidates` is below 1, or the weights are closed.
        """
        ...


@runtime_checkable
class Bf16Prefill(Protocol):
    """A `Loaded` that can multiply the many rows of a prompt in bf16.

    Tile instructions sum a whole product in bf16; else they stop at each group to scale its sum.
    """

    def use_bf16_prefill(self) -> None:
        """Multiply in bf16 from now on, in steps of 32 rows or more.

        These are the steps of prompts, and of as many conversations. What such a step computes is
        near what it was, but not the same bits, and depends on how a prompt is cut into steps and
        on what is computed beside it. Smaller steps, and the head, stay as they are.

        Raises:
            EngineUnavailable: if the processor has no fast way.
            InputError: if the weights are closed.
        """
        ...


@runtime_checkable
class ThreadsLoaded(Loaded, Protocol):
    """A `Loaded` that can compute with fewer threads than it was opened with, and with all again.

    What it computes has the same bits, however many there are.
    """

    @property
    def threads(self) -> int:
        """Threads that the next step may use; an engine may use fewer while others compute."""
        ...

    @property
    def most_threads(self) -> int:
        """Threads that it was opened with."""
        ...

    def use_threads(self, n: int) -> None:
        """Compute later steps with so many threads; waits for the step that runs.

        Args:
            n: 1 to `most_threads`.

        Raises:
            InputError: if there cannot be so many, or the weights are closed.
            EngineError: if the system gives no more threads; there is one then.
        """
        ...


@runtime_checkable
class AdaptingLoaded(Loaded, Protocol):
    """A `Loaded` whose sessions each choose an adapter, also beside each other in one step.

    A session keeps its adapter for life, and so do its forks: what it remembers was computed with
    it. To go on with another one, start another session and feed it the tokens.
    """

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that a new session may choose."""
        ...

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Let sessions choose an adapter from now on.

        Raises:
            InputError: if the name is empty or taken.
        """
        ...

    def remove_adapter(self, name: str) -> None:
        """Let no new session choose an adapter; those that have it keep it.

        Raises:
            InputError: if there is none of that name.
        """
        ...

    def session(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, *, context: int | None = None, adapter: str | None = None
    ) -> Session:
        """Start a conversation with an empty memory.

        Args:
            context: as in `Loaded`.
            adapter: name of an added one; None for the one of `Engine.open`, or none.

        Raises:
            InputError: if there is no such adapter, or as in `Loaded`.
        """
        ...


def as_adapting(loaded: Loaded) -> AdaptingLoaded:
    """Return an opened model as one that takes adapters while it runs.

    Raises:
        InputError: if its engine takes only the one that it was opened with.
    """
    if isinstance(loaded, AdaptingLoaded):
        return loaded
    raise InputError("this engine takes one adapter, as it opens a bundle; native takes several")


class Engine(Protocol):
    """Opens bundles of one kind. Holds no state, so any thread may use it."""

    name: ClassVar[str]

    def why_not(self, bundle: Bundle, profile: DeviceProfile, *, variant: str) -> str | None:
        """Return None if `open` should work here, else a reason a person can act on."""
        ...

    def open(
        self, bundle: Bundle, *, variant: str, threads: int, adapter: Adapter | None = None
    ) -> Loaded:
        """Load the weights of one variant.

        Args:
            bundle: a verified bundle.
            variant: a key of the manifest's variants.
            threads: threads of one step, at least 1.
            adapter: what is added to its matrices; the bundle itself stays as it is.

        Raises:
            EngineUnavailable: if this engine cannot run the bundle here.
            EngineError: if it should, and fails.
        """
        ...


@runtime_checkable
class KvEngine(Engine, Protocol):
    """An `Engine` that can keep keys and values in more than one way."""

    kv_kinds: ClassVar[tuple[KvKind, ...]]

    def open(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self,
        bundle: Bundle,
        *,
        variant: str,
        threads: int,
        adapter: Adapter | None = None,
        kv: KvKind = "fp16",
    ) -> Loaded:
        """Load the weights of one variant.

        Args:
            bundle: as in `Engine`.
            variant: as in `Engine`.
            threads: as in `Engine`.
            adapter: as in `Engine`.
            kv: one of `kv_kinds`.

        Raises:
            EngineUnavailable: as in `Engine`.
            EngineError: as in `Engine`.
        """
        ...
