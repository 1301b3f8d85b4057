"""`onhand build --plan`: what is shown of a forecast, and which limits refuse it."""

import json
from dataclasses import dataclass
from types import MappingProxyType

import pytest
from tests.cli.conftest import FakeHost

from onhand.cli.main import main

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Costs:
    """See `Forecast`."""

    limits = MappingProxyType({"decode_tokens_per_s": "memory bandwidth"})

    @property
    def spread(self) -> dict[str, float]:
        """A fifth, of every figure."""
        return dict.fromkeys(self.figures(), 0.2)

    def figures(self) -> dict[str, float]:
        """Times and energy."""
        return {
            "time_to_first_token_s": 0.5,
            "prefill_tokens_per_s": 1000.0,
            "decode_tokens_per_s": 100.0,
            "energy_j_per_token": 0.25,
        }


@dataclass(frozen=True)
class Planned:
    """See `BuildPlan`."""

    n_parameters: int = 1000
    original_bytes: int = 2000
    build_memory_bytes: int = 3 * 2**20
    build_disk_bytes: int = 2 * 2**20
    minutes: float = 2.5
    notes: tuple[str, ...] = ("it is small",)

    @property
    def size_bytes(self) -> dict[str, int]:
        """Variant -> bytes."""
        return {"int8": 1000, "int4": 500}

    @property
    def running_memory_bytes(self) -> dict[str, int]:
        """Variant -> bytes."""
        return {"int8": 2**20, "int4": 2**19}

    @property
    def forecasts(self) -> dict[str, Costs]:
        """Variant -> what it costs."""
        return {"int8": Costs(), "int4": Costs()}

    def to_json(self) -> dict[str, object]:
        """See `BuildPlan`."""
        return {"minutes": self.minutes, "size_bytes": self.size_bytes}


def test_a_plan_is_shown_and_judged(host: FakeHost, capsys: Capture) -> None:
    """Size, memory and minutes; a limit that is past by shapes alone is a failure."""
    host.outcome = Planned()

    plan = ["build", "m", "--plan", "--bits", "4", "--budget"]
    assert main([*plan, "disk=1000B,ram=1MiB,quality=1%"]) == 0
    shown, told = capsys.readouterr()
    assert "50.0%" in shown
    assert "about 2 min 30 s" in shown
    assert "100.0 tokens/s ±20%" in shown
    assert "memory bandwidth" in shown
    assert "note: it is small" in told

    assert main([*plan, "disk=999,ram=1000KiB", "--json"]) == 4
    shown, told = capsys.readouterr()
    assert json.loads(shown) == Planned().to_json()
    assert "disk: int8 is predicted to take 1000 B, at most 999 B allowed; ram: int8" in told


@pytest.mark.parametrize(
    ("limit", "clause"),
    [
        ("decode=119", ""),
        ("decode=121", "decode: int8 is predicted to reach 100.0 tokens/s, 120.0 tokens/s at the"),
        ("first-token=0.41s", ""),
        (
            "first-token=0.39s",
            "first-token: int8 is predicted to reach 500.0 ms, 400.0 ms at the best",
        ),
        ("energy=0.1J", "energy: int8 is predicted to reach 0.25 J/token, 0.2 J/token"),
        ("quality=0%", ""),
    ],
)
def test_times_are_refused_beyond_their_margin_only(
    host: FakeHost, capsys: Capture, limit: str, clause: str
) -> None:
    """A forecast that may still hold is left to the build, which measures."""
    host.outcome = Planned()

    code = main(["build", "m", "--bits", "8", "--plan", "--budget", limit])

    told = capsys.readouterr().err
    assert code == (4 if clause else 0)
    assert clause in told
