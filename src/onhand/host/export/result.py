"""What an export wrote, and the place it is written to first."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onhand.core.errors import InputError, ResourceError

__all__ = ["ExportResult", "stage_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """An exported variant.

    Attributes:
        path: the file or folder.
        format: "gguf" or "genai".
        variant: which of the bundle's.
        size_bytes: of the file, or of all files in the folder.
        tensors: type in the other format's words -> number of tensors.
        largest_error: most that a weight differs from the bundle's; 0.0 where all are the same.
        largest_error_steps: the same in steps of the weight's own scale.
        has_tokenizer: whether the other runtime can read and write text with it.
        notes: what the user should know.
    """

    path: Path
    format: str
    variant: str
    size_bytes: int
    tensors: Mapping[str, int]
    largest_error: float
    largest_error_steps: float
    has_tokenizer: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return {
            "format": self.format,
            "has_tokenizer": self.has_tokenizer,
            "largest_error": self.largest_error,
            "largest_error_steps": self.largest_error_steps,
            "notes": list(self.notes),
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "tensors": dict(self.tensors),
            "variant": self.variant,
        }


@contextmanager
def stage_file(out: Path) -> Iterator[Path]:
    """Give a file beside `out` to write to, and rename it to `out` at the end.

    If the block raises, the file is removed and `out` is as before.

    Args:
        out: the file to make.

    Yields:
        The file to write.

    Raises:
        InputError: if `out` exists already, or its parent is not a folder.
        ResourceError: if the disk is full.
    """
    parent = out.absolute().parent
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} exists already; choose another name or remove it first")
    if not parent.is_dir():
        raise InputError(f"{parent} is not a folder; create it first")
    staged: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=parent, prefix=f".{out.name}.writing-")
        os.close(descriptor)
        staged = Path(name)
        yield staged
        staged.chmod(0o644)
        staged.rename(out)
    except OSError as error:
        raise ResourceError(
            f"{out}: cannot be written: {error.strerror or error}; nothing was left behind"
        ) from error
    finally:
        if staged is not None:
            staged.unlink(missing_ok=True)
