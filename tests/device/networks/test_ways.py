"""Networks on accelerators, and with fewer threads: found, tried apart, remembered.

No accelerator is here: those that take part are fakes, and the processor stands in for one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tests.network_bundles import classifier, pack

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.core.profile import DeviceProfile
from onhand.core.profile_parts import Provider
from onhand.device.hardware import execution_providers
from onhand.device.hardware.execution_providers import ExecutionProvider
from onhand.device.networks import opening, thread_races
from onhand.device.networks.base import Array, NetworkEngine
from onhand.device.networks.onnx import OnnxNetworkEngine
from onhand.device.networks.opening import named_engine, open_adapted
from onhand.device.networks.openvino import OpenvinoNetworkEngine
from onhand.device.networks.thread_races import ThreadRaces
from onhand.device.networks.ways import able_ways, try_apart
from onhand.device.probe import current_profile

CUDA = Provider(name="CUDAExecutionProvider", package="onnxruntime", is_usable=True)
GPU = Provider(name="GPU.0", package="openvino", is_usable=True)
FEEDS = {"x": np.ones((1, 3, 12, 12), np.float32)}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A tiny real network."""
    return pack(tmp_path / "tiny", {"fp32": classifier(np.random.default_rng(0))})


@pytest.fixture
def profile() -> DeviceProfile:
    """This device, as if it had accelerators, and four threads."""
    return replace(current_profile(), providers=(CUDA, GPU), usable_threads=4)


def nothing(*_: object) -> None:
    """Everything can be opened and run."""


def no_gpu(_: Bundle, __: str, name: str, ___: int) -> None:
    """One cannot."""
    if name == "openvino:GPU.0":
        raise EngineError("its driver crashed with signal 11")


def test_accelerators_are_those_of_the_profile(bundle: Bundle, profile: DeviceProfile) -> None:
    """By both packages; what fails apart has its reason."""
    able: dict[str, NetworkEngine] = {"onnx": OnnxNetworkEngine()}
    able["openvino"] = OpenvinoNetworkEngine()

    all_of_them, none = able_ways(bundle, profile, able, variant="fp32", threads=1, attempt=nothing)
    found, reasons = able_ways(bundle, profile, able, variant="fp32", threads=1, attempt=no_gpu)

    assert (list(all_of_them), none) == (["onnx:cuda", "openvino:GPU.0"], {})
    assert list(found) == ["onnx:cuda"]
    assert reasons == {"openvino:GPU.0": "its driver crashed with signal 11"}


def test_a_way_has_a_name(bundle: Bundle) -> None:
    """As engines have; what is not known is a slip."""
    assert isinstance(named_engine("onnx:cuda"), OnnxNetworkEngine)
    assert isinstance(named_engine("openvino:NPU"), OpenvinoNetworkEngine)
    with pytest.raises(InputError, match="no execution provider 'cude'"):
        named_engine("onnx:cude")
    with pytest.raises(InputError, match="no device 'TPU'"):
        named_engine("openvino:TPU")
    with pytest.raises(InputError, match="reference cannot be told"):
        named_engine("reference:cuda")
    with pytest.raises(EngineUnavailable, match="built without CUDAExecutionProvider"):
        named_engine("onnx:cuda").open(bundle, threads=1)


def test_a_process_of_its_own_tries_it(bundle: Bundle) -> None:
    """What works there works here; what does not says why."""
    try_apart(bundle, "fp32", "onnx", 1)
    with pytest.raises(EngineError, match="built without CUDAExecutionProvider"):
        try_apart(bundle, "fp32", "onnx:cuda", 1)


