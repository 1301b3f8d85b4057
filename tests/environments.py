"""A pytest plugin: a test that passed in one environment is not run in another again.

With `-p tests.environments`, `--passed-to FILE` writes which tests passed, and `--passed-in FILE`
leaves them out of the next run, in an environment where more is installed.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

PASSED = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("environments")
    group.addoption("--passed-to", type=Path, metavar="FILE", help="write which tests passed")
    group.addoption("--passed-in", type=Path, metavar="FILE", help="leave out what passed there")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[PASSED] = set()
    config.pluginmanager.register(_Record(config), "passed-tests")


class _Record:
    """Collects what passed: reports know nothing of the run that they belong to."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that was skipped, or is expected to fail, has another outcome."""
        if report.when == "call" and report.outcome == "passed" and not hasattr(report, "wasxfail"):
            self._config.stash[PASSED].add(report.nodeid)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out what passed elsewhere."""
    place: Path | None = config.getoption("--passed-in")
    if place is None:
        return
    passed = set(place.read_text(encoding="utf-8").splitlines())
    kept, left_out = divided(items, passed)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def divided(
    items: Sequence[pytest.Item], passed: set[str]
) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests that are still to be run, and the others."""
    kept = [item for item in items if item.nodeid not in passed]
    return kept, [item for item in items if item.nodeid in passed]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write what passed, if all did: one of several processes does, which knows all."""
    place: Path | None = session.config.getoption("--passed-to")
    if place is None or exitstatus != pytest.ExitCode.OK or hasattr(session.config, "workerinput"):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    passed: set[str] = session.config.stash[PASSED]
    lines = sorted(passed)
    place.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
