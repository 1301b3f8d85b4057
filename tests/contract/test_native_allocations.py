"""Decoding with the native engine asks the heap for nothing, once it is under way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.conftest import Pack
from tests.models import DECODER

from onhand import native
from onhand.host.passes.quantize import Quantize

if native.module is None:
    pytest.skip(native.missing, allow_module_level=True)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that counts the allocations of a process into which it is loaded first."""
    compiler = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("counts with a C compiler and glibc")
    library = tmp_path_factory.mktemp("counter") / "malloc_count.so"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", HERE / "malloc_count.c", "-o", library], check=True
    )
    return library


@pytest.mark.slow
@pytest.mark.parametrize("head", ["full", "two-stage"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_step_allocates_nothing(pack: Pack, counter: Path, threads: int, head: str) -> None:
    """Rows, scores, choices and pages are those of before; counted where C and C++ ask for them."""
    bundle = pack(DECODER, Quantize(method="rtn"), accuracy_level=4)
    path = os.pathsep.join([str(HERE.parents[1]), *sys.path])

    done = subprocess.run(
        [sys.executable, HERE / "count_allocations.py", bundle.root, "small", str(threads), head],
        env={**os.environ, "LD_PRELOAD": str(counter), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    found = json.loads(done.stdout)
    assert found.pop("an array") > 0
    assert found == {"greedy": 0, "sampled": 0, "all": 0}
