"""The pool of threads of the native engine, checked in C++ under the thread sanitizer."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("pool_check.cpp")
NATIVE = Path(__file__).parents[2] / "src" / "onhand" / "native" / "src"


@pytest.mark.slow
def test_chunks_meetings_and_sleep(tmp_path: Path) -> None:
    """Each chunk is done once, by whoever is free; no race; who waits long sleeps."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++) is installed")
    program = tmp_path / "pool_check"
    flags = ["-std=c++17", "-O1", "-g", "-pthread", "-fsanitize=thread", f"-I{NATIVE}"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(program)], check=True)

    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=600)

    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stdout + done.stderr
