"""Which variant of a bundle is opened: the quickest of those that may be taken unasked."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.network_bundles import Drawing, Op, classifier, info, pack, write_network_report

import onhand
from onhand.core.bundle import Bundle
from onhand.core.errors import EngineError, EngineUnavailable, InputError
from onhand.device.networks import variants as module
from onhand.device.networks.variants import (
    Choice,
    allowed_variants,
    choose_quickest,
    open_quickest,
    recall_choice,
)

# An engine of somebody else's, the only one for a graph with an operator of theirs.
FAKE = """
import numpy as np
from onhand.core.errors import EngineError

class Loaded:
    def __init__(self, variant):
        self.variant = variant
    def run(self, feeds):
        if self.variant == "breaks":
            raise EngineError("it broke")
        return {"y": np.zeros((1, 4), np.float32)}
    def close(self):
        pass

class Fake:
    name, package = "fake", "numpy"
    def why_not(self, bundle, profile, *, variant=None):
        return "not today" if variant == "unable" else None
    def open(self, bundle, *, variant=None, threads):
        return Loaded(variant)
"""
Times = Callable[[Mapping[str, float]], list[list[str]]]


@pytest.fixture(scope="module", autouse=True)
def _fake_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package of somebody else's."""
    place = tmp_path_factory.mktemp("third-party")
    (place / "fake_paces.py").write_text(FAKE)
    known = place / "fake_paces-1.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-paces\nVersion: 1.0\n")
    (known / "entry_points.txt").write_text("[onhand.network_engines]\nfake = fake_paces:Fake\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        yield
    sys.modules.pop("fake_paces", None)


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    """Decides how long runs take; what it returns is filled with the names that were timed."""

    def decide(seconds: Mapping[str, float]) -> list[list[str]]:
        timed: list[list[str]] = []

        def time_them(runs: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
            timed.append(list(runs))
            for run in runs.values():
                run()
            return {name: [seconds[name]] for name in runs}

        monkeypatch.setattr(module, "time_interleaved", time_them)
        return timed

    return decide


def strange(root: Path, *names: str, recipe: Mapping[str, object] | None = None) -> Bundle:
    """A bundle that only the fake engine runs."""
    drawing = Drawing(
        ops=[Op(kind="Strange", inputs=["x"], outputs=["y"], domain="somebody")],
        constants={"w": np.zeros(1, np.float32)},
        inputs=(info("x", 1, 4),),
        outputs=(info("y", 1, 4),),
        domains={"somebody": 1},
    )
    return pack(root, dict.fromkeys(names, drawing), provenance={"recipe": dict(recipe or {})})


def test_the_quickest_variant_is_taken_and_remembered(
    tmp_path: Path, home: Path, times: Times
) -> None:
    """int8 is the default one, and float32 is quicker here; nothing is timed twice."""
    bundle = strange(tmp_path / "net", "int8", "fp32")
    write_network_report(bundle, {"int8": {"quality_loss": 0.01}, "fp32": {"quality_loss": 0.0}})
    timed = times({"int8": 0.002, "fp32": 0.001})
    assert recall_choice(bundle, home=home) is None

    loaded, first = open_quickest(bundle, home=home)
    again = choose_quickest(bundle, home=home)

    assert loaded.variant == "fp32"  # type: ignore[attr-defined]  # of the fake
    assert timed == [["int8", "fp32"]]
    assert first == again == recall_choice(bundle, home=home)
    assert first.sentence() == "variant fp32 in fake; int8 takes 2 ms here, fp32 1"


def test_a_twentieth_is_noise(tmp_path: Path, home: Path, times: Times) -> None:
    """The default variant wins a tie, and forced threads and engines are timed for themselves."""
    bundle = strange(tmp_path / "net", "int8", "fp32")
    write_network_report(bundle, {"int8": {"quality_loss": 0.0}, "fp32": {"quality_loss": 0.0}})
    timed = times({"int8": 1.04e-3, "fp32": 1e-3})

    chosen = [
        choose_quickest(bundle, home=home).variant,
        choose_quickest(bundle, home=home, threads=1).variant,
        choose_quickest(bundle, home=home, threads=2).variant,
        choose_quickest(bundle, home=home, threads=2, engine="fake").variant,
    ]

    assert chosen == ["int8"] * 4
    assert 2 <= len(timed) <= 3  # this machine may have one of these numbers of threads


@pytest.mark.parametrize(
    ("figures", "limits", "recipe", "said"),
    [
        ({"quality_loss": 0.03}, {}, {}, "loses 3.00%, int8 1.00%, and no budget allows"),
        ({"quality_loss": 0.03}, {"loss": 0.05}, {}, None),
        ({"quality_loss": 0.03}, {"loss": 0.02}, {}, "over the budget: loss is 3.00% lost"),
        ({"quality_loss": 0.01}, {}, {}, None),
        ({"quality_loss": 0.0, "size_bytes": 2e6}, {"disk": 1e6}, {}, "over the budget: disk"),
        ({"quality_loss": 0.0}, {"disk": 1e6}, {}, "over the budget: disk was not measured"),
        ({"quality_loss": 0.0, "latency_s": 9.0}, {"latency": 1.0}, {}, None),
        ({"latency_s": 0.1}, {}, {}, "nobody measured what it loses"),
        ({"latency_s": 0.1}, {}, {"other": []}, None),
        ({"latency_s": 0.1}, {}, {"other": [{"pass": "quantize"}]}, "nobody measured"),
        ({"quality_loss": 0.03}, {}, {"other": []}, None),
        (None, {}, {"other": []}, "the report says nothing of it"),
    ],
)
def test_a_variant_that_may_be_worse_is_not_taken_unasked(
    tmp_path: Path,
    home: Path,
    times: Times,
    figures: Mapping[str, float] | None,
    limits: Mapping[str, float],
    recipe: Mapping[str, object],
    said: str | None,
) -> None:
    """The budget decides, and without one nothing more is lost than by the default variant."""
    bundle = strange(tmp_path / "net", "int8", "other", recipe=recipe)
    told = {"int8": {"quality_loss": 0.01}} | ({} if figures is None else {"other": figures})
    write_network_report(bundle, told, limits=limits)
    times({"int8": 0.002, "other": 0.001})

    choice = choose_quickest(bundle, home=home)

    assert choice.variant == ("other" if said is None else "int8")
    if said is not None:
        assert said in choice.variants["other"]
        assert said in choice.sentence()
    assert choose_quickest(bundle, home=home, variant="other").variant == "other"


def test_what_gained_is_no_measure_for_others(tmp_path: Path) -> None:
    """A default variant that is better than the original, by chance, does not forbid float32."""
    bundle = strange(tmp_path / "net", "int8", "fp32")
    write_network_report(bundle, {"int8": {"quality_loss": -0.01}, "fp32": {"quality_loss": 0.0}})

    assert allowed_variants(bundle) == (("int8", "fp32"), {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "no report says what it loses"),
        (lambda path: path.write_text("{"), "the report cannot be read"),
        (lambda path: path.write_text("[]"), "the report cannot be read"),
        (lambda path: path.write_bytes(b" " * (2**24 + 1)), "the report cannot be read"),
        (
            lambda path: path.write_text(
                json.dumps(json.loads(path.read_text()) | {"manifest_sha256": "0" * 64})
            ),
            "is that of another bundle",
        ),
    ],
)
def test_without_a_report_the_default_variant_is_taken(
    tmp_path: Path, home: Path, change: Callable[[Path], object], said: str
) -> None:
    """Nothing says what another one loses."""
    bundle = strange(tmp_path / "net", "int8", "fp32")
    write_network_report(bundle, {"int8": {"quality_loss": 0.0}, "fp32": {"quality_loss": 0.0}})
    change(bundle.root / "report.json")

    choice = choose_quickest(bundle, home=home)

    assert choice.variant == "int8"
    assert said in choice.variants["fp32"]
    assert recall_choice(bundle, home=home) is None


def test_without_a_state_folder_nothing_is_timed(tmp_path: Path, times: Times) -> None:
    """The default variant, and it says so; one that is asked for by name has no rivals."""
    bundle = strange(tmp_path / "net", "int8", "fp32")
    write_network_report(bundle, {"int8": {"quality_loss": 0.0}, "fp32": {"quality_loss": 0.0}})
    timed = times({})

    assert choose_quickest(bundle).sentence() == (
        "variant int8 in fake; fp32 is not timed: there is no state folder"
    )
    assert choose_quickest(bundle, variant="fp32").sentence() == "variant fp32 in fake"
    assert timed == []
    with pytest.raises(InputError, match="no variant 'int3'"):
        choose_quickest(bundle, variant="int3")


def test_variants_that_cannot_run_are_passed_over(tmp_path: Path, home: Path, times: Times) -> None:
    """They say why; where none can, the default one's reason is the error."""
    bundle = strange(tmp_path / "net", "unable", "breaks", "works")
    write_network_report(
        bundle, {name: {"quality_loss": 0.0} for name in ("unable", "breaks", "works")}
    )
    timed = times({"works": 0.001})

    choice = choose_quickest(bundle, home=home, engine="fake")

    assert (choice.variant, timed) == ("works", [["works"]])
    assert "not today" in choice.variants["unable"]
    assert choice.variants["breaks"] == "it broke"
    nobody = strange(tmp_path / "nobody", "unable")
    with pytest.raises(EngineUnavailable, match="no engine can run variant 'unable' here"):
        choose_quickest(nobody, home=home)
    with pytest.raises(EngineError, match="Strange"):
        choose_quickest(bundle, home=home, engine="onnx")


def test_an_engine_that_is_not_known_yet_is_not_named() -> None:
    """The sentence is about the variant then."""
    assert Choice(variant="int8", engine="").sentence() == "variant int8"


def test_a_real_network_is_opened_in_its_quickest_variant(tmp_path: Path, home: Path) -> None:
    """Two variants that ONNX Runtime runs, of which one does far more work."""
    rng = np.random.default_rng(0)
    small = classifier(rng)
    slow = Drawing(
        ops=[
            *small.ops[:-1],
            *(
                Op(kind="MatMul", inputs=[f"f{i}" if i else "f", "m"], outputs=[f"f{i + 1}"])
                for i in range(400)
            ),
            Op(kind="Gemm", inputs=["f400", *small.ops[-1].inputs[1:]], outputs=["y"],
               attributes=small.ops[-1].attributes),
        ],
        constants=dict(small.constants) | {"m": np.eye(8, dtype=np.float32)},
        inputs=small.inputs,
        outputs=small.outputs,
    )  # fmt: skip
    bundle = pack(tmp_path / "net", {"slow": slow, "small": small})
    write_network_report(bundle, {"slow": {"quality_loss": 0.0}, "small": {"quality_loss": 0.0}})

    with onhand.open_network(bundle.root, engine="onnx", threads=1, home=home) as session:
        made = session.run({"x": np.ones((1, 3, 12, 12), np.float32)})["y"]

    assert (session.choice.variant, session.engine_name) == ("small", "onnx"), session.choice
    assert session.choice.variants["slow"].startswith("takes ")
    assert made.shape == (1, 5)
