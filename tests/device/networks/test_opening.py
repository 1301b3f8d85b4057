"""Which engine a network is opened in: the quickest here, timed once, and why not another."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.network_bundles import Drawing, Op, classifier, info, pack

from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt, EngineError, EngineUnavailable, InputError
from onhand.device.networks.choosing import Race, race, race_name, recall_race
from onhand.device.networks.opening import able_engines, named_engine, open_network
from onhand.device.networks.ranking import rank_variants
from onhand.device.probe import current_profile

# Engines of somebody else. Graphs that only they can run hold an operator of theirs.
FAKES = """
import numpy as np
from onhand.core.errors import EngineError, EngineUnavailable

OPENED = []
NOW = [0.0]  # seconds of a clock that only runs tell

class Loaded:
    def __init__(self, name, seconds):
        self.name, self.seconds, self.runs, self.closed = name, seconds, 0, False
    def run(self, feeds):
        assert not self.closed
        self.runs += 1
        if self.name == "breaks":
            raise EngineError("it broke")
        NOW[0] += self.seconds
        return {"y": np.zeros((1, 4), np.float32)}
    def close(self):
        self.closed = True

class Quick:
    name, package, seconds = "quick", "numpy", 0.001
    def why_not(self, bundle, profile, *, variant=None):
        return f"not {self.name} today" if "not-" + self.name in variant else None
    def open(self, bundle, *, variant=None, threads):
        if "no-memory" in variant:
            raise EngineUnavailable("out of memory")
        OPENED.append(Loaded(self.name, self.seconds))
        OPENED[-1].threads = threads
        return OPENED[-1]

class Slow(Quick):
    name, seconds = "a-slow", 0.002

class Breaks(Quick):
    name = "breaks"
