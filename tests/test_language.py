"""What is written in the project is finished, and holds on every machine."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".ci", "benchmarks", "docs", "examples", "recipes", "scripts", "src", "tests")
TEXT = {"", ".cfg", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yml"}
MAX_BYTES = 2**20  # larger files are data
FORBIDDEN = {
    "a folder of one machine": re.compile(r"(?<![\w.}])/(?:home|root|work|farm|Users)/[\w.]"),
    "a temporary folder of one machine": re.compile(r"(?<![\w.}])/tmp/\w"),
    "unfinished": re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"),
    "a merge left open": re.compile(r"^(?:<{7}|>{7}) ", flags=re.MULTILINE),
}


def pages() -> Iterator[Path]:
    """Every text file that people write."""
    places = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    for path in sorted([*places, *ROOT.glob("*")]):
        measured = path.name.startswith(".coverage")  # what an earlier run left behind
        hidden = "__pycache__" in path.parts or path == Path(__file__) or measured
        written = path.is_file() and path.suffix in TEXT and path.stat().st_size <= MAX_BYTES
        if written and not hidden:
            yield path


def test_nothing_is_unfinished_or_bound_to_one_machine() -> None:
    """No path of somebody's machine, no note to oneself, no open merge."""
    found = [
        f"{path.relative_to(ROOT)}: {what}: {match.group()!r}"
        for path in pages()
        for what, pattern in FORBIDDEN.items()
        if (match := pattern.search(path.read_text(encoding="utf-8")))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("models are in /" + "home/someone/models", True),
        ("see /" + "tmp/result.json", True),
        ("# TO" + "DO: later", True),
        ("https://example.org/home/page", False),
        ("turn the light on in the home/office", False),
    ],
)
def test_the_patterns_see_what_they_should(text: str, *, is_found: bool) -> None:
    """A path of a machine is found; an address or a slash between words is not."""
    assert any(pattern.search(text) for pattern in FORBIDDEN.values()) is is_found
