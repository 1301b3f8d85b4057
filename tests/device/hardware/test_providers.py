"""Providers are tried; most are fakes here, since few machines have one."""

from pathlib import Path

import numpy as np
import pytest

from onhand.core.arrays import FloatArray
from onhand.core.profile_parts import Provider
from onhand.device.hardware import providers
from onhand.device.hardware.providers import find_providers, seen_devices, try_provider
from onhand.device.hardware.trials import Trial, trials


def right(trial: Trial) -> FloatArray:
    """A provider that computes as the processor does."""
    import onnxruntime as ort

    session = ort.InferenceSession(trial.model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": trial.x})[0])


def test_every_trial_runs_on_the_processor() -> None:
    """Its numbers are finite, and not all the same."""
    for trial in trials():
        answer = right(trial)
        assert np.isfinite(answer).all(), trial.operator
        assert answer.std() > 0, trial.operator


def test_one_that_computes_everything_is_usable() -> None:
    """A little rounding is allowed: half precision is what many have."""
    found = try_provider("FAKE", "openvino", lambda t: right(t) * 1.001, note="Fake 9000")

    assert found == Provider(name="FAKE", package="openvino", is_usable=True, note="Fake 9000")


def test_what_it_does_not_have_is_listed() -> None:
    """Those operators fall back to the processor."""

    def run(trial: Trial) -> FloatArray:
        if trial.operator in {"Conv", "MatMulNBits"}:
            raise RuntimeError("no kernel")
        return right(trial)

    found = try_provider("FAKE", "onnxruntime", run)

    assert found.is_usable
    assert found.falls_back == ("Conv", "MatMulNBits")


def test_one_that_can_do_nothing_says_why() -> None:
    """In the words of its first line."""

    def run(trial: Trial) -> FloatArray:
        raise OSError("libcuda.so.1: cannot open shared object file\nand much more")

    found = try_provider("FAKE", "onnxruntime", run)

    assert not found.is_usable
    assert found.note == "libcuda.so.1: cannot open shared object file"


@pytest.mark.parametrize("wrong", [2.0, float("nan")])
def test_one_that_computes_wrongly_is_not_used(wrong: float) -> None:
    """A fast wrong answer is worse than none."""
    found = try_provider("FAKE", "onnxruntime", lambda trial: right(trial) * wrong)

    assert not found.is_usable
    assert found.note == "computes MatMul wrongly"


def show(root: Path, name: str, *, kind: str, vendor: str) -> None:
    """Put a device on a made bus."""
    place = root / "sys/bus/pci/devices" / name
    place.mkdir(parents=True)
    (place / "class").write_text(f"{kind}\n", encoding="ascii")
    (place / "vendor").write_text(f"{vendor}\n", encoding="ascii")


def test_devices_on_the_bus_are_seen(tmp_path: Path) -> None:
    """With what they would need; a network card is none."""
    show(tmp_path, "0000:01:00.0", kind="0x030200", vendor="0x10de")
    show(tmp_path, "0000:02:00.0", kind="0x120000", vendor="0x8086")
    show(tmp_path, "0000:03:00.0", kind="0x020000", vendor="0x8086")
    show(tmp_path, "0000:04:00.0", kind="0x030000", vendor="0x1234")

    found = seen_devices(tmp_path)

    assert [one.name for one in found] == ["CUDAExecutionProvider", "NPU"]
    assert "onnxruntime-gpu" in found[0].note
    assert not any(one.is_usable for one in found)


def test_what_is_seen_and_what_is_tried_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that a package has is not listed twice."""
    show(tmp_path, "0000:01:00.0", kind="0x030200", vendor="0x8086")
    monkeypatch.setattr(providers, "_onnxruntime", lambda: ["FakeProvider"])
    monkeypatch.setattr(providers, "_openvino", lambda: [("GPU.0", "Fake Graphics")])
    monkeypatch.setattr(providers, "_on_openvino", lambda name: right)

    found = find_providers(tmp_path)

    assert [(one.name, one.is_usable) for one in found] == [
        ("FakeProvider", False),
        ("GPU.0", True),
    ]
