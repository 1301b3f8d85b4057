"""Answers that follow a grammar: of all tokens only those that can still lead to its end."""

import json
import threading
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import FloatArray
from onhand.core.errors import EngineError, InputError

if TYPE_CHECKING:
    import llguidance

__all__ = ["Guide", "GuideMaker", "json_grammar"]

# Of a grammar's text: larger ones take seconds to compile.
MAX_GRAMMAR: Final = 2**18
# Between parts of JSON: a small model that may write any number of spaces writes nothing else.
_WHITESPACE: Final = r"(\n[ ]{0,16}|[ ])?"


class Guide:
    """The grammar of one answer; see `Watcher`. One thread at a time."""

    def __init__(self, matcher: "llguidance.LLMatcher", vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def forbidden(self) -> NDArray[np.bool_]:
        """See `Watcher`.

        Raises:
            EngineError: if the grammar is too hard to follow.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little")[: self._vocab_size]
        return np.pad(allowed == 0, (0, self._vocab_size - allowed.size), constant_values=True)

    def chose(self, logits: FloatArray, token: int) -> None:
        """See `Watcher`.

        Raises:
            EngineError: if the token was not allowed.
        """
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            # A message of several lines, the first of which says what.
            reason = self._matcher.get_error().splitlines()[0]
            raise EngineError(f"the answer cannot follow its grammar: {reason}")


class GuideMaker:
    """Makes guides for one model's tokens. May be shared between threads.

    What it needs of the tokenizer takes a second for a large vocabulary, so it waits for the first
    grammar.
    """

    def __init__(self, tokenizer: Path, *, vocab_size: int, stop_ids: Collection[int]) -> None:
        """Remember what is needed.

        Args:
            tokenizer: the `tokenizer.json` of a verified bundle.
            vocab_size: V, logits in a row.
            stop_ids: tokens that may come when the grammar is complete; at least one.

        Raises:
            EngineError: if the file cannot be read.
        """
        try:
            # Read now: another version of the bundle may lie in its place when it is needed.
            self._text = tokenizer.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise EngineError(f"the tokenizer cannot be read: {error}") from error
        self._vocab_size = vocab_size
        self._stop_ids = sorted(stop_ids)
        self._lock = threading.Lock()
        self._tokens: llguidance.LLTokenizer | None = None

    def guide(self, grammar: str) -> Guide:
        """Start an answer that follows a grammar.

        Args:
            grammar: as `json_grammar` returns it.

        Returns:
            What watches its sampler.

        Raises:
            InputError: if the grammar is not valid, or too large.
            EngineError: if the tokenizer cannot be used for this.
        """
        import llguidance

        if len(grammar) > MAX_GRAMMAR:
            raise InputError(f"grammar: has {len(grammar)} characters, at most {MAX_GRAMMAR}")
        matcher = llguidance.LLMatcher(self._tokenizer(), grammar, log_level=0)
        if matcher.is_error():
            raise InputError(f"grammar: {matcher.get_error().splitlines()[0]}")
        return Guide(matcher, self._vocab_size)

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
