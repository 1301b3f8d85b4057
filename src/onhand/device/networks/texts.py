"""Texts for a network: through the bundle's tokenizer to arrays, cut where they are too long."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.feed import TextFeed
from onhand.device.networks.base import Array
from onhand.device.text import check_text, parse_tokenizer

__all__ = ["TOKENIZER", "Text", "TextBatch", "TextReader", "open_texts"]

TOKENIZER: Final = "tokenizer.json"
Text = str | tuple[str, str]
"""A text, or two that belong together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBatch:
    """Texts, ready to be fed.

    Attributes:
        feeds: name of an input -> (B, T) int64, T tokens of the longest text.
        cut: of each text, whether its end did not fit and was left out.
    """

    feeds: dict[str, Array]
    cut: tuple[bool, ...]


class TextReader:
    """Turns texts into a network's inputs. Threads may share it."""

    def __init__(self, feed: TextFeed, tokenizer: bytes, *, where: str = TOKENIZER) -> None:
        """Read the tokenizer.

        Args:
            feed: the inputs, and the most tokens of a text.
            tokenizer: content of the bundle's `tokenizer.json`.
            where: its name for messages.

        Raises:
            BundleCorrupt: if it is not a tokenizer, or leaves no room for a text.
        """
        self._feed = feed
        self._model = parse_tokenizer(tokenizer, where=where)
        self._room = feed.max_tokens - self._model.num_special_tokens_to_add(is_pair=True)
        alone = feed.max_tokens - self._model.num_special_tokens_to_add(is_pair=False)
        if alone < 1:
            raise BundleCorrupt(
                f"{where}: puts {feed.max_tokens - alone} tokens around every text, the network "
                f"takes {feed.max_tokens}"
            )
        padding = self._model.padding
        self._pad_id = 0 if padding is None else int(padding["pad_id"])
        self._model.no_padding()
        self._model.enable_truncation(feed.max_tokens, strategy="longest_first")

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text."""
        return self._feed.max_tokens

    def read(self, text: Text) -> TextBatch:
        """Return one text's arrays, (1, T) each.

        Raises:
            InputError: if it holds half a surrogate pair, has no tokens, or there is no room for
                two texts.
        """
        return self.batch([text])

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return where each token of a text begins and ends in it.

        Args:
            text: one.

        Returns:
            As many as `read` makes tokens; (0, 0) for a token that stands for no part of it.

        Raises:
            InputError: if it holds half a surrogate pair.
        """
        check_text(text)
        return [(start, end) for start, end in self._model.encode(text).offsets]

    @staticmethod
    def check(texts: Sequence[Text]) -> None:
        """Refuse what is no list of texts.

        Raises:
            InputError: if it is empty, a single text (whose letters would be taken for texts), or
                holds anything but texts and pairs of them.
        """
        if isinstance(texts, str):
            raise InputError("one text was given for a list of them: put it into brackets")
        if not len(texts):
            raise InputError("no texts: give one or more")
        for i, text in enumerate(texts):
            parts = text if isinstance(text, tuple) and len(text) == 2 else (text,)
            if not all(isinstance(part, str) for part in parts):
                raise InputError(f"text {i} is of type {type(text).__name__}, must be str or two")

    def batch(self, texts: Sequence[Text]) -> TextBatch:
        """Return the arrays of several texts, the shorter ones padded at their ends.

        Args:
            texts: at least one.

        Returns:
            The arrays; the mask is 0 at padding.

        Raises:
            InputError: if there is none, one holds half a surrogate pair or has no tokens, there
                is no room for two texts, or their lengths differ and the network takes no mask.
        """
        self.check(texts)
        rows: list[tuple[list[int], list[int]]] = []
        cut: list[bool] = []
        for text in texts:
            first, second = text if isinstance(text, tuple) else (text, None)
            for part in (first, second or ""):
                check_text(part)
            if second is not None and self._room < 2:
                raise InputError(f"two texts do not fit into {self._feed.max_tokens} tokens")
            encoding = self._model.encode(first, second)
            if not encoding.ids:
                raise InputError("a text has no tokens; give one with letters in it")
            rows.append((encoding.ids, encoding.type_ids))
            cut.append(bool(encoding.overflowing))
        lengths = np.array([len(ids) for ids, _ in rows])
        B, T = len(rows), int(lengths.max())
        if not self._feed.mask and (lengths != T).any():
            raise InputError("texts of several lengths need a mask; the network has none")
        ids = np.full((B, T), self._pad_id, dtype=np.int64)
        types = np.zeros((B, T), dtype=np.int64)
        for row, (row_ids, row_types) in enumerate(rows):
            ids[row, : len(row_ids)] = row_ids
            types[row, : len(row_ids)] = row_types
        mask = (np.arange(T) < lengths[:, None]).astype(np.int64)  # (B, T)
        named = {self._feed.ids: ids, self._feed.mask: mask, self._feed.types: types}
        feeds: dict[str, Array] = {name: array for name, array in named.items() if name}
        return TextBatch(feeds=feeds, cut=tuple(cut))


def open_texts(bundle: Bundle) -> TextReader:
    """Return the reader of a bundle's texts.

    Raises:
        InputError: if its network takes no texts.
        BundleCorrupt: if it has no tokenizer, or none that fits.
    """
    feed = bundle.manifest.network.feed
    if not isinstance(feed, TextFeed):
        raise InputError(f"{bundle.root}: its network takes no texts")
    if TOKENIZER not in bundle.manifest.files:
        raise BundleCorrupt(f"{bundle.root}: has no {TOKENIZER}, which texts need")
    try:
        content = bundle.path(TOKENIZER).read_bytes()
    except OSError as error:
        raise BundleCorrupt(f"{bundle.root}: cannot be read: {error}") from error
    return TextReader(feed, content, where=f"{bundle.root}: {TOKENIZER}")
