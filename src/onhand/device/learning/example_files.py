"""Reads files and folders of training examples: all of it, or a sentence for each bad line."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError
from onhand.core.outside import parse_json, shown
from onhand.device.learning.example_tables import example_from_table
from onhand.device.learning.examples import Example, Labelled, PlainText
from onhand.device.networks.inputs import INPUT_SUFFIXES
from onhand.device.vault.above import opened

__all__ = ["Examples", "read_examples"]

MOST_FILE_BYTES: Final = 256 * 2**20
MOST_LINE_BYTES: Final = 4 * 2**20
MOST_EXAMPLES: Final = 1_000_000
_SHOWN_LINES: Final = 5
_TABLES: Final = {".csv": ",", ".tsv": "\t"}
_LINES: Final = (".jsonl", ".ndjson", ".json")
_TEXTS: Final = (".txt", ".md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """What was read.

    Attributes:
        examples: in the order of the file.
        notes: what was there and says nothing to a learner, a sentence each.
    """

    examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()


def read_examples(path: Path) -> Examples:
    """Read training examples.

    Args:
        path: `.txt`, a text; `.jsonl`, an object a line, see `example_from_table`; `.csv` or
            `.tsv` with the columns text and label, named in the first line; or a folder that has
            one folder of pictures, sounds or arrays for each class.

    Returns:
        At least one.

    Raises:
        InputError: if there is none, the file cannot be read, or lines in it are bad: each of the
            first ones is named, with what is wrong.
    """
    if path.is_dir():
        found = _folder(path)
    elif path.suffix.lower() in _TEXTS:
        found = Examples(examples=_whole_text(path))
    elif path.suffix.lower() in _LINES:
        found = _lines(path)
    elif path.suffix.lower() in _TABLES:
        found = _table(path, _TABLES[path.suffix.lower()])
    else:
        known = ", ".join((*_TEXTS, *_LINES, *_TABLES))
        raise InputError(f"{path}: not known by its name; give a folder, or one of {known}")
    if not found.examples:
        raise InputError(f"{path}: holds no example")
    return found


class _Gatherer:
    """Collects examples, and a sentence for each line that is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[Example] = []
        self._bad: list[str] = []
        self._unused: Counter[str] = Counter()
        self._blank = 0

    def take(self, number: int, make: Callable[[str], tuple[Example, frozenset[str]]]) -> None:
        where = f"{self._path.name}: line {number}"
        try:
            example, unused = make(where)
        except InputError as error:
            self._bad.append(f"line {number}: {error}")
            return
        self._found.append(example)
        self._unused.update(unused)
        if len(self._found) > MOST_EXAMPLES:
            raise InputError(f"{self._path}: over {MOST_EXAMPLES} examples; give fewer at a time")

    def done(self) -> Examples:
        if self._bad:
            more = len(self._bad) - _SHOWN_LINES
            told = "; ".join(self._bad[:_SHOWN_LINES]) + (f"; and {more} more" if more > 0 else "")
            n = f"{len(self._bad)} line" + ("s" if len(self._bad) > 1 else "")
            raise InputError(f"{self._path}: {n} cannot be used: {told}")
        notes = [
            f"{self._path.name}: {shown(key)} is given in {n} lines and not used"
            for key, n in sorted(self._unused.items())
        ]
        return Examples(examples=tuple(self._found), notes=tuple(notes))


def _lines(path: Path) -> Examples:
    gatherer = _Gatherer(path)
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        if line.strip():
            gatherer.take(number, partial(_from_line, line, path.parent))
    return gatherer.done()


def _from_line(line: str, folder: Path, where: str) -> tuple[Example, frozenset[str]]:
    if len(line) > MOST_LINE_BYTES:
        raise InputError(f"has {len(line)} letters, at most {MOST_LINE_BYTES} are read")
    table = parse_json(line.encode())
    if not isinstance(table, Mapping):
        raise InputError("is no JSON object")
    return example_from_table(table, where=where, folder=folder)


def _table(path: Path, separator: str) -> Examples:
    reader = csv.reader(io.StringIO(_text_of(path), newline=""), delimiter=separator, strict=True)
    gatherer = _Gatherer(path)
    rows = _rows(reader, path)
    _, heads = next(rows, (0, []))
    names = [head.strip().lower() for head in heads]
    if not {"text", "label"} <= set(names):
        raise InputError(
            f"{path}: line 1 must name the columns text and label, found {shown(heads)}"
        )
    for number, row in rows:
        if row:
            gatherer.take(number, partial(_from_row, names, row))
    return gatherer.done()


def _rows(reader: "csv._reader", path: Path) -> Iterator[tuple[int, list[str]]]:  # type: ignore[name-defined]
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}: line {reader.line_num}: {error}") from error
        yield reader.line_num, row


def _from_row(names: list[str], row: list[str], where: str) -> tuple[Example, frozenset[str]]:
    if len(row) != len(names):
        raise InputError(f"has {len(row)} columns, the first line names {len(names)}")
    table = dict(zip(names, row, strict=True))
    chosen = {"text": table.pop("text"), "label": table.pop("label")}
    example, _ = example_from_table(chosen, where=where)
    return example, frozenset(table)


def _whole_text(path: Path) -> tuple[Example, ...]:
    text = _text_of(path)
    return (PlainText(text=text, where=path.name),) if text.strip() else ()


def _text_of(path: Path) -> str:
    try:
        with opened(path, "memory") as file:
            content = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > MOST_FILE_BYTES:
        raise InputError(f"{path}: over {MOST_FILE_BYTES} bytes; give less at a time")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line}: is not UTF-8") from error


def _folder(path: Path) -> Examples:
    """Read a folder for each class; anything else in it is named, for nothing is left out.

    Raises:
        InputError: if there is anything else in it, or too much.
    """
    found: list[Example] = []
    odd: list[str] = []
    for place in sorted(path.iterdir()):
        if place.name.startswith("."):
            continue
        if not place.is_dir():
            odd.append(place.name)
            continue
        for file in sorted(place.iterdir()):
            if file.name.startswith("."):
                continue
            if not file.is_file() or file.suffix.lower() not in INPUT_SUFFIXES:
                odd.append(f"{place.name}/{file.name}")
                continue
            where = f"{place.name}/{file.name}"
            found.append(Labelled(given=file, label=place.name, where=where))
            if len(found) > MOST_EXAMPLES:
                raise InputError(f"{path}: over {MOST_EXAMPLES} examples; give fewer at a time")
    if odd:
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        raise InputError(
            f"{path}: holds {', '.join(odd[:3])}{more}; it must have one folder for each class, "
            f"with files of {', '.join(INPUT_SUFFIXES)}"
        )
    return Examples(examples=tuple(found))
