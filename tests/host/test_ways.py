"""Ways to run a bundle: which are tried, and what follows from what they gave."""

from collections.abc import Mapping

import pytest

from onhand.core.errors import EngineUnavailable
from onhand.core.measurement import Measurement, Unit
from onhand.host.ways import (
    Originals,
    Tried,
    Way,
    attempt,
    hardware,
    optimisation,
    plan_ways,
    time_waterfall,
    try_originals,
    ways_to_json,
)

LABELS = {
    "compression": "compression",
    "both": "compression and engine",
    "engine": "engine",
    "threads": "threads",
    "memory": "memory",
}
NATIVE, ONE, ONNX, PLAIN = Way("native", 4), Way("native", 1), Way("onnx", 4), Way("onnx", 1)
NAMES = plan_ways(("native", "onnx", "reference"), engine="native", threads=4)


def figure(name: str, value: float, unit: Unit = "s") -> Measurement:
    """A measurement without spread."""
    return Measurement(name=name, value=value, unit=unit, samples=3, spread=0.0, how="x")


def gave(way: Way, cold_s: float, warm_s: float, energy_j: float = 1.0) -> Tried:
    """A trial that worked."""
    figures = {
        "cold": figure("cold", cold_s),
        "warm": figure("warm", warm_s),
        "energy": figure("energy", energy_j, "joule"),
    }
    return Tried(way=way, figures=figures)


TRIED = {
    NATIVE: gave(NATIVE, 2.0, 1.0, 2.0),
    ONE: gave(ONE, 5.0, 3.0),
    ONNX: gave(ONNX, 4.0, 2.0),
    PLAIN: gave(PLAIN, 8.0, 6.0, 4.0),
}


def test_one_thing_at_a_time_is_left_out() -> None:
    """Chosen, plain engine, one thread, both: each once."""
    assert NAMES.all() == (NATIVE, ONNX, ONE, PLAIN)


@pytest.mark.parametrize(
    ("able", "engine", "threads", "expected"),
    [
        (("native",), "native", 2, [Way("native", 2), Way("native", 1)]),
        (("onnx", "native"), "onnx", 2, [Way("onnx", 2), Way("onnx", 1)]),
        (("native", "reference"), "native", 1, [Way("native", 1), Way("reference", 1)]),
        (("onnx",), "onnx", 1, [Way("onnx", 1)]),
    ],
)
def test_ways_that_are_the_same_are_tried_once(
    able: tuple[str, ...], engine: str, threads: int, expected: list[Way]
) -> None:
    """Where nothing plainer can run it, there is less to try."""
    assert list(plan_ways(able, engine=engine, threads=threads).all()) == expected


def test_a_way_that_fails_is_a_finding() -> None:
    """The reason is kept with the way's name, and no figures."""

    def fail(way: Way) -> Mapping[str, Measurement]:
        raise EngineUnavailable("no")

    tried = attempt(ONE, fail)

    assert (tried.figures, tried.missing) == ({}, "native, 1 thread: no")
    assert ways_to_json("original", [tried])[0]["missing"] == "native, 1 thread: no"


def test_the_original_is_tried_where_the_chosen_engine_can_run_it() -> None:
    """On the chosen and the plain way."""
    found = try_originals(NAMES, lambda _: None, lambda way: gave(way, 9.0, 7.0).figures)

    assert [one.way for one in found.all()] == [NATIVE, PLAIN]
    assert found.why_not == ""


def test_the_original_is_tried_in_the_plain_engine_otherwise() -> None:
    """The chosen threads with the plain engine: a way the compressed model was tried on too."""
    why = {"native": "it runs integers", "onnx": None}

    found = try_originals(NAMES, why.__getitem__, lambda way: gave(way, 9.0, 7.0).figures)

    assert [one.way for one in found.all()] == [ONNX, PLAIN]
    assert found.why_not == "it runs integers"


def test_an_original_that_nothing_runs_is_not_tried() -> None:
    """There is no figure, and a reason."""
    found = try_originals(NAMES, lambda _: "too large", lambda way: {})

    assert found.all() == ()
    assert optimisation(found, TRIED, time="cold", missing="").missing == "too large"
    assert (
        time_waterfall(
            NAMES, TRIED, found, measurement="a", cold="cold", warm="warm", labels=LABELS
        )
        is None
    )


