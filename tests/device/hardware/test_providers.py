"""Providers are tried in a process of their own, which may break; most are fakes here."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from onhand.core.profile_parts import Provider
from onhand.device.hardware.providers import Ended, find_providers, run_child, try_apart

WORKING = Provider(name="FAKE.0", package="fake", is_usable=True, note="Fake 9000")


def line(**event: object) -> str:
    """One line as the process prints it."""
    return json.dumps(event)


def told(provider: Provider) -> str:
    """The line that ends a provider's trial."""
    given = {name: getattr(provider, name) for name in Provider.__slots__}
    return line(provider=given)


class Scripted:
    """Stands for the process: gives what a test says, and keeps what it was asked."""

    def __init__(self, *endings: Ended) -> None:
        self.endings = list(endings)
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, source: str, skip: Sequence[str], limit_s: float) -> Ended:
        """See `run_child`."""
        assert limit_s >= 0
        self.asked.append((source, tuple(skip)))
        return self.endings.pop(0)


def test_what_was_tried_is_told() -> None:
    """A process that ends well is asked once."""
    start = Scripted(Ended(lines=(line(trying=["FAKE.0", "MatMul"]), told(WORKING)), code=0))

    assert list(try_apart("openvino", limit_s=9, start=start)) == [WORKING]
    assert start.asked == [("openvino", ())]


def test_one_that_breaks_its_process_is_named_and_the_others_are_tried() -> None:
    """The second process leaves out what was tried, and what broke the first."""
    crash = Ended(lines=(told(WORKING), line(trying=["FAKE.1", "Conv"])), code=-11)
    rest = Ended(lines=(told(Provider(name="FAKE.2", package="fake")),), code=0)
    start = Scripted(crash, rest)

    found = list(try_apart("openvino", limit_s=9, start=start))

    assert [one.name for one in found] == ["FAKE.0", "FAKE.1", "FAKE.2"]
    assert not found[1].is_usable
    assert found[1].note == "broke its process (signal 11): Conv"
    assert start.asked[1] == ("openvino", ("FAKE.0", "FAKE.1"))


def test_one_that_hangs_is_left_behind() -> None:
    """No second process: the time is used up."""
    hung = Ended(lines=(line(trying=["FAKE.0", "Softmax"]),), code=None)
    found = list(try_apart("built-in FAKE.0", limit_s=2, start=Scripted(hung)))

    assert [one.note for one in found] == ["gave no answer within 2 s: Softmax"]


@pytest.mark.parametrize(
    ("source", "name", "package"),
    [
        ("built-in CUDAExecutionProvider", "CUDAExecutionProvider", "onnxruntime"),
        ("plug-in onnxruntime_ep_webgpu", "onnxruntime_ep_webgpu", "onnxruntime-ep-webgpu"),
        ("openvino", "openvino", "openvino"),
    ],
)
def test_a_source_that_cannot_be_asked_is_told(source: str, name: str, package: str) -> None:
    """Its error's words, under the source's own name, and no second try."""
    broken = Ended(lines=(line(trying=["", "x"]), line(broken="no libcuda.so.1")), code=0)
    found = list(try_apart(source, limit_s=9, start=Scripted(broken)))

    assert found == [Provider(name=name, package=package, note="no libcuda.so.1")]


def test_what_a_library_prints_is_no_event() -> None:
    """Its banner, or JSON of its own."""
    lines = ("Welcome to Fake 9000!", "[1, 2]", '{"version": 3}', told(WORKING))
    found = list(try_apart("openvino", limit_s=9, start=Scripted(Ended(lines=lines, code=0))))

    assert found == [WORKING]


def test_a_process_that_says_nothing_is_told() -> None:
    """It broke before its first word."""
    found = list(try_apart("openvino", limit_s=9, start=Scripted(Ended(lines=(), code=127))))

    assert [one.note for one in found] == ["broke its process (code 127): starting"]


def test_a_process_that_breaks_again_and_again_ends() -> None:
    """Each time at another device, without end, is four times at most."""
    crashes = [Ended(lines=(line(trying=[f"F{n}", "Add"]),), code=1) for n in range(9)]
    start = Scripted(*crashes)

    assert len(list(try_apart("openvino", limit_s=9, start=start))) == 4


def test_what_is_present_and_what_is_absent_are_joined(tmp_path: Path) -> None:
    """A device that was tried is not absent; each absent one says what installs it."""
    gpu = Provider(name="GPU.0", package="openvino", is_usable=True, note="Fake Graphics")
    start = Scripted(Ended(lines=(told(gpu),), code=0))
    found = find_providers(
        tmp_path, system="linux", machine="x86_64", start=start, found=["openvino"]
    )

    assert found[0] == gpu
    names = [one.name for one in found]
    assert "CUDAExecutionProvider" in names
    assert "GPU" not in names
    assert not any(one.is_present or one.is_usable for one in found[1:])


def test_the_processor_leaves_everything_to_itself() -> None:
    """A real process, asked for what every installation has."""
    pytest.importorskip("onnxruntime")
    found = list(try_apart("built-in CPUExecutionProvider", limit_s=60, start=run_child))

    assert [(one.name, one.is_usable) for one in found] == [("CPUExecutionProvider", False)]
    assert found[0].note == "leaves everything that was tried to the processor"


def plug_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *, does: str) -> str:
    """Install a made plug-in whose library's path is told by some Python; return its source."""
    code = f"import os, time\n\ndef get_library_path():\n    {does}\n"
    (folder / "onnxruntime_ep_made.py").write_text(code, encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "plug-in onnxruntime_ep_made"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_driver_that_aborts_ends_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process that dies of a signal; this one goes on."""
    pytest.importorskip("onnxruntime")
    source = plug_in(tmp_path, monkeypatch, does="os.abort()")
    found = list(try_apart(source, limit_s=60, start=run_child))

    assert [one.note for one in found] == ["broke its process (signal 6): finding its devices"]


def test_a_driver_that_never_answers_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process that would sleep for an hour."""
    source = plug_in(tmp_path, monkeypatch, does="time.sleep(3600)")
    found = list(try_apart(source, limit_s=1, start=run_child))

    assert found[0].note.startswith("gave no answer within 1 s")


def test_a_library_that_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime refuses it, in its own words."""
    pytest.importorskip("onnxruntime")
    source = plug_in(tmp_path, monkeypatch, does="return 'nowhere.so'")
    found = list(try_apart(source, limit_s=60, start=run_child))

    assert len(found) == 1
    assert "nowhere.so" in found[0].note
