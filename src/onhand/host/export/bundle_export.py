"""A bundle in the format of another runtime."""

from pathlib import Path

from onhand.core.errors import InputError
from onhand.core.progress import Progress, Quiet
from onhand.host.export.genai import export_genai
from onhand.host.export.gguf import export_gguf
from onhand.host.export.result import ExportResult
from onhand.host.plain import read_plain_bundle

__all__ = ["FORMATS", "export_bundle"]

FORMATS = {"gguf": export_gguf, "genai": export_genai}


def export_bundle(
    root: Path,
    out: Path,
    *,
    to: str,
    variant: str | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Write one variant of a bundle for another runtime; its codes stay as they are.

    Args:
        root: the bundle's folder; every file in it is checked first.
        out: the file (gguf) or folder (genai) to make; must not exist.
        to: "gguf" for llama.cpp, "genai" for onnxruntime-genai.
        variant: which of its variants; None for its default.
        progress: told how far it is; None shows nothing.

    Returns:
        What was written, and what was lost.

    Raises:
        InputError: if the format is unknown or cannot hold the bundle, or `out` exists.
        BundleCorrupt: if the bundle is damaged.
        ResourceError: if the disk is full.
    """
    if to not in FORMATS:
        raise InputError(f"format {to!r} is not known, must be one of {', '.join(FORMATS)}")
    bundle = read_plain_bundle(root)
    chosen, _ = bundle.variant(variant)
    return FORMATS[to](bundle, chosen, out, progress=progress or Quiet())
