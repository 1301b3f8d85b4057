"""Running a sweep: trials to an executor, bundles and one table of all of them to a folder."""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from onhand.core.bundle import read_bundle
from onhand.core.errors import InputError, OnhandError, ResourceError
from onhand.core.outside import parse_json
from onhand.core.progress import Progress, Quiet
from onhand.device.report_data import parse_report
from onhand.device.report_view import figure_name, show_figure
from onhand.device.state import write_text_atomically
from onhand.host.scale.executor import Executor, LocalExecutor, Lost
from onhand.host.scale.sweep import Sweep, key_of
from onhand.host.scale.trial import Trial, TrialResult, run_trial, unpack

__all__ = ["PAGE", "TABLE", "run_sweep", "sweep_page"]

TABLE: Final = "sweep.json"
PAGE: Final = "sweep.html"
_FORMAT: Final = 1
_SHOWN: Final = (
    "size_bytes",
    "peak_memory_bytes",
    "perplexity_increase",
    "quality_loss",
    "latency_s",
    "time_to_first_token_s",
    "decode_tokens_per_s",
)


def run_sweep(
    sweep: Sweep,
    folder: Path,
    executor: Executor,
    *,
    home: Path,
    is_resumed: bool = False,
    progress: Progress | None = None,
) -> Mapping[str, object]:
    """Build every trial of a sweep; the bundles are the same whoever builds them.

    Args:
        sweep: what is built.
        folder: of the bundles and the table; made if it is missing.
        executor: who builds.
        home: the state folder of builds on this machine.
        is_resumed: whether trials that the folder has a result of are left as they are.
        progress: told of each trial.

    Returns:
        The table, as it is written.

    Raises:
        InputError: if the folder holds a bundle of a trial that is to be built.
        ResourceError: if the folder cannot be written, or the cluster cannot be reached.
        EngineError: if a worker cannot run trials at all.
    """
    shown = progress or Quiet()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be made: {error.strerror}") from error
    rows = _earlier(sweep, folder) if is_resumed else {}
    waiting = [trial for trial in sweep.trials if trial.name not in rows]
    for trial in waiting:
        if (folder / trial.name).exists():
            raise InputError(
                f"{folder / trial.name} exists already; choose another folder, remove it, or go "
                f"on with --resume"
            )
    shown.start(f"{len(waiting)} trials", max(1, len(waiting)))
    done = _keeper(sweep, waiting, folder, rows, shown)
    executor.map(run_trial, [_placed(one, folder, executor, home) for one in waiting], on_done=done)
    return _write(sweep, folder, rows)


def _placed(trial: Trial, folder: Path, executor: Executor, home: Path) -> Trial:
    if isinstance(executor, LocalExecutor):
        return replace(trial, folder=str(folder.absolute()), home=str(home.absolute()))
    return trial


def _keeper(
    sweep: Sweep,
    waiting: Sequence[Trial],
    folder: Path,
    rows: dict[str, Mapping[str, object]],
    shown: Progress,
) -> Callable[[int, TrialResult | Lost], None]:
    def keep(number: int, result: TrialResult | Lost) -> None:
        trial = waiting[number]
        if isinstance(result, Lost):
            result = TrialResult(name=trial.name, outcome="lost", message=result.why)
        if result.packed is not None:
            unpack(result.packed, folder / trial.name)
        rows[trial.name] = _row(trial, result)
        # What is done is on the disk at once: a sweep that is interrupted goes on from here.
        _write(sweep, folder, rows)
        shown.note(f"{trial.name}: {result.outcome}{f': {result.message}' * bool(result.message)}")
        shown.advance(1)

    return keep


def _row(trial: Trial, result: TrialResult) -> dict[str, object]:
    figures: dict[str, object] = {}
    profile = trial.device or result.machine
    if result.report is not None:
        report = parse_report(result.report)
        profile = report.device.name
        figures = {
            name: figure.to_json()
            for name, figure in report.variants[report.default_variant].figures.items()
        }
    return {
        "name": trial.name,
        "key": key_of(trial),
        "source": trial.source,
        "device": trial.device,
        "budget": trial.budget,
        "outcome": result.outcome,
        "message": result.message,
        "seconds": result.seconds,
        "machine": result.machine,
        "profile": profile,
        "manifest_sha256": result.manifest_sha256,
        "figures": figures,
    }


