"""Text to tokens and back, whole or token by token, over the `tokenizers` library."""

import codecs
import json
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onhand.core.arrays import TokenArray
from onhand.core.errors import BundleCorrupt, InputError

if TYPE_CHECKING:
    import tokenizers

__all__ = [
    "TextStream",
    "Tokenizer",
    "check_text",
    "open_tokenizer",
    "parse_tokenizer",
    "read_tokenizer",
]

_MAX_FILE_BYTES = 256 * 2**20
_FALLBACK_A = "<0x41>"
_MOST_SHARED = 2**18  # characters of a text for whose tokens others may wait


class Tokenizer:
    """One model's tokenizer; safe to share between threads.

    Attributes:
        bos_id: the token that starts a text, where `add_bos` needs it.
        add_bos: True or False overrules what tokenizer.json itself adds; None leaves it.
    """

    def __init__(
        self,
        model: "tokenizers.Tokenizer",
        *,
        bos_id: int | None = None,
        add_bos: bool | None = None,
    ) -> None:
        self._model = model
        self.bos_id = bos_id
        self.add_bos = add_bos
        added = model.get_added_tokens_decoder()
        self._special = frozenset(i for i, token in added.items() if token.special)
        kinds = _decoder_kinds(model)
        self._bytes_only = kinds == ["ByteLevel"]
        self._byte_fallback = "ByteFallback" in kinds
        self._missing: dict[int, NDArray[np.bool_] | None] = {}
        self._worker: Executor | None = None

    @property
    def vocab_size(self) -> int:
        """Highest token id plus one; ids below it may still lack a token."""
        return max(self._model.get_vocab().values(), default=-1) + 1

    def encode_plain(self, text: str) -> TokenArray:
        """Turn a plain prompt into tokens, with the opening token that the model expects.

        Args:
            text: any text; special tokens written in it are recognised.

        Returns:
            (T,) int64.

        Raises:
            InputError: if the text holds half a surrogate pair.
        """
        ids = self._encode(text, special=True)
        if self.add_bos is None or self.bos_id is None:
            return ids
        has_bos = len(ids) > 0 and ids[0] == self.bos_id
        if self.add_bos and not has_bos:
            return np.concatenate(([np.int64(self.bos_id)], ids))
        if not self.add_bos and has_bos and len(ids) > len(self._encode(text, special=False)):
            return ids[1:]
        return ids

    def encode_template(self, text: str) -> TokenArray:
        """Turn a text that a chat template framed into tokens; nothing is added.

        Args:
            text: the rendered template, special tokens included.

        Returns:
            (T,) int64.

        Raises:
            InputError: if the text holds half a surrogate pair.
        """
        return self._encode(text, special=False)

    def encode_with(self, worker: Executor | None) -> None:
        """Let one thread encode for all from now on.

        The library keeps words in each thread: dozens would take megabytes, and begin slowly.

        Args:
            worker: of one thread; it outlives what is encoded. None: each thread for itself again.
        """
        self._worker = worker

    def _encode(self, text: str, *, special: bool) -> TokenArray:
        check_text(text)
        if (worker := self._worker) is None or len(text) > _MOST_SHARED:
            found = self._model.encode(text, add_special_tokens=special)
        else:
            encode = self._model.encode
            found = worker.submit(encode, text, add_special_tokens=special).result()
        return np.asarray(found.ids, dtype=np.int64)

    def decode(self, ids: Sequence[int] | TokenArray) -> str:
        """Turn tokens into text at once, special tokens left out.

        Args:
            ids: tokens; an id without a token counts as nothing.

        Returns:
            The text.

        Raises:
            InputError: if an id is negative or beyond any vocabulary.
        """
        # The library alone shows special tokens that the file marks as normalized.
        shown = [checked for i in ids if (checked := _checked(i)) not in self._special]
        return self._model.decode(shown, skip_special_tokens=True)

    def token(self, token_id: int) -> str | None:
        """Return a token as the vocabulary writes it, or None if the id has none."""
        return self._model.id_to_token(_checked(token_id))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for: maybe a part of a character, or none.

        Raises:
            InputError: if the id is negative or beyond any vocabulary.
        """
        token = self.token(token_id)
        if token is None:
            return b""
        if self._bytes_only and token_id not in self._special:
            return _bytes_of(token)
        byte = _fallback_byte(token) if self._byte_fallback else None
        # In the middle of a text, so that a leading space stays.
        return self.decode([token_id]).encode() if byte is None else byte

    def find(self, token: str) -> int | None:
        """Return the id of a token as the vocabulary writes it, or None."""
        return self._model.token_to_id(token)

    def missing(self, vocab_size: int) -> NDArray[np.bool_] | None:
        """Say which of a model's ids have no token and may never be sampled.

        Args:
            vocab_size: V, logits in a row of the model.

        Returns:
            (V,) bool, read only, True where there is no token; None if every id has one.
        """
        if vocab_size not in self._missing:  # every conversation asks
            # One by one: the whole vocabulary as a dictionary is as large again as the tokenizer.
            lacks = (self._model.id_to_token(i) is None for i in range(vocab_size))
            mask = np.fromiter(lacks, dtype=np.bool_, count=vocab_size)
            mask.flags.writeable = False
            self._missing[vocab_size] = mask if mask.any() else None
        return self._missing[vocab_size]

    def stream(self, *, shown: Collection[int] = ()) -> "TextStream":
        """Start to turn tokens into text one by one.

        Args:
            shown: special tokens that are not left out, but shown as the vocabulary writes them.
        """
        return TextStream(
            self,
            special=self._special,
            shown=frozenset(shown) & self._special,
            bytes_only=self._bytes_only,
            byte_fallback=self._byte_fallback,
        )


class TextStream:
    """Turns tokens into text one by one; a character is never cut. One thread at a time.

    Bytes of one character that come in several tokens wait until it is whole. Otherwise a token's
    text is what it adds after the token before it, so each costs the same however long the text.
    The pieces together are `Tokenizer.decode` of all tokens, with one exception: among byte
    tokens of a SentencePiece model, bad bytes cost only themselves, not the whole run.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        special: frozenset[int],
        shown: frozenset[int],
        bytes_only: bool,
        byte_fallback: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._special = special
        self._shown = shown
        self._bytes_only = bytes_only
        self._byte_fallback = byte_fallback
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._before: list[int] = []  # the tokens whose text the next one follows
        self._partial: list[int] = []  # byte tokens of a character that is not whole

    def push(self, token_id: int) -> str:
        """Return the text that one more token completes, often "" within a character."""
        token = self._tokenizer.token(token_id)
        if token is not None and token_id in self._shown:
            # A character that was begun before it never becomes whole.
            cut = self._utf8.decode(b"", final=True) if self._bytes_only else self._drop_partial()
            return cut + token
        if token is None or token_id in self._special:
            return ""
        if self._bytes_only:
            return self._utf8.decode(_bytes_of(token))
        byte = _fallback_byte(token) if self._byte_fallback else None
        if byte is None:
            return self._drop_partial() + self._added_by([token_id])
        self._partial.append(token_id)
        text = self._utf8.decode(byte)
        if not text:
            return ""
        if "\ufffd" not in text:
            whole, self._partial = self._partial, []
            return self._added_by(whole)
        held = len(self._utf8.getstate()[0])
        self._partial = self._partial[len(self._partial) - held :]
        self._after_bad_bytes()
        return text

    def finish(self) -> str:
        """Return what was held back: U+FFFD for a character that never became whole."""
        self._partial = []
        return self._utf8.decode(b"", final=True)

    def _drop_partial(self) -> str:
        if not self._partial:
            return ""
        self._after_bad_bytes()
        return self.finish()

    def _after_bad_bytes(self) -> None:
        # Bad bytes in the window would spoil good ones after them; any letter does as well.
        letter = self._tokenizer.find(_FALLBACK_A)
        self._before = self._before if letter is None else [letter]

    def _added_by(self, ids: list[int]) -> str:
        before = self._tokenizer.decode(self._before)
        text = self._tokenizer.decode(self._before + ids)[len(before) :]
        self._before = ids
        return text


