"""Trials of ways to run a model: who is timed, who is blamed for a crash, what is made of it.

No accelerator is here: the processes that would try one are fakes.
"""

from dataclasses import dataclass, field

import pytest

from onhand.device.adapting.trial import (
    ANSWER_TOKENS,
    LIMIT_S,
    PROMPT_TOKENS,
    Outcome,
    parse_way,
    run_trial,
    way_name,
)
from onhand.device.adapting.trial_child import Job

Event = dict[str, object]


def timed(way: str, threads: int, decode_s: float, prefill_s: float = 0.001) -> Event:
    """A round's figures."""
    figures = {"decode_s": decode_s, "prefill_s_per_token": prefill_s}
    return {"event": "timed", "way": way, "threads": threads, **figures}


def begun(way: str) -> Event:
    """The process opens a way."""
    return {"event": "open", "way": way}


def job(*ways: str, threads: tuple[int, ...] = (1,)) -> Job:
    """A trial."""
    return Job(root="/bundle", variant="int4", ways=ways, threads=threads)


@dataclass
class Processes:
    """Answers jobs from a table: ways -> what the process leaves."""

    table: dict[tuple[str, ...], Outcome]
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, given: Job) -> Outcome:
        """Run a job."""
        self.asked.append(given.ways)
        return self.table[given.ways]


def well(*events: Event) -> Outcome:
    """A process that did it all."""
    return Outcome(events=events)


def test_accelerators_have_processes_of_their_own() -> None:
    """Ways of the processor take turns in one; whatever else there is may crash alone."""
    run = Processes({
        ("native", "onnx"): well(timed("native", 1, 0.01), timed("onnx", 1, 0.03)),
        ("onnx:cuda",): well(timed("onnx:cuda", 1, 0.002)),
        ("other",): well(timed("other", 1, 0.05)),
    })

    done = run_trial(job("native", "onnx", "onnx:cuda", "other"), run)

    assert run.asked == [("native", "onnx"), ("onnx:cuda",), ("other",)]
    assert done.winner() == "onnx:cuda with 1 thread"
    assert list(done.latency_s) == [
        way_name(way, 1) for way in ("native", "onnx", "onnx:cuda", "other")
    ]


def test_an_accelerator_that_is_slower_is_not_taken() -> None:
    """It is there, it works, and its figures say why it is left alone."""
    run = Processes({
        ("native",): well(timed("native", 2, 0.01)),
        ("onnx:cuda",): well(timed("onnx:cuda", 2, 0.04)),
    })

    done = run_trial(job("native", "onnx:cuda", threads=(2,)), run)

    assert done.winner() == "native with 2 threads"
    assert done.figures["onnx:cuda with 2 threads"]["decode_s"] == 0.04


def test_the_least_of_the_rounds_counts() -> None:
    """What else the machine does only adds to it; both parts of an answer count."""
    rounds = [timed("native", 1, decode, prefill) for decode, prefill in ((3.0, 0.5), (1.0, 0.7))]

    done = run_trial(job("native"), lambda _: well(*rounds))

    assert done.latency_s == {"native with 1 thread": PROMPT_TOKENS * 0.5 + ANSWER_TOKENS * 1.0}


def test_as_quick_with_fewer_threads_is_better() -> None:
    """The others are left to whoever else wants them; fewer may even be quicker."""
    rounds = [timed("native", n, decode_s) for n, decode_s in ((4, 0.0100), (2, 0.0102), (1, 0.02))]

    done = run_trial(job("native", threads=(4, 2, 1)), lambda _: well(*rounds))

    assert done.winner() == "native with 2 threads"


def test_a_crash_is_survived_and_blamed() -> None:
    """What the process was at is unusable; what it had not come to is tried without it."""
    run = Processes({
        ("native", "onnx"): Outcome(
            events=(begun("native"),), ended="crashed with signal 11: illegal instruction"
        ),
        ("onnx",): well(timed("onnx", 1, 0.03)),
        ("onnx:cuda",): Outcome(events=(), ended="ended with code 1: no driver"),
    })

    done = run_trial(job("native", "onnx", "onnx:cuda"), run)

    assert done.winner() == "onnx with 1 thread"
    assert done.failed == {
        "native": "crashed with signal 11: illegal instruction",
        "onnx:cuda": "ended with code 1: no driver",
    }


def test_a_crash_while_it_is_timed_takes_its_figures_away() -> None:
    """Those that were timed beside it keep theirs."""
    events = (
        timed("native", 1, 0.01),
        timed("onnx", 1, 0.001),
        {"event": "run", "way": "onnx", "threads": 1},
    )
    run = Processes({("native", "onnx"): Outcome(events=events, ended="crashed with signal 6")})

    done = run_trial(job("native", "onnx"), run)

    assert (done.winner(), done.failed) == (
        "native with 1 thread",
        {"onnx": "crashed with signal 6"},
    )


def test_what_fails_in_words_is_no_crash() -> None:
    """An engine that refuses has its own reason, and its process goes on."""
    failed: Event = {"event": "failed", "way": "onnx", "reason": "too old"}
    outcome = well(failed, timed("native", 1, 0.01))

    done = run_trial(job("native", "onnx"), lambda _: outcome)

    assert done.failed == {"onnx": "too old"}


def test_what_hangs_is_not_waited_for_twice() -> None:
    """The one that had the time is blamed, those after it have had no turn."""
    late = Outcome(
        events=(timed("native", 1, 0.01), begun("onnx")), ended="took long", is_late=True
    )
    run = Processes({("native", "onnx"): late, ("other",): well(timed("other", 1, 0.02))})

    done = run_trial(job("native", "onnx", "other"), run)

    assert done.failed == {"onnx": "took long"}
    assert done.winner() == "native with 1 thread"
    assert run.asked == [("native", "onnx"), ("other",)]


def test_a_model_that_opens_slowly_is_not_judged_by_halves() -> None:
    """The preferred way is taken, and nothing is said of the others but that."""
    late = Outcome(events=(begun("native"),), ended="took long", is_late=True)

    done = run_trial(job("native", "onnx", threads=(2, 1)), lambda _: late)

    assert done.latency_s == {"native with 2 threads": LIMIT_S}
    assert done.figures == {}
    assert "native takes more than" in done.failed["onnx"]


def test_a_slow_model_keeps_the_rounds_that_it_had() -> None:
    """Its time was over in the middle of a later one."""
    events = (timed("native", 1, 2.0), {"event": "run", "way": "native", "threads": 1})
    late = Outcome(events=events, ended="took long", is_late=True)

    done = run_trial(job("native"), lambda _: late)

    assert (done.winner(), done.failed) == ("native with 1 thread", {})


@pytest.mark.parametrize("threads", [1, 2, 64])
@pytest.mark.parametrize("way", ["native", "onnx:cuda", "odd with name"])
def test_names_of_ways_come_back(way: str, threads: int) -> None:
    """Whatever the engine is called."""
    assert parse_way(way_name(way, threads)) == (way, threads)
    assert parse_way("reference") == ("reference", 1)
