"""Words that conversations are likely to have, met before anybody asks."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from onhand.core.errors import InputError
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.text import Tokenizer

__all__ = ["warm_up_texts"]

_MOST_TOKENS: Final = 16_384  # that are put into words at the start: a tenth of a second
_WAIT_S: Final = 1.0


def warm_up_texts(blocks: BlockStore, tokenizer: Tokenizer, *, vocab_size: int) -> None:
    """Let a tokenizer see the words of the last conversations.

    Its first sight of a word takes several times what later ones do, as does a template's first
    text, and these are likely to come again.

    Args:
        blocks: where conversations are remembered.
        tokenizer: of the model.
        vocab_size: of the model.
    """
    left = _MOST_TOKENS
    for chain in blocks.warm.chains(wait_s=_WAIT_S):
        tokens = chain.tokens
        if (left := left - tokens.size) < 0:
            return
        if int(tokens.max(initial=0)) < vocab_size:
            with suppress(InputError):  # another model's
                tokenizer.encode_template(_framed(tokens.tolist(), tokenizer))


def _framed(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the text of tokens, with the special ones that part its turns."""
    stream = tokenizer.stream(shown=set(tokens))
    return "".join([*map(stream.push, tokens), stream.finish()])