def read_tokenizer(
    path: Path, *, bos_token: str | None = None, add_bos: bool | None = None
) -> Tokenizer:
    """Read a `tokenizer.json`.

    Args:
        path: the file.
        bos_token: the token that starts a text.
        add_bos: whether a plain prompt starts with it; None for what the file itself says.

    Returns:
        The tokenizer.

    Raises:
        InputError: if the file cannot be read.
        BundleCorrupt: if it is not a tokenizer, or `bos_token` is wanted and not in it.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return open_tokenizer(content, bos_token=bos_token, add_bos=add_bos, where=str(path))


def open_tokenizer(
    content: bytes,
    *,
    bos_token: str | None = None,
    add_bos: bool | None = None,
    where: str = "tokenizer.json",
) -> Tokenizer:
    """Make a tokenizer from the bytes of a `tokenizer.json`.

    Args:
        content: the file's bytes.
        bos_token: the token that starts a text.
        add_bos: whether a plain prompt starts with it; None for what the file itself says.
        where: the file's name for messages.

    Returns:
        The tokenizer.

    Raises:
        BundleCorrupt: if the bytes are not a tokenizer, or `bos_token` is wanted and not in it.
    """
    model = parse_tokenizer(content, where=where)
    # A file may ask to cut or pad every text: a prompt is never cut in silence.
    model.no_truncation()
    model.no_padding()
    bos_id = None if bos_token is None else model.token_to_id(bos_token)
    if add_bos and bos_id is None:
        raise BundleCorrupt(f"{where}: texts must start with {bos_token!r}, which is no token")
    return Tokenizer(model, bos_id=bos_id, add_bos=add_bos)


def parse_tokenizer(content: bytes, *, where: str) -> "tokenizers.Tokenizer":
    """Return the library's tokenizer, with whatever limits the file gives it.

    Raises:
        BundleCorrupt: if the bytes are not a tokenizer.
    """
    import tokenizers

    if len(content) > _MAX_FILE_BYTES:
        raise BundleCorrupt(f"{where}: is over {_MAX_FILE_BYTES} bytes, which no tokenizer needs")
    try:
        model = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:
        # The library raises bare Exception for most of what can be wrong with a file.
        raise BundleCorrupt(f"{where}: is not a tokenizer: {error}") from error
    return model


def check_text(text: str) -> None:
    """Refuse what is no text.

    Raises:
        InputError: if the text holds half a surrogate pair.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"text: character {error.start} is half a surrogate pair "
            f"(U+{ord(text[error.start]):04X}), which is no text; remove it"
        ) from error


def _checked(token_id: int | np.int64) -> int:
    if not 0 <= token_id < 2**32:
        raise InputError(f"token id {token_id} is outside any vocabulary")
    return int(token_id)


def _decoder_kinds(model: "tokenizers.Tokenizer") -> list[str]:
    if model.decoder is None:
        return []
    state = json.loads(model.decoder.__getstate__())
    return [part["type"] for part in state.get("decoders", [state])]


def _fallback_byte(token: str) -> bytes | None:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes.fromhex(token[3:5])
        except ValueError:
            return None
    return None


@lru_cache(maxsize=1)
def _byte_letters() -> dict[str, int]:
    """Return the letter that byte-level vocabularies write for each byte.

    Source:
        `bytes_to_unicode` of GPT-2's published encoder.py.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + i): byte for i, byte in enumerate(others)
    }


def _bytes_of(token: str) -> bytes:
    if token.isascii():  # as a letter, each of these stands for itself
        return token.encode("ascii")
    letters = _byte_letters()
    try:
        return bytes([letters[letter] for letter in token])
    except KeyError:
        # An added token is plain text, not letters for bytes.
        return token.encode("utf-8")
