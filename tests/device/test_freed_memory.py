"""What was freed is the system's again."""

import ctypes
import re
import sys
from pathlib import Path

import pytest

from onhand.device.freed_memory import give_back_memory, without_thread_caches

_SIZE, _N = 1000, 40_000


def resident_kb() -> int:
    """Memory of this process that is no file's."""
    found = re.search(r"^RssAnon:\s*([0-9]+) kB$", Path("/proc/self/status").read_text(), re.M)
    if found is None:
        pytest.skip("this system does not say what is resident")
    return int(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' C libraries give back alone")
def test_freed_memory_between_what_stays_is_given_back() -> None:
    """Every hundredth piece stays, as when a file was parsed; the others' pages leave."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        pytest.skip("the C library is not glibc")
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    pieces = [library.malloc(ctypes.c_size_t(_SIZE)) for _ in range(_N)]
    for piece in pieces:
        ctypes.memset(piece, 1, _SIZE)
    for i, piece in enumerate(pieces):
        if i % 100:
            library.free(piece)
    before = resident_kb()

    give_back_memory()

    assert resident_kb() < before - _SIZE * _N // 1024 // 2
    for piece in pieces[::100]:
        library.free(piece)


def test_without_such_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another system, or another C library."""
    with monkeypatch.context() as patch:
        patch.setattr("ctypes.CDLL", lambda _: object())
        give_back_memory()
    monkeypatch.setattr(sys, "platform", "win32")

    give_back_memory()


def glibc(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """Let the C library be one of this version; None for another library."""

    def confstr(name: str) -> str:
        if version is None:
            raise ValueError("unrecognized configuration name")
        return version

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("os.confstr", confstr, raising=False)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "glibc.malloc.tcache_count=0"),
        ({"GLIBC_TUNABLES": "a.b=1"}, "a.b=1:glibc.malloc.tcache_count=0"),
    ],
)
def test_threads_are_told_to_keep_nothing(
    given: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside whatever else the C library is told."""
    glibc(monkeypatch, "glibc 2.36")

    assert without_thread_caches({"HOME": "/", **given}) == {"HOME": "/", "GLIBC_TUNABLES": told}


def test_what_was_said_of_thread_caches_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """By who started the process, or by itself the first time."""
    glibc(monkeypatch, "glibc 2.36")

    assert without_thread_caches({"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}) is None


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would not know what is meant."""
    glibc(monkeypatch, None)

    assert without_thread_caches({}) is None
