"""`onhand feedback`: what users taught, and what waits in quarantine until somebody looks at it."""

from typing import TYPE_CHECKING, Annotated

import typer

from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.output import write, write_json, write_table
from onhand.core.errors import InputError

if TYPE_CHECKING:
    from onhand.device.learning.feedback import Feedback
    from onhand.device.learning.quarantine import Held, Intake

__all__ = ["command"]

_MOST_SHOWN = 60

_Release = Annotated[
    list[str] | None,
    typer.Option(metavar="ID", help="Learn from this after all; may be given several times."),
]
_Drop = Annotated[
    list[str] | None,
    typer.Option(metavar="ID", help="Forget this; may be given several times."),
]


def command(
    context: typer.Context,
    name: BundleFolder,
    *,
    release: _Release = None,
    drop: _Drop = None,
    as_json: AsJson = False,
) -> None:
    """List feedback in quarantine with the reason, take it after all, or forget it.

    Raises:
        InputError: if one is to be taken and forgotten.
    """
    from onhand.device.learning.in_use import open_versions
    from onhand.device.learning.quarantine import Intake
    from onhand.device.learning.suspicion import Limits

    if both := sorted(set(release or ()) & set(drop or ())):
        raise InputError(f"{both[0]!r} is to be released and dropped; choose one of the two")
    intake = Intake(open_versions(name, context.obj.home()).folder, Limits())
    released = [intake.release(one).id for one in release or ()]
    dropped = [intake.drop(one).id for one in drop or ()]
    if as_json:
        write_json({
            "dropped": dropped,
            "quarantined": [_described(one) for one in intake.held()],
            "released": released,
            "taken": intake.n_taken,
        })
        return
    for names, what in ((released, "taken"), (dropped, "forgotten")):
        for one in names:
            write(f"{one}: {what}\n")
    _show(intake)


def _described(one: "Held") -> dict[str, object]:
    feedback = one.feedback
    return {
        "answer": feedback.answer,
        "at_s": one.at_s,
        "id": feedback.id,
        "question": _question(feedback),
        "rating": feedback.rating,
        "reason": one.reason,
        "tenant": feedback.tenant,
        "verdict": feedback.verdict,
    }


def _show(intake: "Intake") -> None:
    held = intake.held()
    write(f"{intake.n_taken} taken, {len(held)} in quarantine\n")
    if held:
        rows = [
            [
                one.feedback.id,
                one.feedback.tenant,
                _short(_question(one.feedback)),
                _short(one.feedback.answer),
                one.reason,
            ]
            for one in held
        ]
        write_table(["id", "from", "asked", "right answer", "why it waits"], rows)


def _question(one: "Feedback") -> str:
    if one.messages:
        return one.messages[-1][1]
    return one.text or f"a picture of {len(one.picture)} bytes"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_SHOWN else f"{line[: _MOST_SHOWN - 1]}…"
