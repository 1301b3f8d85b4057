"""OpenVINO: nobody is told that it runs, and what it compiled is found again."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.network_bundles import classifier, pack

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineUnavailable
from onhand.core.progress import Quiet
from onhand.device.networks.opening import named_engine
from onhand.device.networks.openvino import OpenvinoNetworkEngine
from onhand.device.probe import current_profile

FEEDS = {"x": np.ones((1, 3, 12, 12), np.float32)}
# Opens a bundle where every connection is an error, and says which modules are there.
PROBE = """
import socket, sys
def refuse(*_, **__):
    raise SystemExit("it reached for the network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from pathlib import Path
from onhand.core.bundle import read_bundle
from onhand.device.networks.opening import open_network
loaded, _, _ = open_network(read_bundle(Path(sys.argv[1])), engine="openvino", threads=1)
import openvino, threading
assert openvino.convert_model is not None
print("openvino_telemetry" in sys.modules, threading.active_count())
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The classifier in two variants."""
    pytest.importorskip("openvino", reason="needs onhand[openvino]")
    return pack(
        tmp_path / "tiny",
        {name: classifier(np.random.default_rng(seed)) for seed, name in enumerate(("a", "b"))},
    )


def test_nothing_is_reported_or_written_at_home(bundle: Bundle, tmp_path: Path) -> None:
    """Importing OpenVINO would count itself in the user's home folder, and call a server."""
    house = tmp_path / "house"
    house.mkdir()

    run = subprocess.run(
        [sys.executable, "-c", PROBE, str(bundle.root)],
        check=True,
        capture_output=True,
        env={**os.environ, "HOME": str(house), "USERPROFILE": str(house)},
        text=True,
    )

    assert run.stdout == "False 1\n"
    assert run.stderr == ""
    assert list(house.iterdir()) == []


def test_what_was_compiled_is_found_again(
    bundle: Bundle, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second opening reads no graph, and answers the same, for each variant its own."""
    import openvino

    engine = named_engine("openvino", home=home)
    first = {v: engine.open(bundle, variant=v, threads=1).run(FEEDS)["y"] for v in ("a", "b")}
    monkeypatch.setattr(openvino.Core, "read_model", None)

    again = {v: engine.open(bundle, variant=v, threads=2).run(FEEDS)["y"] for v in ("a", "b")}

    assert not np.array_equal(first["a"], first["b"])
    for variant, answer in first.items():
        np.testing.assert_array_equal(again[variant], answer)
    assert len(list(home.rglob("openvino-*.bin"))) == 2


def test_attack_a_damaged_file_is_compiled_anew(bundle: Bundle, home: Path) -> None:
    """One changed byte of it, and it is not looked at."""
    engine = named_engine("openvino", home=home)
    expected = engine.open(bundle, threads=1).run(FEEDS)["y"]
    (path,) = home.rglob("openvino-*.bin")
    whole = bytearray(path.read_bytes())
    whole[-100] ^= 1
    path.write_bytes(whole)

    found = engine.open(bundle, threads=1).run(FEEDS)["y"]

    np.testing.assert_array_equal(found, expected)
    assert path.read_bytes() != bytes(whole)


def test_a_folder_that_cannot_be_written_is_told(bundle: Bundle, home: Path) -> None:
    """And the network runs."""
    home.write_text("a file")
    notes: list[str] = []

    class Told(Quiet):
        def note(self, text: str) -> None:  # type: ignore[explicit-override]
            notes.append(text)

    loaded = OpenvinoNetworkEngine(home, Told()).open(bundle, threads=1)

    assert loaded.run(FEEDS)["y"].shape == (1, 5)
    assert len(notes) == 1
    assert "compiled again next time" in notes[0]


def test_a_graph_in_a_folder_is_refused(bundle: Bundle) -> None:
    """OpenVINO would read the weights beside it, which are none that were checked."""
    (bundle.root / "inner").mkdir()
    bundle.path("model.onnx").rename(bundle.root / "inner" / "model.onnx")
    variant = bundle.manifest.variants["a"]
    # Frozen, and made anew only for this.
    object.__setattr__(variant, "graph", "inner/model.onnx")
    engine = named_engine("openvino")

    assert "weights" in (engine.why_not(bundle, current_profile()) or "")
    with pytest.raises(EngineUnavailable, match="would look for the weights"):
        engine.open(bundle, threads=1)
    onnx = named_engine("onnx").open(bundle, threads=1)
    assert onnx.run(FEEDS)["y"].shape == (1, 5)


def test_without_the_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra's name."""
    bundle = pack(tmp_path / "one", {"fp32": classifier(np.random.default_rng(0))})
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    engine = named_engine("openvino")

    assert "onhand[openvino]" in (engine.why_not(bundle, current_profile()) or "")
    with pytest.raises(EngineUnavailable, match="cannot be imported"):
        engine.open(bundle, threads=1)
