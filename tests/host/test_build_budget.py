"""A build that would break its budget fails, with the figure and what would pass."""

from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.host.recorder import Recorder

from onhand.core.budget import parse_budget
from onhand.core.errors import BudgetExceeded, ResourceError
from onhand.core.measurement import Measurement, Unit
from onhand.host import prove
from onhand.host.build import build_bundle
from onhand.host.compare import TokenFigures, quality_figures
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize

Quick = dict[str, tuple[float, Unit]]
INT4 = {"int4": Quantize(method="rtn")}


def refused(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, budget: str
) -> tuple[str, list[str]]:
    """The sentence of a budget that does not hold, and the stages that ran."""
    shown = Recorder()
    asked = replace(options, budget=parse_budget(budget))
    with pytest.raises(BudgetExceeded) as caught:
        build_bundle(str(tiny), shelf / "b", asked, home=home, progress=shown)
    assert list(shelf.iterdir()) == []
    return str(caught.value), shown.stages


def test_a_size_over_its_ceiling_is_refused_before_any_work(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions
) -> None:
    """With the size, the ceiling and what would be the smallest."""
    text, stages = refused(tiny, shelf, home, options, "disk=20kB")

    assert stages == ["reading the source"]
    assert "disk: int4 takes" in text
    assert "at most 19.5 KiB allowed; no setting of this version should pass; best: --bits" in text


def test_a_quality_over_its_ceiling_names_the_nearest_setting(
    tiny: Path,
    shelf: Path,
    home: Path,
    options: BuildOptions,
    quick: Quick,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the figure; a random model loses nothing that counts, so the figure is given."""
    plain = quality_figures

    def figures(tokens: TokenFigures, *, how: str) -> dict[str, Measurement]:
        found = plain(tokens, how=how)
        worse = replace(found["perplexity_increase"], value=0.1)
        return {**found, "perplexity_increase": worse}

    monkeypatch.setattr(prove, "quality_figures", figures)
    two = replace(options, transforms={"int2": Quantize(bits=2)})

    text, _ = refused(tiny, shelf, home, two, "quality=0.2%")

    assert text.startswith(
        "quality: int2 is +10.00% perplexity, at most +0.20% perplexity allowed; "
        "nearest setting that should pass: --bits "
    )
    assert "--bits 2" not in text


def test_a_figure_that_nobody_measured_is_no_pass(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Silence fails the build."""
    del quick["energy_j_per_token"]

    text, _ = refused(tiny, shelf, home, options, "energy=100J")

    assert "energy: int4 was not measured" in text


def test_an_estimate_needs_consent(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Refused without; with it, judged like any other."""
    text, _ = refused(tiny, shelf, home, options, "energy=0.06J")
    assert "is only estimated (0.05 J/token); give --accept-estimates" in text
    assert "nearest setting" not in text, "the figure is low enough"

    accepted = replace(options, accept_estimates=True, budget=parse_budget("energy=0.06J"))
    build_bundle(str(tiny), shelf / "b", accepted, home=home)


def test_several_breaches_are_all_named(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """One sentence for all of them."""
    text, _ = refused(tiny, shelf, home, options, "ram=1MB,decode=1000,load=1ms")

    assert [key for key in ("ram: ", "decode: ", "load: ") if key in text] == [
        "ram: ",
        "decode: ",
        "load: ",
    ]


def test_a_memory_ceiling_below_need_is_refused_before_any_work(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions
) -> None:
    """With what it would take."""
    shown = Recorder()

    with pytest.raises(ResourceError, match=r"needs about .* MiB of memory, --max-ram allows"):
        build_bundle(
            str(tiny), shelf / "b", replace(options, max_ram=10**6), home=home, progress=shown
        )

    assert shown.stages == ["reading the source"]


def test_the_original_is_not_run_where_it_has_no_room_beside_the_build(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """The ceiling holds the builder too: it is not passed by what need not be measured."""
    room = psutil.Process().memory_info().rss + 200 * 2**20
    asked = replace(options, max_ram=room, measure_original=True)

    built = build_bundle(str(tiny), shelf / "b", asked, home=home)

    original = built.report["original"]
    assert isinstance(original, dict)
    assert "its speed was not measured" in original["missing"]