"""


@pytest.fixture(scope="module", autouse=True)
def _fake_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package of somebody else's."""
    place = tmp_path_factory.mktemp("third-party")
    (place / "fake_networks.py").write_text(FAKES)
    known = place / "fake_networks-1.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-networks\nVersion: 1.0\n")
    names = {"a-slow": "Slow", "breaks": "Breaks", "quick": "Quick"}
    lines = [f"{name} = fake_networks:{kind}\n" for name, kind in names.items()]
    (known / "entry_points.txt").write_text("[onhand.network_engines]\n" + "".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        yield
    sys.modules.pop("fake_networks", None)


@pytest.fixture(autouse=True)
def _their_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are timed by what they say they took: a busy machine changes nothing."""

    def now() -> float:
        told = sys.modules.get("fake_networks")
        return 0.0 if told is None else float(told.NOW[0])

    clock = SimpleNamespace(perf_counter=now, sleep=lambda _: None)
    monkeypatch.setattr("onhand.device.networks.timing.time", clock)


def strange() -> Drawing:
    """A graph that no engine of ours can run."""
    return Drawing(
        ops=[Op(kind="Strange", inputs=["x"], outputs=["y"], domain="somebody")],
        constants={"w": np.zeros(1, np.float32)},
        inputs=(info("x", 1, 4),),
        outputs=(info("y", 1, 4),),
        domains={"somebody": 1},
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A network that only the fake engines run, in variants that some of them dislike."""
    names = ["plain", "not-quick", "no-memory"]
    if "fake_networks" in sys.modules:
        opened()
    return pack(tmp_path / "strange", {name: strange() for name in names})


def opened() -> list[Any]:
    """Everything that the fake engines opened since it was asked last."""
    everything: list[Any] = sys.modules["fake_networks"].OPENED
    taken = list(everything)
    everything.clear()
    return taken


def test_the_quickest_is_taken_and_the_others_are_closed(bundle: Bundle, home: Path) -> None:
    """The reasons say what each took, or how it failed; nobody is left open but the winner."""
    loaded, name, reasons = open_network(bundle, home=home, threads=3)

    assert name == "quick"
    everything = opened()
    assert [made for made in everything if not made.closed] == [loaded]
    assert {made.threads for made in everything} == {3}
    assert reasons.keys() == {"a-slow", "breaks", "onnx", "openvino", "reference"}
    assert reasons["a-slow"].startswith("takes ")
    assert ", quick " in reasons["a-slow"]
    assert reasons["breaks"] == "it broke"
    assert "Strange" in reasons["onnx"]
    assert "not asked" in reasons["reference"]


def test_a_choice_is_made_once(bundle: Bundle, home: Path) -> None:
    """The next opening opens the winner alone, runs nothing, and gives the same reasons."""
    first, _, reasons = open_network(bundle, home=home)
    opened()

    loaded, name, again = open_network(bundle, home=home)

    assert opened() == [loaded]
    assert loaded.runs == 0  # type: ignore[attr-defined]
    assert first is not loaded
    assert (name, again) == ("quick", reasons)


@pytest.mark.parametrize(("variant", "threads"), [("plain", 1), ("other", 2)])
def test_another_variant_or_number_of_threads_is_chosen_for_anew(
    tmp_path: Path, home: Path, variant: str, threads: int
) -> None:
    """What was quickest with two threads need not be so with one."""
    bundle = pack(tmp_path / "two", {"plain": strange(), "other": strange()})
    open_network(bundle, home=home, threads=2, variant="plain")
    opened()

    open_network(bundle, home=home, threads=threads, variant=variant)

    assert len(opened()) == 3


def test_a_choice_depends_on_all_that_changes_speed() -> None:
    """Other engines, versions, processors, threads and variants have other names."""
    profile = current_profile()
    engines = {name: named_engine(name) for name in ("quick", "a-slow")}
    first = race_name("v", engines, profile, threads=1)

    assert race_name("v", engines, profile, threads=1) == first
    assert race_name("w", engines, profile, threads=1) != first
    assert race_name("v", engines, profile, threads=2) != first
    assert race_name("v", {"quick": engines["quick"]}, profile, threads=1) != first
    engines["quick"].package = "pytest"  # type: ignore[misc]
    assert race_name("v", engines, profile, threads=1) != first


@pytest.mark.parametrize(
    "kept",
    ["{", "7", "[]", "{}", '{"failed": {}, "latency_s": {}}', '{"failed": 1, "latency_s": 2}',
     '{"failed": {}, "latency_s": {"quick": "fast", "a-slow": -1}}'],
)  # fmt: skip
def test_a_damaged_choice_is_made_anew(bundle: Bundle, home: Path, kept: str) -> None:
    """What was kept is a help, never a danger."""
    open_network(bundle, home=home, threads=2)
    (path,) = home.rglob("network-engine-*.json")
    path.write_text(kept if kept == "{" else json.dumps({"format": 1, "value": json.loads(kept)}))
    opened()

    _, name, _ = open_network(bundle, home=home, threads=2)

    assert name == "quick"
    assert len(opened()) == 3
    assert recall_race(home, bundle, path.stem, ["onnx", "a-slow", "breaks", "quick"]) is not None


class Told:
    """Remembers notes. See `Progress`."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, what: str, total: float) -> None:
        """Nothing."""

    def advance(self, amount: float) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


def test_a_choice_that_cannot_be_kept_is_told(bundle: Bundle, home: Path) -> None:
    """It opens all the same."""
    home.write_text("a file where the folder should be")
    told = Told()

    _, name, _ = open_network(bundle, home=home, progress=told)

    assert name == "quick"
    assert any("choice of an engine is not kept" in note for note in told.notes)
    assert any("choice of threads is not kept" in note for note in told.notes)


def test_without_a_state_folder_nothing_is_timed(bundle: Bundle) -> None:
    """The first that opens it, in the order of preference."""
    loaded, name, reasons = open_network(bundle)

    assert name == "a-slow"
    assert opened() == [loaded]
    assert loaded.runs == 0  # type: ignore[attr-defined]
    assert "Strange" in reasons["onnx"]
    assert reasons["quick"] == "a-slow is preferred to it"


def test_an_engine_can_be_forced(bundle: Bundle, home: Path) -> None:
    """Then no other one is asked, and its error is the answer."""
    _, name, reasons = open_network(bundle, engine="quick", home=home)

    assert (name, reasons) == ("quick", {})
    assert len(opened()) == 1
    with pytest.raises(EngineError, match="Strange"):
        open_network(bundle, engine="onnx", home=home)
    with pytest.raises(EngineUnavailable, match="quick: not quick today"):
        open_network(bundle, engine="quick", variant="not-quick", home=home)
    with pytest.raises(InputError, match="did you mean 'quick'"):
        open_network(bundle, engine="quikc", home=home)
    with pytest.raises(InputError, match="threads is 0"):
        open_network(bundle, threads=0)


def test_who_cannot_is_not_timed(bundle: Bundle, home: Path) -> None:
    """An engine that says why not is passed over."""
    _, name, reasons = open_network(bundle, variant="not-quick", home=home)

    assert name == "a-slow"
    assert reasons["quick"] == "not quick today"
    opened()


@pytest.mark.parametrize("keeps", [True, False])
def test_the_last_resort_is_asked_when_all_others_fail(
    bundle: Bundle, home: Path, *, keeps: bool
) -> None:
    """It says why it cannot either, and so do they."""
    with pytest.raises(EngineUnavailable, match="reference: has no operator Strange of somebody"):
        open_network(bundle, variant="no-memory", home=home if keeps else None)
    opened()


def test_a_damaged_bundle_is_no_engines_fault(bundle: Bundle, home: Path) -> None:
    """It is the error, whatever other engines would make of it."""
    bundle.path("model.onnx").write_bytes(b"nothing")

    with pytest.raises(BundleCorrupt):
        open_network(bundle, home=home)


def test_the_reference_engine_is_the_last_resort(bundle: Bundle) -> None:
    """It is not asked while others can; asked alone, it answers."""
    able, reasons = able_engines(bundle, current_profile())

    assert "reference" not in able
    assert "not asked" in reasons["reference"]
    with pytest.raises(EngineUnavailable, match="has no operator Strange"):
        able_engines(bundle, current_profile(), wanted="reference")


def test_a_preferred_engine_wins_a_tie() -> None:
    """Less than a twentieth is noise; more is not."""
    tied = Race(latency_s={"onnx": 1.04, "openvino": 1.0}, failed={})
    beaten = Race(latency_s={"onnx": 1.06, "openvino": 1.0}, failed={"quick": "it broke"})

    assert tied.winner() == "onnx"
    assert beaten.winner() == "openvino"
    assert beaten.reasons() == {
        "onnx": "takes 1.06e+03 ms here, openvino 1e+03",
        "quick": "it broke",
    }


def test_a_race_that_nobody_ends_is_an_error(bundle: Bundle) -> None:
    """With every engine's reason."""
    with pytest.raises(EngineError, match="every engine failed with 'plain': breaks: it broke"):
        race(bundle, "plain", {"breaks": named_engine("breaks")}, threads=1)
    (made,) = opened()
    assert made.closed


def test_what_went_wrong_is_said_beside_what_the_last_engine_lacks(
    bundle: Bundle, home: Path
) -> None:
    """An engine that should run it and fails is the reason; the reference is asked behind it."""
    with pytest.MonkeyPatch.context() as patch:
        kind = sys.modules["fake_networks"]
        patch.setattr(kind.Quick, "why_not", lambda *a, **k: "not today")
        patch.setattr(kind.Breaks, "why_not", lambda *a, **k: None)
        patch.setattr(kind.Breaks, "open", _fails)

        with pytest.raises(EngineUnavailable, match=r"breaks: it fell over.*no operator Strange"):
            open_network(bundle, home=home, variant="plain")


def _fails(*_: object, **__: object) -> object:
    raise EngineError("it fell over")


def test_variants_are_ranked_with_their_engines(bundle: Bundle) -> None:
    """The quickest pair first, all closed, and why the others are not among them."""
    ranked, failed = rank_variants(bundle, variants=["plain", "not-quick"], budget_s=0.1)

    assert [(pair.variant, pair.engine) for pair in ranked[:1]] == [("plain", "quick")]
    assert sorted((pair.variant, pair.engine) for pair in ranked[1:]) == [
        ("not-quick", "a-slow"),
        ("plain", "a-slow"),
    ]
    assert [round(pair.latency_s.value, 6) for pair in ranked] == [0.001, 0.002, 0.002]
    assert "--variant plain --engine quick --threads" in ranked[0].latency_s.how
    assert failed["not-quick", "quick"] == "not quick today"
    assert failed["plain", "breaks"] == "it broke"
    assert all(made.closed for made in opened())


def test_a_real_network_is_opened_in_an_engine_of_ours(tmp_path: Path, home: Path) -> None:
    """And gives what the reference gives."""
    bundle = pack(tmp_path / "tiny", {"fp32": classifier(np.random.default_rng(0))})
    feeds = {"x": np.ones((1, 3, 12, 12), np.float32)}

    loaded, name, _ = open_network(bundle, engine="onnx", home=home, threads=1)
    reference, _, _ = open_network(bundle, engine="reference", home=home)

    assert name == "onnx"
    np.testing.assert_allclose(
        loaded.run(feeds)["y"].astype(np.float64),
        reference.run(feeds)["y"].astype(np.float64),
        rtol=1e-4,
    )
