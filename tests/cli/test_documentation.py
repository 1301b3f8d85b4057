"""The page on the commands and the commands themselves say the same."""

import re
from pathlib import Path
from typing import get_args

import pytest

from onhand.cli.main import COMMANDS, EXIT_CODES, main
from onhand.core.budget import AXES
from onhand.core.measurement import Unit
from onhand.device.bench import NAMES

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_on_the_page(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What --help lists is explained, and each command has a section with an example."""
    monkeypatch.setenv("COLUMNS", "200")
    main([name, "--help"])
    options = set(re.findall(r"│ +(--[a-z-]+)", capsys.readouterr().out)) - {"--help"}

    assert options
    assert f"\n## {name}\n\n```\nonhand {name} " in PAGE
    assert [option for option in sorted(options) if f"`{option}" not in PAGE] == []


def test_the_page_names_no_option_that_is_gone(capsys: pytest.CaptureFixture[str]) -> None:
    """Options in the tables are options of some command."""
    shown = ""
    for name in COMMANDS:
        main([name, "--help"])
        shown += capsys.readouterr().out
    named = re.findall(r"^\| (?:`-o`, )?`(--[a-z-]+)", PAGE, flags=re.MULTILINE)

    assert len(named) > 30
    assert [option for option in named if f" {option} " not in shown] == []


def test_exit_codes_budget_keys_and_figures_are_on_the_page() -> None:
    """Tables for programs are whole."""
    assert [code for code in EXIT_CODES.values() if f"\n| {code} |" not in PAGE] == []
    assert [key for key in AXES if f"`{key}`" not in PAGE] == []
    assert [key for key in NAMES if f"\n| `{key}` |" not in PAGE] == []
    assert [unit for unit in get_args(Unit) if f"`{unit}`" not in PAGE] == []
