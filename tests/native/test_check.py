"""The native kernels, checked without Python: under sanitizers, and on ARM."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What exit code 3 of the script means: it could not be compiled.
NOT_BUILT = 3


def run(kind: str, folder: Path, *, sets: str, words: str) -> str:
    """Compile and run; returns what the program printed."""
    settings = {"SETS": sets, "WORDS": words}
    done = subprocess.run(
        [str(ROOT / "scripts/check_native"), kind, str(folder / kind)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == NOT_BUILT:
        pytest.skip(f"no compiler for this: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def compiler() -> None:
    """Skip where no compiler is, as installing does."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def has_avx2() -> bool:
    """Whether to look at AVX2 too: the portable kernels are slow to check without optimising."""
    flags = Path("/proc/cpuinfo")
    return platform.machine() == "x86_64" and flags.exists() and " avx2 " in flags.read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_kernels_hold(tmp_path: Path) -> None:
    """Formats, products, steps, memory and pool: no wrong number, no wrong access.

    `make sanitize` looks for races as well.
    """
    name = "avx2" if has_avx2() else "portable"

    printed = run("address", tmp_path, sets="avx2", words=name)

    assert printed.endswith(f"all checks hold: {name}\n")


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_arm_kernels_hold(tmp_path: Path) -> None:
    """Cross-compiled and emulated: without dot products, with them, and with i8mm."""
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("g++-aarch64-linux-gnu is not installed")
    if shutil.which("qemu-aarch64-static") is None and shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-user-static is not installed")

    printed = run("arm", tmp_path, sets="all", words="")

    held = [line for line in printed.splitlines() if line.startswith("all checks hold: ")]
    assert [line.removeprefix("all checks hold: ") for line in held] == [
        "portable",
        "neon",
        "neon-i8mm neon portable",
    ]
