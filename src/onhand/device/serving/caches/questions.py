"""A request as a question and all that stands around it."""

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from onhand.device.serving.asks import Ask
from onhand.device.serving.caches.exact import is_repeatable
from onhand.device.serving.refusals import Refusal, RefusedRequest

__all__ = ["HEADER", "CacheUse", "Question", "question_of", "read_cache_use"]

HEADER: Final = "x-cache-control"
_FORMAT: Final = 1
_MOST_LETTERS: Final = 4096


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a request allows caches to do.

    Attributes:
        finds: whether it takes an answer that was given to the same request.
        finds_similar: whether it takes one that was given to a similar question.
        keeps: whether its own answer may be kept.
    """

    finds: bool = True
    finds_similar: bool = True
    keeps: bool = True


def read_cache_use(header: str | None) -> CacheUse:
    """Read what a request says of caches.

    Args:
        header: words with commas between them: "no-semantic", "no-cache" (an answer computed
            anew) and "no-store" (nothing found, nothing kept); None where there is none.

    Returns:
        What they allow.

    Raises:
        RefusedRequest: if there is another word.
    """
    words = {word.strip().lower() for word in (header or "").split(",")} - {""}
    if unknown := words - {"no-semantic", "no-cache", "no-store"}:
        word = min(unknown)[:40]
        message = f"{HEADER} has {word!r}, must be of no-semantic, no-cache and no-store"
        raise RefusedRequest(Refusal(status=400, message=message, param=HEADER))
    finds = not words & {"no-cache", "no-store"}
    return CacheUse(finds, finds and "no-semantic" not in words, "no-store" not in words)


@dataclass(frozen=True, slots=True)
class Question:
    """What may differ between two requests with one answer, and what may not.

    Attributes:
        text: the last message, its user's.
        around: 32 bytes, the same for requests that differ in nothing else.
    """

    text: str
    around: bytes


def question_of(asks: Sequence[Ask], *, model: str, salt: bytes) -> Question | None:
    """Return a request's question.

    Args:
        asks: one for each choice.
        model: what answers: the bundle's hash, the variant, and all else that changes answers.
        salt: of this server, so that nobody else can tell what a question stands among.

    Returns:
        None where an answer to a similar question would not do: something is drawn, tools may be
        called, scores or several choices are wanted, the last message is not a user's, or it is
        too long to be judged.
    """
    if len(asks) != 1 or isinstance(asks[0].prompt, str) or not asks[0].prompt:
        return None
    ask, turns = asks[0], asks[0].prompt
    last = turns[-1]
    if not is_repeatable(ask) or ask.tools is not None or ask.n_scores is not None:
        return None
    text = last.content
    if last.role != "user" or not text.strip() or len(text) > _MOST_LETTERS:
        return None
    parts = [
        _FORMAT,
        ask.tenant,
        model,
        [asdict(message) for message in turns[:-1]],
        ask.max_tokens,
        asdict(ask.sampling),
        ask.stop,
        ask.grammar,
    ]
    around = json.dumps(parts, sort_keys=True).encode()
    return Question(last.content, hmac.digest(salt, around, hashlib.sha256))
