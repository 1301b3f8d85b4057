"""Long work says what it does, how far it is and how long still, and only on stderr."""

import io
import sys

import pytest

from onhand.cli.progress import Lines, shown_progress
from onhand.core.errors import InputError


def test_a_log_gets_a_line_at_each_end_of_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """No bar, no escape sequence."""
    with shown_progress() as progress:
        progress.start("reading", 2)
        progress.advance(1)
        progress.note("it is small")
        progress.start("writing", 1)

    shown, told = capsys.readouterr()
    lines = told.splitlines()
    assert shown == ""
    assert lines[0] == "reading ..."
    assert lines[1] == "note: it is small"
    assert lines[2].startswith("reading: done in ")
    assert lines[3] == "writing ..."
    assert lines[4].startswith("writing: done in ")
    assert len(lines) == 5


def test_a_log_of_long_work_says_how_long_still(capsys: pytest.CaptureFixture[str]) -> None:
    """Not more often than every ten seconds, and by the pace of this run alone."""
    now_s = 0.0
    lines = Lines(lambda: now_s)
    lines.start("learning", 100)
    lines.advance(40)
    for _ in range(12):
        now_s += 1
        lines.advance(1)

    told = capsys.readouterr().err.splitlines()

    assert told == ["learning ...", "learning: 50%, about 50 s still"]


def test_a_stage_that_failed_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    """The error speaks for it."""

    def work() -> None:
        with shown_progress() as progress:
            progress.start("reading", 2)
            raise InputError("the file is damaged")

    with pytest.raises(InputError):
        work()

    assert capsys.readouterr().err == "reading ...\n"


def test_a_person_sees_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What, how far; stdout is left to the command even while the bar is drawn."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    with shown_progress() as progress:
        progress.start("reading [bold]x[/bold]", 4)
        progress.advance(1)
        progress.note("[red]it is\x1b[2J small")
        sys.stdout.write("result\n")
        progress.start("writing", 1)
        progress.advance(1)

    told = terminal.getvalue()
    assert capsys.readouterr().out == "result\n"
    assert "reading [bold]x[/bold]" in told
    assert "100%" in told
    assert "note: [red]it is\\x1b[2J small" in told
    assert "result" not in told
