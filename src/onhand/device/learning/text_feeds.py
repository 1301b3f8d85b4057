"""Texts and conversations as a lesson of tokens takes them: loss on what is to be learned alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.errors import InputError
from onhand.device.learning.base import Feeds
from onhand.device.learning.examples import Continued, Dialogue, Example, Labelled, PlainText
from onhand.device.template import Message
from onhand.device.text_files import TextFiles

__all__ = ["TextSource", "TokenSequence", "answer_sequence", "batch_sequences", "sequences_of"]

WINDOW: Final = 128
"""Tokens of a piece of a long text: its memory is what bounds a step."""


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Tokens, and which of them are learned.

    Attributes:
        tokens: (T,) int64.
        learned: (N,) int64, rising: positions of learned tokens, from 1 on: the first token is
            never learned, for nothing comes before it.
    """

    tokens: TokenArray
    learned: TokenArray


class TextSource:
    """Examples of a language model. See `Source`."""

    def __init__(self, sequences: Iterable[TokenSequence] = ()) -> None:
        """Take sequences; more may be added."""
        self._sequences = list(sequences)

    def __len__(self) -> int:
        """See `Source`."""
        return len(self._sequences)

    @property
    def sequences(self) -> Sequence[TokenSequence]:
        """All of them, in order."""
        return self._sequences

    @property
    def n_tokens(self) -> int:
        """Of all sequences."""
        return sum(len(one.tokens) for one in self._sequences)

    @property
    def n_learned(self) -> int:
        """Tokens that are learned."""
        return sum(len(one.learned) for one in self._sequences)

    def add(self, sequences: Iterable[TokenSequence]) -> None:
        """Add sequences at the end."""
        self._sequences += sequences

    def weight(self, number: int) -> float:
        """See `Source`: learned tokens."""
        return float(len(self._sequences[number].learned))

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """See `Source`."""
        return batch_sequences([self._sequences[number] for number in numbers], scale=scale)


def batch_sequences(sequences: Sequence[TokenSequence], *, scale: float) -> dict[str, np.ndarray]:
    """Return what a lesson of tokens takes; see `core.lesson`.

    Args:
        sequences: at least one.
        scale: weight of each learned token.

    Returns:
        tokens (B, S), padded with 0 at the right; rows (R,), labels (R, 1), weights (R, 1): one
        row for each learned token, the position before it.
    """
    B, S = len(sequences), max(len(one.tokens) for one in sequences)
    tokens = np.zeros((B, S), dtype=np.int64)
    rows: list[TokenArray] = []
    labels: list[TokenArray] = []
    for i, one in enumerate(sequences):
        tokens[i, : len(one.tokens)] = one.tokens
        rows.append(i * S + one.learned - 1)
        labels.append(one.tokens[one.learned])
    scored = np.concatenate(rows)  # (R,)
    return {
        "tokens": tokens,
        "rows": scored,
        "labels": np.concatenate(labels)[:, None],  # (R, 1)
        "weights": np.full((len(scored), 1), scale, dtype=np.float32),
    }


def sequences_of(
    example: Example, files: TextFiles, *, context: int, window: int = WINDOW
) -> list[TokenSequence]:
    """Turn an example into tokens; nothing is cut off.

    Args:
        example: a text or a conversation.
        files: the model's tokenizer and chat template.
        context: most tokens of a conversation.
        window: most tokens of a piece of a long text; every token but the first is learned once.

    Returns:
        Of a text its pieces; of a conversation one, or one for each answer where the template
        shows an answer otherwise once another one follows.

    Raises:
        InputError: if it is of another kind, has no token to learn, is longer than the context, or
            the model has no chat template for it.
    """
    if isinstance(example, PlainText):
        return _text_sequences(example, files, window=min(window, context))
    if not isinstance(example, Dialogue | Continued):
        raise InputError(
            f"{example.where}: has a class; a language model learns texts, conversations, and "
            "prompts with their completion"
            if isinstance(example, Labelled)
            else f"{example.where}: is an opinion on an answer, which stands beside no other kind "
            "of example; give it in a file of its own"
        )
    try:
        if isinstance(example, Continued):
            found = [_continued_sequence(example, files)]
        else:
            found = _dialogue_sequences(example, files)
    except InputError as error:
        raise InputError(f"{example.where}: {error}") from error
    for one in found:
        if len(one.tokens) > context:
            raise InputError(
                f"{example.where}: has {len(one.tokens)} tokens, the model's context is {context}; "
                "shorten it"
            )
    return found


