"""`onhand seal`: encrypt a bundle for the devices that may open it."""

from pathlib import Path
from typing import Annotated

import typer

from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.output import say, write, write_json
from onhand.core.errors import InputError

__all__ = ["command"]

_THIS = "this"
_To = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="RECIPIENT",
        help="A device that may open it, as `onhand vault recipient` prints it there, or "
        '"this"; several by several --to.',
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Folder to create; BUNDLE.sealed if it is not given."),
]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    to: _To = None,
    output: _Out = None,
    as_json: AsJson = False,
) -> None:
    """Encrypt a bundle so that it opens on some devices alone, into memory.

    Raises:
        InputError: if no recipient is given, or one is not valid.
    """
    from onhand.core.bundle import REPORT
    from onhand.core.sealed_header import parse_recipient
    from onhand.core.sealed_writing import seal_bundle

    if not to:
        raise InputError(
            "give --to RECIPIENT, what `onhand vault recipient` prints on the device that is to "
            f"open it, or --to {_THIS}"
        )
    recipients = [_own(context) if one == _THIS else parse_recipient(one) for one in to]
    out = output or name.absolute().with_name(f"{name.absolute().name}.sealed")
    header = seal_bundle(name, out, recipients)
    if (name / REPORT).exists():
        say("note: its report stays behind: it would lie beside the sealed files in plain")
    if as_json:
        write_json({
            "hints": [one.hint for one in header.recipients],
            "identity": header.identity.hex(),
            "n_files": len(header.files),
            "output": str(out),
        })
        return
    n = len(header.recipients)
    write(f"{out}: {len(header.files)} files, sealed for {n} device{'s' * (n > 1)}\n")


def _own(context: typer.Context) -> bytes:
    from onhand.core.sealed_header import parse_recipient
    from onhand.device.vault.recipients import recipient_of
    from onhand.device.vault.vault import open_vault

    vault = open_vault(context.obj.home())
    if vault is None:
        raise InputError("this device has no vault: make one by `onhand vault init`")
    return parse_recipient(recipient_of(vault))
