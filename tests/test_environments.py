"""What passed in a device's environment is not run again, and nothing else is left out."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SUITE = """
import pytest

@pytest.mark.parametrize("text", ["a b", "two\\nlines"])
def test_passes(text): pass

def test_is_skipped(): pytest.skip("nothing to try with")

@pytest.mark.xfail
def test_is_known_to_fail(): assert False
"""


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A pytest of its own."""
    plugins = ["-p", "xdist", "-p", "tests.environments", "-p", "no:cacheprovider"]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--rootdir",
            str(folder),
            *plugins,
            *options,
            folder,
        ],
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_passed_is_left_out_and_the_rest_runs(tmp_path: Path) -> None:
    """Skipped tests are tried again where more is installed."""
    (tmp_path / "test_some.py").write_text(SUITE, encoding="utf-8")
    listed = tmp_path / "out" / "passed.txt"

    first = run(tmp_path, "--passed-to", str(listed), "-n", "1")
    second = run(tmp_path, "--passed-in", str(listed))

    assert first.returncode == second.returncode == 0, first.stdout + second.stdout
    assert "2 passed, 1 skipped, 1 xfailed" in first.stdout
    assert "1 skipped, 2 deselected, 1 xfailed" in second.stdout


def test_a_run_that_failed_says_nothing(tmp_path: Path) -> None:
    """The next run then has no list, and ends with an error."""
    (tmp_path / "test_some.py").write_text(
        "def test_a(): pass\ndef test_b(): assert 0\n", encoding="utf-8"
    )
    listed = tmp_path / "passed.txt"

    assert run(tmp_path, "--passed-to", str(listed)).returncode == 1
    assert not listed.exists()
    assert run(tmp_path, "--passed-in", str(listed)).returncode != 0
