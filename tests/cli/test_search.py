"""Tests of `onhand build` where it searches: a budget, and nothing said of how to compress."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cli.conftest import FakeHost

from onhand.cli.main import main
from onhand.core.budget import Budget
from onhand.core.errors import BudgetExceeded
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize
from onhand.host.search.choices import SearchSpace

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Point:
    """A point of a front."""

    label: str
    choices: Mapping[str, str]
    predicted: Mapping[str, float]


@dataclass(frozen=True)
class Refused:
    """Why nothing holds."""

    def sentence(self, limits: Mapping[str, float]) -> str:
        """See `Refusal`."""
        return f"{', '.join(limits)}: the best that can be reached is 2 MiB"


@dataclass(frozen=True)
class Front:
    """What the host forecasts."""

    refusal: Refused | None = None
    chosen: str = "mixed-4.5bit"
    notes: tuple[str, ...] = ("it is small",)

    @property
    def limits(self) -> dict[str, float]:
        """Key -> limit."""
        return {"disk": 1.0}

    @property
    def points(self) -> list[Point]:
        """The front."""
        figures = {
            "perplexity_increase": 0.0123,
            "kl_divergence": 0.02,
            "size_bytes": 2**20,
            "peak_memory_bytes": 2**21,
            "decode_tokens_per_s": 99.0,
        }
        return [
            Point("mixed-4.5bit", {"embed": "int8 g128", "head": "int4 g32"}, figures),
            Point("mixed-8.0bit", {"embed": "int8 g128", "head": "int8 g128"}, figures),
        ]

    def to_json(self) -> dict[str, object]:
        """See `SearchPlan`."""
        return {"chosen": self.chosen}


def options_of(host: FakeHost) -> BuildOptions:
    """Return what the host was asked for."""
    asked = host.calls[0][1][-1]
    assert isinstance(asked, BuildOptions)
    return asked


@pytest.mark.parametrize(
    ("line", "search", "n_variants"),
    [
        ("--budget disk=1MiB", SearchSpace(), 1),
        ("--budget disk=1MiB --variants 3", SearchSpace(), 3),
        ("--budget disk=1MiB --bits 4", None, 1),
        ("--budget disk=1MiB --preset fast", None, 1),
        ("--budget disk=1MiB --variants int8,int4", None, 1),
        ("", None, 1),
    ],
)
def test_a_budget_alone_is_searched_for(
    line: str, search: SearchSpace | None, n_variants: int, host: FakeHost
) -> None:
    """Who says how to compress gets that, and nothing else."""
    host.outcome = BudgetExceeded("too large")

    assert main(["build", "m", "-o", "out", *line.split()]) == 4

    assert options_of(host).search == search
    assert options_of(host).n_variants == n_variants


def test_a_source_with_codes_keeps_them(host: FakeHost) -> None:
    """A search stands aside for codes that are there, as a plain build does."""
    host.outcome = BudgetExceeded("too large")

    assert main(["build", "m", "-o", "out", "--budget", "disk=1MiB"]) == 4

    assert options_of(host) == BuildOptions(
        transforms={"int4": Quantize()},
        keep_codes=True,
        search=SearchSpace(),
        budget=Budget(size_bytes=2**20),
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--variants 3", "give --budget, and no other option of how to compress"),
        ("--variants 3 --budget disk=1MiB --group 64", "give --budget, and no other option"),
        ("--variants 9 --budget disk=1MiB", "9 variants, must be 1 to 5"),
        ("--variants 0 --budget disk=1MiB", "0 variants, must be 1 to 5"),
    ],
)
def test_points_of_a_front_need_a_search(
    line: str, sentence: str, host: FakeHost, capsys: Capture
) -> None:
    """A number of variants means nothing where nothing is searched."""
    assert main(["build", "m", "-o", "out", *line.split()]) == 2
    assert sentence in capsys.readouterr().err
    assert host.calls == []


def test_the_predicted_front_is_shown(host: FakeHost, home: Path, capsys: Capture) -> None:
    """Every point in a row, the chosen one marked; what is predicted is said to be."""
    host.outcome = Front()

    assert main(["build", "m", "--plan", "--budget", "disk=1MiB"]) == 0

    shown, told = capsys.readouterr()
    assert host.calls[0][0] == "plan search"
    assert host.calls[0][2]["home"] == home
    assert "+1.23%" in shown
    assert "1 int8 g128, 1 int4 g32" in shown
    assert "all figures are predicted; the search would build mixed-4.5bit (*) first" in told


def test_a_budget_that_nothing_holds_is_a_failure(host: FakeHost, capsys: Capture) -> None:
    """The front is shown all the same, and for programs is one object."""
    host.outcome = Front(refusal=Refused(), chosen="")

    assert main(["build", "m", "--plan", "--json", "--budget", "disk=1"]) == 4

    shown, told = capsys.readouterr()
    assert json.loads(shown) == {"chosen": ""}
    assert "disk: the best that can be reached is 2 MiB" in told
