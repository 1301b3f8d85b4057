"""Trials of ways to run a bundle, in child processes, with the tiny bundle in tests/data."""

import io
import json
from pathlib import Path

import pytest

from onhand.core.errors import EngineError, InputError
from onhand.device.measured import job_text
from onhand.device.probe import current_profile
from onhand.device.trial_child import TrialJob, run_job
from onhand.device.trials import Trial, try_way

TINY = Path(__file__).parents[1] / "data" / "tiny-bundle"
FIGURES = (
    "cold_first_token_s",
    "warm_first_token_s",
    "cold_answer_s",
    "warm_answer_s",
    "answer_energy_j",
)


@pytest.fixture(scope="module")
def trial() -> Trial:
    """One real trial, which several tests look at."""
    return try_way(
        TINY,
        variant="int4",
        engine="reference",
        threads=1,
        profile=current_profile(),
        lengths=(16, 64, 100_000),
    )


def test_every_figure_of_a_trial_is_measured(trial: Trial) -> None:
    """Positive, named, and with the way in its command; energy says how it was counted."""
    assert tuple(trial.figures) == FIGURES
    assert all(figure.value > 0 for figure in trial.figures.values())
    assert all(figure.name == name for name, figure in trial.figures.items())
    assert "--engine reference --threads 1" in trial.figures["cold_answer_s"].how
    assert trial.to_json()["engine"] == "reference"


def test_an_answer_takes_longer_than_its_first_token(trial: Trial) -> None:
    """The parts of one answer are in order."""
    figures = {name: figure.value for name, figure in trial.figures.items()}

    assert figures["cold_first_token_s"] < figures["cold_answer_s"]
    assert figures["warm_first_token_s"] < figures["warm_answer_s"]


def test_lengths_end_at_the_context(trial: Trial) -> None:
    """A length that does not fit is replaced by the longest that does; slow ones may lack."""
    tokens = [speed.tokens for speed in trial.contexts]

    assert tokens in ([16, 64, 240], [16, 64], [16])
    assert all(speed.decode_tokens_per_s.value > 0 for speed in trial.contexts)
    assert json.dumps([speed.to_json() for speed in trial.contexts])


def test_memory_is_seen_from_the_start(trial: Trial) -> None:
    """The phases are in order, and Python alone takes more than 10 MiB."""
    names = [name for name, _ in trial.memory.phases]
    times = [at for _, at in trial.memory.phases]

    assert names == [
        "starting Python",
        "opening",
        "first answer",
        "answering",
        "longer prompts",
    ]
    assert times == sorted(times)
    assert max(size for _, size in trial.memory.points) > 10 * 2**20


def test_what_goes_wrong_is_told() -> None:
    """No such variant: the error of reading; no such engine: the last line of the child."""
    profile = current_profile()

    with pytest.raises(EngineError, match="trying tiny in none"):
        try_way(TINY, variant="int4", engine="none", threads=1, profile=profile)
    with pytest.raises(InputError):
        try_way(TINY / "none", variant="int4", engine="reference", threads=1, profile=profile)


def job(**changes: object) -> TrialJob:
    """A short job for this process."""
    given: dict[str, object] = {
        "root": str(TINY),
        "variant": "int4",
        "engine": "reference",
        "threads": 1,
        "shared": (5, 6, 7, 8),
        "question": (9, 10),
        "generated_tokens": 2,
        "runs": 3,
        "most_s": 60.0,
        "lengths": (),
        "lengths_most_s": 60.0,
        "profile": "",
    }
    from onhand.core.profile import render_profile

    given["profile"] = render_profile(current_profile())
    return TrialJob(**{**given, **changes})  # type: ignore[arg-type] # as given


def events(made: TrialJob) -> list[str]:
    """The kinds of events that a job prints."""
    out = io.StringIO()
    run_job(made, out)
    return [json.loads(line)["event"] for line in out.getvalue().splitlines()]


def test_time_limits_leave_at_least_one_run() -> None:
    """However slow a way is, it is tried once; further lengths are left out."""
    slow = job(most_s=0.0, lengths=(3, 5), lengths_most_s=-1.0)

    assert events(slow) == ["opening", "opened", "asking", "run", "trial"]
    assert events(job()).count("run") == 3


def test_each_length_is_run_three_times() -> None:
    """So that there is a spread."""
    assert events(job(runs=1, lengths=(3, 5))).count("length") == 6


def test_a_job_travels_as_json() -> None:
    """What the parent writes, the child reads."""
    made = job(lengths=(3,))
    table = json.loads(job_text(made))

    assert table["lengths"] == [3]
    assert TrialJob(**{**table, **{k: tuple(table[k]) for k in ("shared", "question", "lengths")}})
