"""Answers that follow a grammar: of all tokens only those that can still lead to its end."""

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineError, InputError
from onhand.device.time_limit import TimeLimit
from onhand.device.tools.writing import Trigger

if TYPE_CHECKING:
    import llguidance

__all__ = ["AwaitingGuide", "Guide", "GuideMaker", "json_grammar"]

# Of a grammar's text: larger ones take seconds to compile.
MAX_GRAMMAR: Final = 2**18
# To compile one; the largest of those above takes two seconds on a small computer.
COMPILE_S: Final = 5.0
# To say which tokens may come, over an answer: a beginning, and so much for each token. Answers
# that are computed together wait for it.
_MASKS_S: Final = 5.0
_MASK_S: Final = 0.05
# Agents send the same tools with every turn.
_KEPT_GRAMMARS: Final = 8
_KEPT_BYTES: Final = 64  # of an answer, in which a trigger's beginning may lie
# Between parts of JSON: a small model that may write any number of spaces writes nothing else.
_WHITESPACE: Final = r"(\n[ ]{0,16}|[ ])?"


class Guide:
    """The grammar of one answer; see `Watcher`. One thread at a time.

    A grammar that turns out too hard ends its answer and no other's: nothing is raised within a
    step, which answers share.

    Attributes:
        failure: why it could not be followed to its end; None while it can.
    """

    def __init__(
        self,
        matcher: "llguidance.LLMatcher",
        vocab_size: int,
        stop_ids: Collection[int],
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._matcher = matcher
        self._clock = clock
        self._left_s = _MASKS_S
        self._vocab_size = vocab_size
        self._stop_ids = list(stop_ids)
        self.failure: InputError | None = None

    def forbidden(self) -> NDArray[np.bool_]:
        """See `Watcher`."""
        mask = b"" if self.failure else self._timed_mask()
        self._check()
        if self.failure:
            ended = np.ones(self._vocab_size, dtype=np.bool_)
            ended[self._stop_ids] = False
            return ended
        bits = np.frombuffer(mask, dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocab_size]
        return np.pad(allowed == 0, (0, self._vocab_size - allowed.size), constant_values=True)

    def chose(self, logits: FloatArray, token: int) -> None:
        """See `Watcher`."""
        if self.failure is None and not self._matcher.is_stopped():
            self._matcher.consume_token(token)
            self._check()

    def _timed_mask(self) -> bytes:
        begun_s = self._clock()
        mask = self._matcher.compute_bitmask()
        self._left_s += _MASK_S - (self._clock() - begun_s)
        if self._left_s < 0:
            self.failure = InputError("grammar: is too hard to follow: it takes too much time")
        return mask

    def _check(self) -> None:
        if self.failure is None and self._matcher.is_error():
            # A message of several lines, the first of which says what.
            reason = self._matcher.get_error().splitlines()[0]
            self.failure = InputError(f"grammar: is too hard to follow: {reason}")


class AwaitingGuide:
    """Lets an answer be any text until it shows a trigger; see `Watcher`. One thread at a time."""

    def __init__(
        self,
        trigger: Trigger,
        *,
        bytes_of: Callable[[int], bytes],
        begin: Callable[[str, bytes], Guide | None],
    ) -> None:
        """Wait.

        Args:
            trigger: what to wait for.
            bytes_of: the bytes of a token, a marker's text included.
            begin: starts a grammar, some bytes of which are there already; None where they do
                not follow it.
        """
        self._trigger = trigger
        self._bytes_of = bytes_of
        self._begin = begin
        self._seen = b""
        self._is_waiting = True
        self._guide: Guide | None = None

    @property
    def failure(self) -> InputError | None:
        """See `Guide`."""
        return None if self._guide is None else self._guide.failure

    def forbidden(self) -> NDArray[np.bool_] | None:
        """See `Watcher`."""
        return None if self._guide is None else self._guide.forbidden()

    def chose(self, logits: FloatArray, token: int) -> None:
        """See `Watcher`."""
        if self._guide is not None:
            self._guide.chose(logits, token)
            return
        if not self._is_waiting:
            return
        self._seen += self._bytes_of(token)
        found = self._trigger.pattern.search(self._seen)
        if found is not None:
            self._is_waiting = False
            name = found.groupdict().get("name", b"").decode()
            self._guide = self._begin(self._trigger.grammars[name], self._seen[found.end() :])
        elif self._trigger.most_bytes is None:
            self._seen = self._seen[-_KEPT_BYTES:]
        else:
            self._is_waiting = len(self._seen) < self._trigger.most_bytes


class GuideMaker:
    """Makes guides for one model's tokens. May be shared between threads.

    What it needs of the tokenizer takes a second for a large vocabulary, so it waits for the first
    grammar.
    """

    def __init__(
        self,
        tokenizer: Path,
        *,
        vocab_size: int,
        stop_ids: Collection[int],
        limit: TimeLimit | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Remember what is needed.

        Args:
            tokenizer: the `tokenizer.json` of a verified bundle.
            vocab_size: V, logits in a row.
            stop_ids: tokens that may come when the grammar is complete; at least one.
            limit: of the time that a grammar may take to compile; None for `COMPILE_S`.
            clock: seconds that only grow, of the time that it takes to follow one.

        Raises:
            EngineError: if the file cannot be read.
        """
        try:
            # Read now: another version of the bundle may lie in its place when it is needed.
            self._text = tokenizer.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise EngineError(f"the tokenizer cannot be read: {error}") from error
        self._vocab_size = vocab_size
        self._limit = TimeLimit("grammar", most_s=COMPILE_S) if limit is None else limit
        self._clock = clock
        self._stop_ids = sorted(stop_ids)
        self._lock = threading.Lock()
        self._tokens: llguidance.LLTokenizer | None = None
        self._compiled: OrderedDict[str, llguidance.LLMatcher] = OrderedDict()

    def guide(self, grammar: str) -> Guide:
        """Start an answer that follows a grammar.

        Args:
            grammar: as `json_grammar` returns it.

        Returns:
            What watches its sampler.

        Raises:
            InputError: if the grammar is not valid, too large, or takes too long to compile.
            EngineBusy: if others that do are still compiled.
            EngineError: if the tokenizer cannot be used for this.
        """
        return self._guide(self._matcher(grammar))

    def awaiting(self, trigger: Trigger, *, bytes_of: Callable[[int], bytes]) -> AwaitingGuide:
        """Start an answer in free text that follows a grammar from some point on.

        Args:
            trigger: what begins it; its grammars are checked at once.
            bytes_of: the bytes of a token, a marker's text included.

        Returns:
            What watches its sampler.

        Raises:
            InputError: as in `guide`.
            EngineError: as in `guide`, `EngineBusy` as well.
        """
        matchers = {one: self._matcher(one) for one in trigger.grammars.values()}

        def begun(grammar: str, given: bytes) -> Guide | None:
            # Compiled before: other answers do not wait for it in the middle of this one.
            return self._begun(matchers[grammar].deep_copy(), given)

        return AwaitingGuide(trigger, bytes_of=bytes_of, begin=begun)

    def tokens_of(self, tokens: Mapping[str, int]) -> dict[str, int]:
        """Return those of some tokens that a grammar must name by number.

        Args:
            tokens: text -> token.

        Raises:
            EngineError: as in `guide`.
        """
        known = self._tokenizer()
        return {text: token for text, token in tokens.items() if known.is_special_token(token)}

    def _guide(self, matcher: "llguidance.LLMatcher") -> Guide:
        return Guide(matcher, self._vocab_size, self._stop_ids, clock=self._clock)

    def _begun(self, matcher: "llguidance.LLMatcher", given: bytes) -> Guide | None:
        tokens = self._tokenizer().tokenize_bytes(given) if given else []
        if matcher.try_consume_tokens(tokens) < len(tokens):
            return None
        return self._guide(matcher)

    def _matcher(self, grammar: str) -> "llguidance.LLMatcher":
        import llguidance

        if len(grammar) > MAX_GRAMMAR:
            raise InputError(f"grammar: has {len(grammar)} characters, at most {MAX_GRAMMAR}")
        tokens = self._tokenizer()
        with self._lock:
            matcher = self._compiled.get(grammar)
            if matcher is not None:
                self._compiled.move_to_end(grammar)
                return matcher.deep_copy()
        matcher = self._limit.run(lambda: llguidance.LLMatcher(tokens, grammar, log_level=0))
        if matcher.is_error():
            raise InputError(f"grammar: {matcher.get_error().splitlines()[0]}")
        with self._lock:
            self._compiled[grammar] = matcher
            while len(self._compiled) > _KEPT_GRAMMARS:
                self._compiled.popitem(last=False)
            return matcher.deep_copy()

    def _tokenizer(self) -> "llguidance.LLTokenizer":
        import llguidance

        with self._lock:
            if self._tokens is None:
                if not self._stop_ids:
                    raise EngineError("the model has no token that ends an answer")
                try:
                    self._tokens = llguidance.LLTokenizer(
                        self._text,
                        n_vocab=self._vocab_size,
                        eos_token=self._stop_ids,
                    )
                except ValueError as error:
                    raise EngineError(f"the tokenizer cannot follow grammars: {error}") from error
                self._text = ""  # megabytes, and not needed again
            return self._tokens


def json_grammar(schema: object) -> str:
    """Return the grammar of the JSON values that a schema allows.

    Args:
        schema: a JSON schema, as parsed.

    Returns:
        It, for `GuideMaker.guide`, which checks it.

    Raises:
        InputError: if it is no JSON object.
    """
    import llguidance

    if not isinstance(schema, dict):
        raise InputError("schema: must be a JSON object")
    try:
        return llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(schema), overrides={"whitespace_pattern": _WHITESPACE}
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"schema: {error}") from error
