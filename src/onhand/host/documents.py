"""Texts and conversations to calibrate and judge with, read from plain text or JSON lines."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onhand.core.arrays import TokenArray
from onhand.core.errors import InputError
from onhand.device.template import ChatTemplate, Message
from onhand.device.text import Tokenizer

__all__ = ["Document", "encode_documents", "read_documents"]

Document = str | tuple[Message, ...]
"""A text, or the messages of a conversation."""


def read_documents(path: Path) -> str | list[Document]:
    """Read a text file, or a file of JSON lines.

    Args:
        path: UTF-8. If its name ends in .jsonl each line is an object with a `text`, or with
            `messages`: a list of objects with `role` and `content`, as chat models are given.

    Returns:
        The text; or the documents, one for each line that is not blank.

    Raises:
        InputError: if it cannot be read, is not UTF-8, is empty, or a line is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}; convert it") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not text.strip():
        raise InputError(f"{path}: is empty; give a text of at least a few hundred words")
    if path.suffix.lower() != ".jsonl":
        return text
    lines = enumerate(text.split("\n"), start=1)
    return [_document(line, f"{path}, line {number}") for number, line in lines if line.strip()]


def _document(line: str, where: str) -> Document:
    """Read one line.

    Raises:
        InputError: if it is no object with a text or messages.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if isinstance(found, dict):
        text, messages = found.get("text"), found.get("messages")
        if isinstance(text, str) and text.strip() and messages is None:
            return text
        if isinstance(messages, list) and messages and text is None:
            return tuple(_message(one, where) for one in messages)
    raise InputError(
        f'{where}: must be an object with a "text", or with "messages", a list of objects with '
        '"role" and "content"'
    )


def _message(found: object, where: str) -> Message:
    """Read one message.

    Raises:
        InputError: if it is none.
    """
    if not isinstance(found, dict) or not isinstance(found.get("role"), str):
        raise InputError(f'{where}: a message must be an object with "role" and "content"')
    try:
        return Message(role=found["role"], content=found.get("content"))  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def encode_documents(
    documents: Sequence[Document], tokenizer: Tokenizer, template: ChatTemplate | None
) -> TokenArray:
    """Return the tokens of all documents behind each other.

    Args:
        documents: texts and conversations.
        tokenizer: the model's.
        template: its chat template; None if it has none.

    Returns:
        (T,) int64; every document begins as the model sees one begin.

    Raises:
        InputError: if there are conversations but no template, or it refuses one.
    """
    parts: list[TokenArray] = []
    for number, document in enumerate(documents, start=1):
        if isinstance(document, str):
            parts.append(tokenizer.encode_plain(document))
            continue
        if template is None:
            raise InputError(
                f"document {number} is a conversation, and the model has no chat template; "
                "give texts instead"
            )
        try:
            text = template.render(document, add_generation_prompt=False)
        except InputError as error:
            raise InputError(f"document {number}: {error}") from error
        parts.append(tokenizer.encode_template(text))
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
