"""Bundles that lie with right hashes: refused in words, never a crash."""

import subprocess
import sys
from pathlib import Path

import pytest

from onhand import native

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(native.module is None, reason=native.missing or "it is there")
def test_attack_damaged_bundles() -> None:
    """Many more: `python -m tests.native.fuzz_bundle --count 100000`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.native.fuzz_bundle", "--count", "150"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("150 bundles, 0 failed")
    assert "'runs'" in done.stdout
