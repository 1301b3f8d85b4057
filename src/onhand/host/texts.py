"""Calibration and held-out texts as token sequences; what was used is said and hashed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.device.template import ChatTemplate
from onhand.device.text import Tokenizer
from onhand.host.documents import Document, encode_documents, read_documents

__all__ = ["TextPart", "Texts", "cut_sequences", "split_texts"]

SEQUENCE_TOKENS = 512
_HELDOUT_SHARE = 0.3
_LEAST_TOKENS = 64
BUILTIN = "the built-in sample text"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """Token sequences of one part of a text.

    Attributes:
        sequences: each (T,) int64, T at most `SEQUENCE_TOKENS` and the model's context.
        what: where it comes from, for people; no path.
        n_tokens: tokens in all sequences: the real number.
        sha256: hash of the tokens, in hex.
    """

    sequences: tuple[TokenArray, ...]
    what: str
    n_tokens: int
    sha256: str

    def to_json(self) -> dict[str, object]:
        """Return what a report says of the text."""
        return {"what": self.what, "n_tokens": self.n_tokens, "sha256": self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The two parts; they share no token.

    Attributes:
        calibration: for input statistics.
        heldout: for the proof.
        notes: fallbacks that were taken.
        training: more of the text that calibrates; None where nothing is trained.
    """

    calibration: TextPart
    heldout: TextPart
    notes: tuple[str, ...]
    training: TextPart | None = None


def cut_sequences(
    tokenizer: Tokenizer,
    text: str | Sequence[Document],
    decoder: Decoder,
    *,
    what: str,
    max_tokens: int | None,
    template: ChatTemplate | None = None,
) -> TextPart:
    """Cut a text into sequences of equal length, each beginning as a text of its own does.

    Args:
        tokenizer: the model's.
        text: any text; or documents, which are put behind each other.
        decoder: bounds the sequences by its context.
        what: where the text comes from, for people.
        max_tokens: most tokens to take, from the beginning; None for all.
        template: the model's, for conversations.

    Returns:
        The sequences; a rest shorter than `_LEAST_TOKENS` is left out of a longer text.

    Raises:
        InputError: if the text is too short, has tokens that the model does not, or a
            conversation cannot be rendered.
    """
    if isinstance(text, str):
        ids, opening = tokenizer.encode_plain(text), tokenizer.encode_plain("")
    else:
        # Each document has its own beginning already.
        ids = encode_documents(text, tokenizer, template)
        opening = ids[:0]
    if ids.size and int(ids.max()) >= decoder.vocab_size:
        raise InputError(
            f"the tokenizer gives token {int(ids.max())}, the model's vocabulary is "
            f"{decoder.vocab_size}: they do not belong together"
        )
    opening = ids[: opening.size] if np.array_equal(ids[: opening.size], opening) else ids[:0]
    body = ids[opening.size :]
    if max_tokens is not None:
        body = body[:max_tokens]
    length = min(SEQUENCE_TOKENS, decoder.context) - opening.size
    if body.size < 2 or length < 2:
        raise InputError(f"{what}: has {body.size} tokens, too few to judge anything by")
    starts = range(0, body.size, length)
    pieces = [np.concatenate([opening, body[low : low + length]]) for low in starts]
    if len(pieces) > 1 and pieces[-1].size < _LEAST_TOKENS:
        pieces.pop()
    joined = np.concatenate(pieces)
    return TextPart(
        sequences=tuple(pieces),
        what=what,
        n_tokens=int(joined.size),
        sha256=hashlib.sha256(joined.astype("<i8").tobytes()).hexdigest(),
    )


def split_texts(
    tokenizer: Tokenizer,
    path: Path | None,
    decoder: Decoder,
    *,
    max_tokens: int,
    calibration_tokens: int | None = None,
    training_tokens: int = 0,
    template: ChatTemplate | None = None,
) -> Texts:
    """Take a text apart: the beginning calibrates, the end is held out.

    Args:
        tokenizer: the model's.
        path: the user's text or documents, or None for the built-in sample.
        decoder: the model.
        max_tokens: most tokens of each part.
        calibration_tokens: most tokens of the first part, where it is to be another number.
        training_tokens: most tokens of the first part to train on; 0 for none.
        template: the model's, for conversations.

    Returns:
        Both parts, with a note where the built-in text was used.

    Raises:
        InputError: if the text cannot be read or is too short.
    """
    text = builtin_text() if path is None else read_documents(path)
    what = BUILTIN if path is None else f"the text {path.name}"
    early, late = _parted(text, what)
    share = f"{100 - round(100 * _HELDOUT_SHARE)} %"
    rest = f"{round(100 * _HELDOUT_SHARE)} %"
    notes: list[str] = []
    if path is None:
        notes.append(
            f"no calibration text was given: {BUILTIN} was used for calibration and proof; "
            "a text of your own use (--calibrate) gives a better bundle and a fairer figure"
        )

    def early_part(most: int) -> TextPart:
        named = f"first {share} of {what}"
        return cut_sequences(
            tokenizer, early, decoder, what=named, max_tokens=most, template=template
        )

    return Texts(
        calibration=early_part(calibration_tokens or max_tokens),
        training=early_part(training_tokens) if training_tokens else None,
        heldout=cut_sequences(
            tokenizer,
            late,
            decoder,
            what=f"last {rest} of {what}",
            max_tokens=max_tokens,
            template=template,
        ),
        notes=tuple(notes),
    )


def _parted(
    text: str | list[Document], what: str
) -> tuple[str, str] | tuple[list[Document], list[Document]]:
    """Cut a text at a line's end, documents between two, so that no token is in both parts.

    Raises:
        InputError: if there is only one document.
    """
    border = int(len(text) * (1 - _HELDOUT_SHARE))
    if isinstance(text, str):
        line = text.find("\n", border)
        border = border if line < 0 else line + 1
        return text[:border], text[border:]
    if len(text) < 2:
        raise InputError(f"{what}: has one document; give at least two, one of them to judge by")
    border = max(border, 1)
    return text[:border], text[border:]


def builtin_text() -> str:
    """Return the sample text that comes with onhand."""
    return files("onhand.host").joinpath("builtin_text.txt").read_text(encoding="utf-8")
