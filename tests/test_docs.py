"""Every Python block in the docs runs, and every recipe can be read."""

import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from onhand.core.plugins import NETWORK_PASSES, PASSES, load_plugin
from onhand.core.recipe import parse_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ALL_PAGES = [*PAGES, *sorted(ROOT.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one page share a namespace, top to bottom."""
    monkeypatch.chdir(tmp_path)
    shared: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(compile(block, str(page), "exec"), shared)  # noqa: S102 - our own docs


def test_the_readmes_conversations_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks on sessions, with a bundle of that name: every question has an answer."""
    shutil.copytree(ROOT / "tests" / "data" / "tiny-bundle", tmp_path / "NAME")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "README.md").read_text()
    shared: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        if "onhand.open" in block:
            exec(compile(block, "README.md", "exec"), shared)  # noqa: S102 - our own docs

    answers = shared["answers"]
    assert isinstance(answers, list)
    assert len(answers) == 3
    assert all(isinstance(answer, str) and answer for answer in answers)


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A link to a file of the project names one that is there."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_tests_and_benchmarks_that_pages_name_are_there(page: Path) -> None:
    """A page that says what shows something names a function or a module that exists."""
    text = page.read_text()
    tests = re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_[A-Za-z0-9_]+)`", text)
    modules = re.findall(r"python -m (benchmarks\.[a-z_]+)", text)

    assert [
        name
        for file, name in tests
        if not (ROOT / file).exists() or f"def {name}(" not in (ROOT / file).read_text()
    ] == []
    assert [
        name for name in modules if not (ROOT / name.replace(".", "/")).with_suffix(".py").exists()
    ] == []


def test_recipes_can_be_read() -> None:
    """Every recipe that comes with the project names known passes and options."""
    for folder, group in (("recipes", PASSES), ("recipes/networks", NETWORK_PASSES)):
        for path in sorted((ROOT / folder).glob("*.toml")):
            text = path.read_text(encoding="utf-8")
            passes = partial(load_plugin, group)

            assert parse_recipe(text, passes=passes, where=path.name).steps


def test_decisions_are_numbered_one_by_one() -> None:
    """Decision pages count up from 0001, and no number is used twice."""
    names = [page.name for page in PAGES if page.parent.name == "decisions"]
    numbers = [int(name[:4]) for name in names]

    assert all(re.fullmatch(r"\d{4}(-[a-z0-9]+)+\.md", name) for name in names)
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_attack_of_the_table_has_tests_and_a_twin_without_its_control() -> None:
    """Each row names tests that attack, and after "off:" some in which the attack succeeds."""
    text = (ROOT / "SECURITY.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if "`tests/" in line]
    wanting = [
        row[1].strip()
        for row in rows
        if any("::test_" not in part for part in row[3].partition("off:")[::2])
    ]

    assert len(rows) >= 15
    assert wanting == []


def test_every_test_of_an_attack_is_in_the_table_of_its_room() -> None:
    """What attacks a server, a key or the vault is promised, and read by whoever trusts it."""
    text = (ROOT / "SECURITY.md").read_text()
    rooms = ["access/test_*.py", "vault/test_*.py", "serving/test_access.py"]
    rooms.append("serving/test_controls_off.py")
    missing = [
        f"{file.name}::{name}"
        for room in rooms
        for file in sorted((ROOT / "tests" / "device").glob(room))
        for name in re.findall(r"def (test_attack_[a-z0-9_]+)", file.read_text())
        if f"{file.relative_to(ROOT)}::{name}`" not in text
    ]

    assert missing == []