def _earlier(sweep: Sweep, folder: Path) -> dict[str, Mapping[str, object]]:
    """Return the rows of trials that are as they were, and whose bundle is whole.

    Raises:
        InputError: if the table there cannot be read.
    """
    path = folder / TABLE
    try:
        table = parse_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, InputError) as error:
        raise InputError(f"{path}: cannot be read: {error}; remove it to begin anew") from error
    rows = table.get("trials") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: is not the table of a sweep; remove it to begin anew")
    found = {str(row.get("name")): row for row in rows}
    return {
        trial.name: found[trial.name]
        for trial in sweep.trials
        if trial.name in found and _holds(trial, found[trial.name], folder)
    }


def _holds(trial: Trial, row: Mapping[str, object], folder: Path) -> bool:
    if row.get("key") != key_of(trial):
        return False
    if row.get("outcome") == "refused":
        return True
    try:
        digest = read_bundle(folder / trial.name).manifest_sha256
    except OnhandError:
        return False
    return row.get("outcome") == "built" and row.get("manifest_sha256") == digest


def _write(
    sweep: Sweep, folder: Path, rows: Mapping[str, Mapping[str, object]]
) -> Mapping[str, object]:
    # In the sweep's order, whoever was done first.
    listed = [rows[trial.name] for trial in sweep.trials if trial.name in rows]
    table: dict[str, object] = {"format": _FORMAT, "name": sweep.name, "trials": listed}
    text = json.dumps(table, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    write_text_atomically(folder / TABLE, text + "\n")
    write_text_atomically(folder / PAGE, sweep_page(sweep.name, listed))
    return table


def sweep_page(name: str, rows: Sequence[Mapping[str, object]]) -> str:
    """Return a sweep's table as one page, a line for each trial.

    Args:
        name: of the sweep.
        rows: of its table.

    Returns:
        HTML; bundles' own reports are linked beside it.
    """
    kept = [key for key in _SHOWN if any(_figure(row, key) != "" for row in rows)]
    headings = ["trial", "source", "device", "budget", "", *map(figure_name, kept), "measured on"]
    lines = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>{html.escape(name)}</title>',
        "<style>body{font:16px/1.4 system-ui,sans-serif;margin:2em}table{border-collapse:collapse}"
        "th,td{padding:.3em .8em;border-bottom:1px solid #8886;text-align:left}"
        ".refused,.failed,.lost{color:#a40}@media(prefers-color-scheme:dark){body{background:#111;"
        "color:#eee}a{color:#8cf}.refused,.failed,.lost{color:#fa6}}</style>",
        f"<h1>{html.escape(name)}</h1>",
        "<table><thead><tr>",
        *(f"<th>{html.escape(heading)}" for heading in headings),
        "</thead><tbody>",
        *(_line(row, kept) for row in rows),
        "</tbody></table></html>",
    ]
    return "\n".join(lines) + "\n"


def _line(row: Mapping[str, object], kept: Sequence[str]) -> str:
    name = html.escape(str(row["name"]))
    outcome = html.escape(str(row["outcome"]))
    first = f'<a href="{name}/report.html">{name}</a>' if outcome == "built" else name
    said = html.escape(str(row["message"]))
    cells = [
        first,
        *(html.escape(str(row[key]) or "-") for key in ("source", "device", "budget")),
        f'<span class="{outcome}">{outcome}{": " if said else ""}{said}</span>',
        *(html.escape(_figure(row, key)) for key in kept),
        html.escape(str(row["profile"])),
    ]
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)


def _figure(row: Mapping[str, object], key: str) -> str:
    figures = row["figures"]
    figure = figures.get(key) if isinstance(figures, dict) else None
    if not isinstance(figure, dict):
        return ""
    about = "about " if figure["estimated"] else ""
    return about + show_figure(key, float(figure["value"]))
