"""What a tokenizer costs for each token of an answer, beside one that calibration knows."""

import statistics
import time
from typing import Final

from onhand.device.text import Tokenizer, open_tokenizer
from onhand.host.costs.synthetic import made_tokenizer

__all__ = ["text_ratio", "text_seconds"]

_TOKENS: Final = 256
_TIMES: Final = 5
_SAMPLE: Final = 1024


def text_ratio(tokenizer: bytes) -> float:
    """Return how many times longer a token takes to become text than with a plain tokenizer.

    The ratio, since that is much the same on every device: some vocabularies are bytes, others
    are put together by a chain of rules.

    Args:
        tokenizer: a `tokenizer.json`.

    Returns:
        1 for the tokenizer of the small models that calibration runs.
    """
    plain = text_seconds(open_tokenizer(made_tokenizer(_SAMPLE)))
    return text_seconds(open_tokenizer(tokenizer)) / plain


def text_seconds(tokenizer: Tokenizer) -> float:
    """Return the seconds in which a token of an answer becomes text.

    Args:
        tokenizer: an open one.
    """
    ids = [i % tokenizer.vocab_size for i in range(7, 7 + 31 * _TOKENS, 31)]
    return min(_median_s(tokenizer, ids) for _ in range(_TIMES))


def _median_s(tokenizer: Tokenizer, ids: list[int]) -> float:
    push = tokenizer.stream().push
    found: list[float] = []
    for token in ids:
        begun = time.perf_counter()
        push(token)
        found.append(time.perf_counter() - begun)
    return statistics.median(found)
