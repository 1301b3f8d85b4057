"""`onhand audit`: what was recorded on this device, and whether it is as it was written."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from onhand.cli.options import AsJson
from onhand.cli.output import say, write, write_json, write_table
from onhand.core.errors import InputError

if TYPE_CHECKING:
    from onhand.cli.settings import Settings
    from onhand.device.audit.keys import AuditKeys
    from onhand.device.audit.records import Record
    from onhand.device.audit.settings import AuditSettings
    from onhand.device.audit.verifying import Verdict

__all__ = ["EXIT_CODES", "command"]

EXIT_CODES: Final = {
    "edited": 20,
    "deleted": 21,
    "reordered": 22,
    "cut": 23,
    "replaced": 24,
    "unanchored": 25,
}
"""Of `verify`, by the first thing that is wrong."""

_ACTIONS: Final = ("verify", "show", "export")
_Action = Annotated[str, typer.Argument(metavar="ACTION", help="verify, show or export.")]
_File = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="An export to verify, not this device's.")
]
_Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The server's settings: where the log lies.")
]
_Out = Annotated[Path | None, typer.Option("-o", "--output", help="File of an export.")]
_Last = Annotated[int, typer.Option(min=1, help="How many records to show.")]
_PublicKey = Annotated[
    str | None, typer.Option(metavar="HEX", help="Key that an export's heads must be signed with.")
]
_Bodies = Annotated[bool, typer.Option("--bodies", help="Open sealed bodies, and show them.")]


def command(
    context: typer.Context,
    action: _Action,
    file: _File = None,
    *,
    config: _Config = None,
    output: _Out = None,
    last: _Last = 20,
    public_key: _PublicKey = None,
    bodies: _Bodies = False,
    as_json: AsJson = False,
) -> None:
    """Check what was recorded of requests, show it, or write it to a file that others can check.

    Raises:
        InputError: if there is no such action or log, or a file cannot be read or written.
        Exit: with the code of what is wrong.
    """
    asked: Settings = context.obj
    if action not in _ACTIONS:
        raise InputError(f"action is {action!r}, must be one of {', '.join(_ACTIONS)}")
    try:
        if action == "verify":
            verdicts = _of_export(file, public_key) if file else _of_device(asked, config)
            _tell(verdicts, as_json=as_json)
        elif action == "show":
            _show(asked, config, last=last, bodies=bodies, as_json=as_json)
        else:
            _export(asked, config, output)
    except OSError as error:
        raise InputError(f"the audit log cannot be read or written: {error}") from error


def _settings(asked: "Settings", config: Path | None) -> "AuditSettings":
    from onhand.device.serving.assembling import read_settings
    from onhand.device.serving.settings import ServeSettings

    if config is None:
        return ServeSettings().audit
    return read_settings(config, environment=asked.environment).audit


def _chains(asked: "Settings", config: Path | None) -> list[tuple[Path, Path]]:
    """Return the folder of each chain and the file of its heads, of those that are gone as well.

    Raises:
        InputError: if there is none.
    """
    from onhand.device.audit.elsewhere import kept_elsewhere

    folder, heads = _settings(asked, config).folders(asked.home())
    names = {path.stem for path in heads.glob("*-*.heads")}
    names |= {path.name for path in folder.glob("*-*") if path.is_dir()}
    elsewhere = kept_elsewhere(asked.home())
    names |= set() if elsewhere is None else set(elsewhere.chains())
    if not names:
        raise InputError(f"{folder}: there is no audit log; 'onhand serve' writes one")
    return [(folder / name, heads / f"{name}.heads") for name in sorted(names)]


def _keys(asked: "Settings", chain: str) -> "AuditKeys":
    from onhand.device.audit.keys import VAULT_CHAINS, known_audit_keys, vault_of

    home = asked.home()
    return known_audit_keys(home, vault_of(home) if chain.startswith(VAULT_CHAINS) else None)


def _of_device(asked: "Settings", config: Path | None) -> list["Verdict"]:
    from onhand.device.audit.elsewhere import kept_elsewhere
    from onhand.device.audit.verifying import verify_folder

    verdicts: list[Verdict] = []
    elsewhere = kept_elsewhere(asked.home())
    for folder, heads in _chains(asked, config):
        keys = _keys(asked, folder.name)
        more = [] if elsewhere is None else elsewhere.kept(folder.name)
        verdicts.append(verify_folder(folder, heads, public=keys.public, code=keys.code, more=more))
    return verdicts


def _of_export(file: Path, public_key: str | None) -> list["Verdict"]:
    from onhand.device.audit.exporting import read_export
    from onhand.device.audit.verifying import verify

    evidence, public = read_export(file)
    if public_key is None:
        say(f"no --public-key: the heads are checked with the key that {file} itself names")
    else:
        try:
            public = bytes.fromhex(public_key)
        except ValueError as error:
            raise InputError("--public-key must be digits of hex") from error
    return [verify(evidence, public=public, code=None)]


def _tell(verdicts: Sequence["Verdict"], *, as_json: bool) -> None:
    findings = [finding for verdict in verdicts for finding in verdict.findings]
    if as_json:
        write_json({"chains": [asdict(one) for one in verdicts], "is_sound": not findings})
    else:
        for one in verdicts:
            _describe(one)
    if findings:
        raise typer.Exit(EXIT_CODES[findings[0].kind])


def _describe(one: "Verdict") -> None:
    from onhand.device.audit.verifying import KINDS

    for finding in one.findings:
        write(f"{one.name}: {KINDS[finding.kind]} ({finding.kind}): {finding.sentence}\n")
    if not one.findings:
        write(f"{one.name}: records {one.first} to {one.last} are as they were written\n")
    if one.after_head:
        write(
            f"{one.name}: the last {one.after_head} of them follow the last of {one.heads} signed "
            f"heads; what is cut off of those does not show\n"
        )
    if one.unfinished_bytes:
        write(f"{one.name}: {one.unfinished_bytes} bytes of a record that was never finished\n")


def _show(
    asked: "Settings", config: Path | None, *, last: int, bodies: bool, as_json: bool
) -> None:
    shown = [
        (folder.name, record)
        for folder, _ in _chains(asked, config)
        for record in _latest(folder, last)
    ]
    shown = sorted(shown, key=lambda one: (one[1].time, one[1].seq))[-last:]
    keys = {chain: _keys(asked, chain).body for chain, _ in shown} if bodies else {}
    if as_json:
        listed = [{"chain": chain} | _fields(one, keys.get(chain)) for chain, one in shown]
        write_json({"records": listed})
        return
    rows = [_row(chain, record) for chain, record in shown]
    write_table(["record", "time", "who", "what", "model", "from", "left", "status"], rows)
    for chain, record in shown:
        for name, text in _opened(record, keys.get(chain)).items():
            write(f"{record.seq} {name}: {text}\n")


def _latest(folder: Path, last: int) -> list["Record"]:
    from collections import deque

    from onhand.device.audit.records import parse
    from onhand.device.audit.segments import lines_of, segments_in

    found: deque[Record] = deque(maxlen=last)
    for segment in segments_in(folder)[-2:]:
        for line in lines_of(segment.path):
            if line.is_whole:
                found.append(parse(line.content))
    return list(found)


def _fields(record: "Record", key: bytes | None) -> dict[str, object]:
    fields = asdict(record)
    return fields | {"opened": _opened(record, key)} if key else fields


def _opened(record: "Record", key: bytes | None) -> dict[str, str]:
    from onhand.device.audit.bodies import unseal_bodies

    sealed = record.facts.get("bodies")
    if key is None or not isinstance(sealed, str):
        return {}
    found = unseal_bodies(sealed, key, request=str(record.facts.get("id")))
    return {name: content.decode("utf-8", "replace") for name, content in found.items()}


def _row(chain: str, record: "Record") -> list[str]:
    facts = record.facts
    left = facts.get("left") or []
    backends = sorted({str(one.get("backend")) for one in left if isinstance(one, dict)})
    source = facts.get("source", "")
    if facts.get("cache") not in {None, "miss"}:
        source = f"{facts['cache']} cache"
    what = f"{facts.get('action', '')} {facts.get('route', '')}".strip() or record.kind
    return [
        f"{chain}/{record.seq}",
        record.time,
        str(facts.get("who", "")),
        what,
        str(facts.get("model", "")),
        str(source),
        ", ".join(backends) or "nothing",
        str(facts.get("status", "")),
    ]


def _export(asked: "Settings", config: Path | None, output: Path | None) -> None:
    from onhand.device.audit.exporting import exported
    from onhand.device.audit.verifying import evidence_in

    if output is None:
        raise InputError("give the file to write: -o FILE")
    chains = _chains(asked, config)
    for number, (folder, heads) in enumerate(chains, start=1):
        place = output if len(chains) == 1 else output.with_name(f"{output.stem}-{number}.jsonl")
        keys = _keys(asked, folder.name)
        beside = place.with_name(f".{place.name}.writing")
        with beside.open("w", encoding="utf-8") as file:
            for line in exported(evidence_in(folder, heads), public=keys.public):
                file.write(line + "\n")
        beside.replace(place)
        write(f"{place}\n")
        say(f"its heads are signed by {keys.public.hex()}: give that to who checks it, apart")