def test_optimisation_compares_one_way_of_running() -> None:
    """From 6 s to 2 s: a third of the time, thrice the answers, and the rule says 5/3."""
    found = optimisation(Originals(same=gave(NATIVE, 6.0, 5.0)), TRIED, time="cold", missing="")

    assert found.ratio is not None
    assert found.outcome is not None
    assert found.ratio.value == pytest.approx(1 / 3)
    assert (found.outcome.name, found.outcome.value) == ("efficiency", 3.0)
    assert found.predicted == pytest.approx(5 / 3)
    assert found.missing == ""


def test_optimisation_says_where_it_compared_in_another_engine() -> None:
    """The figure is that of the way both were run on."""
    both = Originals(same=gave(ONNX, 8.0, 7.0), why_not="it runs integers")
    found = optimisation(both, TRIED, time="cold", missing="")

    assert found.after == TRIED[ONNX].figures["cold"]
    assert found.missing == ("both in onnx, 4 threads, because of the original: it runs integers")


def test_what_was_not_measured_is_said() -> None:
    """No original, and trials that failed."""
    failed = Tried(way=NATIVE, missing="it broke")

    assert optimisation(None, TRIED, time="cold", missing="not asked for").missing == (
        "not asked for"
    )
    found = optimisation(Originals(same=failed), TRIED, time="cold", missing="")
    assert (found.missing, found.ratio) == ("it broke", None)


def test_hardware_compares_the_plain_way_with_the_chosen_one() -> None:
    """From 8 s to 2 s and from 4 J to 2 J: the rule says a quarter of the energy, it is half."""
    found = hardware(NAMES, TRIED, time="cold", energy="energy")

    assert found.ratio is not None
    assert found.outcome is not None
    assert (found.ratio.value, found.predicted, found.outcome.value) == (0.25, 0.25, 0.5)


def test_hardware_without_a_choice_or_a_counter_says_so() -> None:
    """One way only; energy below what can be counted."""
    alone = plan_ways(("onnx",), engine="onnx", threads=1)
    still = {**TRIED, PLAIN: gave(PLAIN, 8.0, 6.0, 0.0)}

    assert (
        "is the plain one here: onnx, 1 thread"
        in hardware(alone, {PLAIN: TRIED[PLAIN]}, time="cold", energy="energy").missing
    )
    found = hardware(NAMES, still, time="cold", energy="energy")
    assert found.outcome is None
    assert "below what" in found.missing
    assert found.ratio is not None


def test_the_waterfall_leaves_out_one_thing_at_a_time() -> None:
    """From the original on the plain way, cold, to the compressed one on the chosen way, warm."""
    originals = Originals(same=gave(NATIVE, 6.0, 5.0), plain=gave(PLAIN, 20.0, 15.0))
    falls = time_waterfall(
        NAMES, TRIED, originals, measurement="answer_s", cold="cold", warm="warm", labels=LABELS
    )

    assert falls is not None
    assert (falls.before.value, falls.after.value) == (20.0, 1.0)
    assert dict(zip([p.label for p in falls.parts], falls.brought(), strict=True)) == {
        "compression": -4.0,
        "engine": -1.0,
        "threads": -2.0,
        "memory": -1.0,
    }
    assert falls.rest() == -11.0


def test_the_waterfall_says_what_could_not_be_left_out() -> None:
    """A trial that failed is no bar; what comes together is called so."""
    originals = Originals(same=gave(ONNX, 6.0, 5.0), plain=gave(PLAIN, 20.0, 15.0), why_not="no")
    tried = {**TRIED, ONE: Tried(way=ONE, missing="it broke")}
    falls = time_waterfall(
        NAMES, tried, originals, measurement="answer_s", cold="cold", warm="cold", labels=LABELS
    )

    assert falls is not None
    assert [part.label for part in falls.parts] == ["compression and engine", "engine"]
    assert falls.missing == {"threads": "it broke"}
