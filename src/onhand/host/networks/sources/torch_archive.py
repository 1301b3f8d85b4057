"""What a `.pt2` file would make Python do when it is loaded, looked at before it is.

`torch.export.load` unpickles what the file says is pickled, evaluates its sizes as expressions,
and calls functions by name. Nothing of that is needed for tensors and ATen's operators: whatever
asks for it is refused.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from onhand.core.errors import SourceError

__all__ = ["check_archive"]

_MOST_BYTES = 2**28
_MOST_DEPTH = 200
# Compiled code, pickled objects and whatever else an archive may hold have other places.
_PLACES = re.compile(
    r"[^/]+/("
    r"data/weights/(weight_\d+|\w+_weights_config\.json)"
    r"|data/constants/(tensor_\d+|\w+_constants_config\.json)"
    r"|data/sample_inputs/\w+\.pt|models/\w+\.json"
    r"|archive_format|archive_version|byteorder|\.data/\w+|\.format_version|\.storage_alignment)"
)
_TARGET = re.compile(r"torch\.ops\.(aten|prims)\.\w+\.\w+|_operator\.\w+|math\.\w+|torch\.sym_\w+")
_NEVER = re.compile(r"torch\.ops\.aten\.from_file\.|_operator\.(attrgetter|methodcaller|call)")
_KNOWN_WORDS: Final = """
Add And CeilToInt Eq False Float FloorDiv FloorToInt Ge Gt Integer IntTrueDiv L Le Lt Max Min Mod
ModularIndexing Mul Ne Or Pow PowByNatural PythonMod Rational RoundToInt Symbol True TruncToInt
Where and inf int_oo integer negative nonnegative not oo or positive shape size zero
"""
_WORDS: Final = frozenset(_KNOWN_WORDS.split())
_NAME = re.compile(r"[A-Za-z_]\w*")
_SYMBOL = re.compile(r"[suz]\d+")


def check_archive(path: Path) -> None:
    """Refuse a file that would run code of its own when it is loaded.

    Args:
        path: the `.pt2` file.

    Raises:
        SourceError: if it would, or it is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                _check_entry(archive, entry, path)
    except (OSError, ValueError, NotImplementedError, RecursionError) as error:
        raise SourceError(f"{path}: no whole .pt2 file: {error}") from error
    except zipfile.BadZipFile as error:
        raise SourceError(f"{path}: no .pt2 file of torch.export: {error}") from error


def _check_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    name = entry.filename
    if not _PLACES.fullmatch(name):
        raise SourceError(
            f"{path}: holds {name[:80]!r}: compiled code and pickled objects are not loaded; save "
            "an ExportedProgram of tensors with torch.export.save"
        )
    if name.endswith(".json") or "/sample_inputs/" in name:
        if entry.file_size > _MOST_BYTES:
            raise SourceError(f"{path}: {name!r} has {entry.file_size} bytes")
        content = archive.read(entry)
        if name.endswith(".json"):
            _check_json(json.loads(content), name, path)
        else:
            _check_tensors(content, path)


def _check_tensors(content: bytes, path: Path) -> None:
    """Refuse sample inputs that are more than tensors: the loader would unpickle them.

    Raises:
        SourceError: if they are.
    """
    import pickle

    import torch

    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise SourceError(f"{path}: its sample inputs are no plain tensors") from error


def _check_json(told: Any, name: str, path: Path) -> None:
    for entry in _objects(told, _MOST_DEPTH, path):
        if entry.get("use_pickle"):
            raise SourceError(f"{path}: {name!r} has a pickled {entry.get('path_name')!r}")
        target = entry.get("target")
        if isinstance(target, str) and (not _TARGET.fullmatch(target) or _NEVER.match(target)):
            raise SourceError(
                f"{path}: calls {target[:80]!r}: only ATen's operators are; decompose it before "
                "it is saved"
            )
        expressions = [entry.get("expr_str"), *(entry.get("guards_code") or ())]
        for expression in expressions:
            if isinstance(expression, str) and not _is_plain(expression):
                raise SourceError(f"{path}: has a size {expression[:80]!r}, which is no plain sum")


def _is_plain(expression: str) -> bool:
    """Whether an expression has numbers, sizes and sums alone."""
    # Names of inputs stand in quotes, as keys.
    bare = re.sub(r"\['\w*'\]", "", expression)
    names = _NAME.findall(bare)
    return len(expression) < 1000 and all(w in _WORDS or _SYMBOL.fullmatch(w) for w in names)


def _objects(value: Any, depth: int, path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield every object of a description, at any depth.

    Raises:
        SourceError: if it is too deep.
    """
    if not depth:
        raise SourceError(f"{path}: its description is over {_MOST_DEPTH} deep")
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item, depth - 1, path)
