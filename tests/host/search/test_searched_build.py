"""A build that is given a budget alone: searched, built, measured, proven; or refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.host.recorder import Recorder
from tests.models import VOCAB

from onhand.core.budget import parse_budget
from onhand.core.bundle import read_bundle
from onhand.core.errors import BudgetExceeded, InputError
from onhand.core.measurement import Unit
from onhand.core.quantized import GroupFormat
from onhand.host.build import build_bundle
from onhand.host.model import Model
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize
from onhand.host.prove import prove_bundle
from onhand.host.search.choices import SearchSpace
from onhand.host.search.planning import plan_searched
from onhand.host.work import work_folder

pytest.importorskip("scipy", reason="exact points: needs onhand[host]")

Quick = dict[str, tuple[float, Unit]]
FORMS = tuple(GroupFormat(bits=bits) for bits in (2, 4, 8))


@pytest.fixture
def searching(options: BuildOptions) -> BuildOptions:
    """Three formats for each matrix, rounded to nearest, without the original's speed."""
    space = SearchSpace(forms=FORMS, method="rtn")
    return replace(options, search=space, measure_original=False)


def asked(options: BuildOptions, budget: str) -> BuildOptions:
    """The same under a budget."""
    return replace(options, budget=parse_budget(budget))


def test_a_searched_bundle_holds_its_budget_and_shows_its_front(
    tiny: Path, shelf: Path, home: Path, searching: BuildOptions, quick: Quick
) -> None:
    """The best that fits the disk; the report has every point, and what each matrix loses."""
    made = build_bundle(
        str(tiny), shelf / "b", asked(searching, "disk=56KiB,quality=90%"), home=home
    )

    report = made.report
    assert isinstance(report["front"], dict)
    (chosen,) = [row for row in report["front"]["points"] if row["is_chosen"]]
    assert chosen["measured"]["size_bytes"] <= 56 * 1024
    assert report["default_variant"] == chosen["label"]
    bundle = read_bundle(shelf / "b")
    formats = bundle.manifest.variants[chosen["label"]].matrices
    assert {f"int{form.bits} g32" for form in formats.values() if form} == set(
        chosen["choices"].values()
    )
    assert len(set(chosen["choices"].values())) > 1, "mixed"
    rows = report["sensitivity"]
    assert isinstance(rows, list)
    assert {row["bits"] for row in rows} == {2, 4, 8}
    assert len(rows) == 3 * len(formats)
    assert {"group", "choice", "damage", "size_bytes"} < set(rows[0])