def _continued_sequence(example: Continued, files: TextFiles) -> TokenSequence:
    """Return a text as it is given to the model, and its answer with the token that ends it."""
    encode = files.tokenizer.encode_plain
    if example.is_rendered:
        encode = files.tokenizer.encode_template
    first, answer = encode(example.text), encode(example.answer)
    whole = encode(example.text + example.answer)
    if not np.array_equal(whole[: len(first)], first):
        # Letters on both sides were joined to one token, which is not how an answer begins.
        whole = np.concatenate([first, answer])
    end = _end_of(files) if example.is_rendered else min(files.stop_ids, default=None)
    if end is not None and whole[-1] != end:
        whole = np.append(whole, end)
    learned = np.arange(max(len(first), 1), len(whole))
    return TokenSequence(whole, learned)


def _end_of(files: TextFiles) -> int | None:
    """Return the token that ends an answer by the model's template."""
    shown = answer_sequence([Message("user", "x")], "y", files)
    last = int(shown.tokens[-1])
    return last if last in files.stop_ids else min(files.stop_ids, default=None)


def _text_sequences(example: PlainText, files: TextFiles, *, window: int) -> list[TokenSequence]:
    tokens = files.tokenizer.encode_plain(example.text)
    if len(tokens) < 2:
        raise InputError(f"{example.where}: a text of fewer than two tokens teaches nothing")
    found: list[TokenSequence] = []
    # A piece begins with the last token of the one before, which it does not learn again.
    for low in range(0, len(tokens) - 1, window - 1):
        piece = tokens[low : low + window]
        found.append(TokenSequence(piece, np.arange(1, len(piece))))
    return found


def _dialogue_sequences(example: Dialogue, files: TextFiles) -> list[TokenSequence]:
    """Return the conversation as the model will see it when it answers, token by token."""
    parts = [
        answer_sequence(example.messages[:i], example.messages[i].content, files)
        for i in example.learned
    ]
    whole = parts[-1]
    learned: list[TokenArray] = []
    for part in parts:
        if not np.array_equal(whole.tokens[: len(part.tokens)], part.tokens):
            return parts
        learned.append(part.learned)
    return [TokenSequence(whole.tokens, np.concatenate(learned))]


def answer_sequence(prompt: Sequence[Message], answer: str, files: TextFiles) -> TokenSequence:
    """Return a prompt and its answer, of which the answer is learned, its end included.

    The prompt's tokens are those that the model gets when it is asked: the answer begins with the
    first token behind them, wherever its letters would be joined with the prompt's.

    Args:
        prompt: what was said before.
        answer: of the assistant.
        files: the model's tokenizer and chat template.

    Returns:
        The sequence; what a template writes after the end of an answer is not in it.

    Raises:
        InputError: if there is no chat template for messages, it cannot render them, or the answer
            has no token.
    """
    before, after = _rendered(prompt, answer, files)
    tokenizer = files.tokenizer
    if files.template is None:
        first, whole = tokenizer.encode_plain(before), tokenizer.encode_plain(before + after)
    else:
        first = tokenizer.encode_template(before)
        whole = tokenizer.encode_template(before + after)
    if not np.array_equal(whole[: len(first)], first):
        # Letters on both sides were joined to one token, which is not how an answer begins.
        whole = np.concatenate([first, tokenizer.encode_template(after)])
    ends = np.isin(whole[len(first) :], list(files.stop_ids))
    if ends.any():
        whole = whole[: len(first) + int(ends.argmax()) + 1]
    elif files.template is None and files.stop_ids:
        whole = np.append(whole, min(files.stop_ids))
    learned = np.arange(max(len(first), 1), len(whole))
    if not len(learned):
        raise InputError("the answer has no token to learn")
    return TokenSequence(whole, learned)


def _rendered(prompt: Sequence[Message], answer: str, files: TextFiles) -> tuple[str, str]:
    """Return the prompt as the model gets it, and what follows.

    Raises:
        InputError: if the template shows the prompt otherwise once it was answered.
    """
    if files.template is None:
        if len(prompt) != 1 or prompt[0].role != "user":
            raise InputError("the model has no chat template; give prompt and completion as texts")
        return prompt[0].content, answer
    before = files.template.render(prompt)
    whole = files.template.render(
        [*prompt, Message("assistant", answer)], add_generation_prompt=False
    )
    if not whole.startswith(before):
        plain = files.template.render(prompt, add_generation_prompt=False)
        if not whole.startswith(plain):
            raise InputError("the chat template shows a prompt otherwise once it is answered")
        # Such a template opens an answer with what it leaves out of a finished one.
        at = whole.find(answer, len(plain))
        if at < 0:
            raise InputError("the chat template does not show the answer as it is")
        return before, whole[at:]
    return before, whole[len(before) :]
