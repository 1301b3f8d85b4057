"""`onhand export`: a bundle in the format of another runtime."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from onhand.cli.host_extra import host_extra
from onhand.cli.learned import version_number
from onhand.cli.options import AsJson, BundleFolder, Variant
from onhand.cli.output import write, write_json
from onhand.cli.progress import shown_progress
from onhand.cli.trusted import AllowUnsigned
from onhand.core.errors import InputError
from onhand.core.units import format_bytes

if TYPE_CHECKING:
    from onhand.host.export.result import ExportResult

__all__ = ["command"]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    allow_unsigned: AllowUnsigned = False,
    to: Annotated[
        Literal["gguf", "genai", "peft", "safetensors"],
        typer.Option(
            help="gguf: a file for llama.cpp; genai: a folder for onnxruntime-genai; peft: what "
            "was learned here, as a folder with an adapter of the original; safetensors: the same "
            "as plain tensors, of any network."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", help="The file or folder; must not exist."),
    ],
    variant: Variant = None,
    version: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="With peft or safetensors: which learned version; without it, the one in use.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a bundle in the format of another runtime; its codes stay as they are.

    Raises:
        InputError: if an option belongs to another format.
    """
    if to in {"peft", "safetensors"}:
        if variant is not None:
            raise InputError("--variant: what was learned is one adapter; leave it out")
        _learned(name, output, to, version, home=context.obj.home(), as_json=as_json)
        return
    if version is not None:
        raise InputError(f"--version: {to} takes the bundle as it was built; leave it out")
    with host_extra("exporting"), shown_progress() as progress:
        from onhand.host.export.bundle_export import export_bundle

        made = export_bundle(name, output, to=to, variant=variant, progress=progress)
    if as_json:
        write_json(made.to_json())
    else:
        _show(made)


def _learned(
    name: Path, output: Path, to: str, version: str | None, *, home: Path, as_json: bool
) -> None:
    from onhand.device.learning.adapters import export_adapter

    made = export_adapter(name, output, home=home, version=version_number(version), to=to)
    if as_json:
        write_json(made.to_json())
        return
    write(f"written    {made.path} ({made.format}, {format_bytes(made.size_bytes)})\n")
    write(f"version    {made.version}\n")
    if made.is_scoped:
        write("scope      left out: whoever loads this answers all prompts with what was learned\n")
    if made.format == "safetensors":
        write(f"tensors    {made.matrices}, as the bundle's lesson names them\n")
        return
    write(f"matrices   {made.matrices}, as {made.modules} of the original, rank {made.rank}\n")


def _show(made: "ExportResult") -> None:
    kinds = ", ".join(f"{count} x {kind}" for kind, count in made.tensors.items())
    loss = "none: every weight is the bundle's"
    if made.largest_error > 0:
        loss = f"a weight moved by at most {made.largest_error_steps:.2g} of its step"
    write(f"written    {made.path} ({made.format}, {format_bytes(made.size_bytes)})\n")
    write(f"variant    {made.variant}\n")
    write(f"tensors    {kinds}\n")
    write(f"loss       {loss}\n")
    write(f"tokenizer  {'included' if made.has_tokenizer else 'token ids only'}\n")