def test_the_same_search_gives_the_same_bundle_and_rounds_nothing_twice(
    tiny: Path,
    shelf: Path,
    home: Path,
    searching: BuildOptions,
    quick: Quick,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was rounded and measured is kept in the state folder, by its content."""
    wanted = asked(searching, "disk=62KiB")
    build_bundle(str(tiny), shelf / "first", wanted, home=home)
    rounded: list[str] = []
    plain = Quantize.apply

    def counted(self: Quantize, *given: object, names: list[str], **options: object) -> object:
        model = given[0]
        assert isinstance(model, Model)
        if model.weights.decoder.vocab_size == VOCAB:  # not the sample that a plan is timed on
            rounded.extend(names)
        return plain(self, *given, names=names, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Quantize, "apply", counted)
    shown = Recorder()
    build_bundle(str(tiny), shelf / "second", wanted, home=home, progress=shown)

    assert rounded == []
    assert "measuring what layers lose" not in shown.stages
    first, second = (read_bundle(shelf / name) for name in ("first", "second"))
    assert first.manifest_sha256 == second.manifest_sha256


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("disk=30KiB", "disk: at most 30.0 KiB allowed, the best that can be reached is"),
        ("ram=1MiB", "ram: at most 1.0 MiB allowed"),
        ("decode=1000000000/s", "decode: at least"),
    ],
)
def test_what_shapes_alone_forbid_is_refused_before_any_work(
    budget: str, said: str, tiny: Path, shelf: Path, home: Path, searching: BuildOptions
) -> None:
    """By a plan, and by a build, with the same sentence."""
    shown = Recorder()
    with pytest.raises(BudgetExceeded, match=said) as planned:
        plan_searched(str(tiny), asked(searching, budget), home=home)
    with pytest.raises(BudgetExceeded, match=said) as built:
        build_bundle(str(tiny), shelf / "b", asked(searching, budget), home=home, progress=shown)

    # Bandwidth is measured each time, so a speed that is forecast changes by a little.
    reached = [str(one.value).partition("reached is")[0] for one in (planned, built)]
    assert reached[0] == reached[1]
    assert shown.stages == ["reading the source"]
    assert list(shelf.iterdir()) == []


def test_a_speed_that_no_point_has_is_refused_with_what_was_measured(
    tiny: Path, shelf: Path, home: Path, searching: BuildOptions, quick: Quick
) -> None:
    """The forecast thought it possible: a few are built, and none holds."""
    quick["decode_tokens_per_s"] = (50.0, "1/s")

    with pytest.raises(BudgetExceeded, match="decode") as caught:
        build_bundle(str(tiny), shelf / "b", asked(searching, "decode=60/s"), home=home)

    assert "decode" in str(caught.value)
    assert list(shelf.iterdir()) == []


def test_a_plan_forecasts_the_front_without_a_build(
    tiny: Path, home: Path, searching: BuildOptions
) -> None:
    """It is JSON, names the first point, and says that all is predicted."""
    plan = plan_searched(str(tiny), asked(searching, "disk=62KiB"), home=home)

    table = json.loads(json.dumps(plan.to_json()))
    assert table["estimated"]
    sizes = [row["predicted"]["size_bytes"] for row in table["front"]["points"]]
    assert sizes == sorted(sizes)
    (chosen,) = [row for row in table["front"]["points"] if row["is_chosen"]]
    assert chosen["label"] == plan.chosen
    assert chosen["predicted"]["size_bytes"] <= 62 * 1024


def test_a_second_plan_runs_no_original(tiny: Path, home: Path, searching: BuildOptions) -> None:
    """What choices lose is known by then, and another budget asks for nothing else."""
    first = plan_searched(str(tiny), asked(searching, "disk=62KiB"), home=home)
    shown = Recorder()

    second = plan_searched(str(tiny), asked(searching, "disk=56KiB"), home=home, progress=shown)

    assert "running the original" not in shown.stages
    damages = [[point.predicted["damage"] for point in plan.points] for plan in (first, second)]
    assert set(damages[0]) & set(damages[1])


def test_several_points_share_one_bundle(
    tiny: Path, shelf: Path, home: Path, searching: BuildOptions, quick: Quick
) -> None:
    """The chosen one is the default; one is smaller, one larger; what is equal is stored once."""
    wanted = replace(asked(searching, "disk=62KiB"), n_variants=3)

    made = build_bundle(str(tiny), shelf / "b", wanted, home=home)

    bundle = read_bundle(made.root)
    default = bundle.manifest.default_variant
    others = set(bundle.manifest.variants) - {default}
    assert len(others) == 2
    bits = [float(name.removeprefix("mixed-").removesuffix("bit")) for name in others]
    assert min(bits) < float(default.removeprefix("mixed-").removesuffix("bit")) < max(bits)
    total = sum(path.stat().st_size for path in made.root.glob("weights*.safetensors"))
    alone = sum(
        form.size_bytes(bundle.manifest.decoder.matrices()[name])
        for variant in bundle.manifest.variants.values()
        for name, form in variant.matrices.items()
        if form is not None
    )
    assert total < alone


def test_an_interrupted_search_goes_on_where_it_was(
    tiny: Path,
    shelf: Path,
    home: Path,
    searching: BuildOptions,
    quick: Quick,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A point that was measured is not measured again."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    place = "onhand.host.search.building.prove_bundle"
    monkeypatch.setattr(place, interrupted)
    wanted = asked(searching, "disk=62KiB")
    with pytest.raises(KeyboardInterrupt):
        build_bundle(str(tiny), shelf / "b", wanted, home=home)
    kept = list((work_folder(shelf / "b") / "search").glob("*.json"))
    assert kept
    before = [path.stat().st_mtime_ns for path in kept]

    monkeypatch.setattr(place, prove_bundle)
    made = build_bundle(str(tiny), shelf / "b", replace(wanted, resume=True), home=home)

    assert len(before) == len(kept)
    assert made.report["search"]["builds"]  # type: ignore[index]
    assert not work_folder(shelf / "b").exists()


def test_a_limit_of_networks_is_refused(tiny: Path, home: Path, searching: BuildOptions) -> None:
    """No forecast for a language model knows it."""
    with pytest.raises(InputError, match="'latency' is for networks"):
        plan_searched(str(tiny), asked(searching, "latency=1ms"), home=home)