def test_an_accelerator_takes_part_in_the_race(
    bundle: Bundle, profile: DeviceProfile, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is timed and remembered, and left when it fails. The processor stands in for it."""
    stand_in = ExecutionProvider(name="CPUExecutionProvider")
    monkeypatch.setitem(execution_providers.EXECUTION_PROVIDERS, "cuda", stand_in)
    monkeypatch.setattr(opening, "seen_accelerators", lambda: ("a GPU",))
    monkeypatch.setattr(opening, "current_profile", lambda: profile)
    monkeypatch.setattr(opening, "able_ways", _fake_ways)
    monkeypatch.setattr("onhand.device.networks.choosing.time_interleaved", _cuda_first)
    expected = named_engine("onnx").open(bundle, threads=1).run(FEEDS)

    first = open_adapted(bundle, home=home)
    again = open_adapted(bundle, home=home)

    assert (first.engine, again.engine) == ("onnx:cuda", "onnx:cuda")
    assert first.reasons["onnx"].startswith("takes ")
    for name, array in again.loaded.run(FEEDS).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5)
    monkeypatch.setitem(
        execution_providers.EXECUTION_PROVIDERS,
        "cuda",
        ExecutionProvider(name="GoneExecutionProvider"),
    )

    without = open_adapted(bundle, home=home)

    assert without.engine != "onnx:cuda"
    assert "built without GoneExecutionProvider" in without.reasons["onnx:cuda"]


def _fake_ways(*_: object, **__: object) -> tuple[dict[str, NetworkEngine], dict[str, str]]:
    return {"onnx:cuda": OnnxNetworkEngine("cuda")}, {}


def _cuda_first(runs: Mapping[str, Callable[[], object]], **_: object) -> dict[str, list[float]]:
    for run in runs.values():
        run()
    return {name: [0.1 if name == "onnx:cuda" else 0.2] for name in runs}


@dataclass
class FakeLoaded:
    """Remembers whether it is open."""

    threads: int
    closed: bool = False

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """See `NetworkLoaded`."""
        return {}

    def close(self) -> None:
        """See `NetworkLoaded`."""
        self.closed = True


@dataclass
class FakeEngine:
    """Remembers what it opened."""

    name: ClassVar[str] = "fake"
    package: ClassVar[str] = "numpy"
    opened: list[FakeLoaded] = field(default_factory=list)

    def why_not(self, *_: Any, **__: Any) -> str | None:
        """See `NetworkEngine`."""
        return None

    def open(self, bundle: Bundle, *, variant: str | None = None, threads: int) -> FakeLoaded:
        """See `NetworkEngine`."""
        self.opened.append(FakeLoaded(threads))
        return self.opened[-1]


@pytest.mark.parametrize(
    ("times", "best"),
    [
        ({"4": 1.0, "2": 2.0, "1": 4.0}, 4),
        ({"4": 1.0, "2": 0.9, "1": 1.5}, 2),
        ({"4": 1.0, "2": 1.01, "1": 1.02}, 1),
    ],
)
def test_the_quickest_number_of_threads_is_found_once(
    bundle: Bundle,
    profile: DeviceProfile,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    times: dict[str, float],
    best: int,
) -> None:
    """All, half of them or one; of those that are as quick, the fewest."""
    monkeypatch.setattr(
        thread_races, "time_interleaved", lambda runs, **_: {n: [times[n]] for n in runs}
    )
    races = ThreadRaces(bundle=bundle, variant="fp32", profile=profile, most=4, home=home)
    engine = FakeEngine()
    before = races.known("fake")

    loaded, threads = races.settle("fake", engine, engine.open(bundle, threads=before))

    assert (before, threads, races.known("fake")) == (4, best, best)
    assert [one for one in engine.opened if not one.closed] == [loaded]
    assert [one.threads for one in engine.opened] == [4, 2, 1]
    again, same = races.settle("fake", engine, engine.open(bundle, threads=best))
    assert (again, same, len(engine.opened)) == (engine.opened[-1], best, 4)


@pytest.mark.parametrize(
    ("name", "change"), [("fake:gpu", {}), ("reference", {}), ("fake", {"home": None})]
)
def test_threads_are_not_chosen_where_they_mean_nothing(
    bundle: Bundle, profile: DeviceProfile, home: Path, name: str, change: dict[str, Any]
) -> None:
    """Of an accelerator and of numpy; nor without a state folder."""
    given = ThreadRaces(bundle=bundle, variant="fp32", profile=profile, most=4, home=home)
    engine = FakeEngine()

    loaded, threads = replace(given, **change).settle(name, engine, engine.open(bundle, threads=4))

    assert (loaded, threads) == (engine.opened[0], 4)
    assert not home.exists()


def test_a_network_is_opened_with_the_threads_that_were_found(bundle: Bundle, home: Path) -> None:
    """From a folder: the second opening knows them; whoever names an engine gets all."""
    first = open_adapted(bundle, home=home)
    again = open_adapted(bundle, home=home)
    forced = open_adapted(bundle, home=home, engine="onnx")

    assert (first.engine, first.threads) == (again.engine, again.threads)
    assert forced.threads == current_profile().usable_threads
