"""The process that tries ways, on a real bundle in real engines."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.device.adapting.test_choosing import Told

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import BundleCorrupt
from onhand.device import opening
from onhand.device.adapting import trial, trial_child
from onhand.device.adapting.trial import run_trial, start_process
from onhand.device.adapting.trial_child import Job, run_job
from onhand.device.engine_opening import able_engines, choose_engine, open_chosen
from onhand.device.probe import current_profile

TINY = Path(__file__).parents[2] / "data" / "tiny-bundle"


@pytest.fixture
def bundle() -> Bundle:
    """The smallest real bundle."""
    return read_bundle(TINY)


@pytest.fixture
def job(bundle: Bundle) -> Job:
    """A trial of the two engines that every device has."""
    variant = bundle.manifest.default_variant
    ways = ("onnx", "reference")
    return Job(root=str(TINY), variant=variant, ways=ways, threads=(2, 1), budget_s=0.05)


def events_of(job: Job) -> list[dict[str, object]]:
    """What the process prints."""
    out = io.StringIO()
    run_job(job, out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("together", [True, False])
def test_every_way_is_opened_run_and_timed(
    job: Job, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """Those that are told their threads when they open are opened again where it is quick."""
    monkeypatch.setattr(trial_child, "MOST_REOPENING_S", 1e9)
    events = events_of(replace(job, together=together))

    kinds = [(one["event"], one["way"]) for one in events]
    assert kinds.index(("open", "onnx")) < kinds.index(("run", "onnx"))
    timed = {(one["way"], one["threads"]) for one in events if one["event"] == "timed"}
    assert timed >= {("onnx", 2), ("reference", 2)}
    assert (("onnx", 1) in timed) == together
    figures = [one for one in events if one["event"] == "timed"]
    assert all(float(str(one["decode_s"])) > 0 for one in figures)
    assert all(float(str(one["prefill_s_per_token"])) > 0 for one in figures)


def test_what_cannot_is_an_event(job: Job) -> None:
    """The others are timed all the same."""
    events = events_of(replace(job, ways=("reference", "onnx"), kv="int8"))

    assert [one["event"] for one in events] == ["open", "failed", "open", "failed"]
    assert "does not keep keys and values as int8" in str(events[1]["reason"])


def test_a_process_does_it_and_is_told_from_one_that_fails(job: Job) -> None:
    """A real one; and one whose bundle is not there."""
    done = run_trial(replace(job, ways=("onnx",), threads=(1,)))
    lost = start_process(replace(job, root=str(TINY / "nowhere")))

    assert list(done.latency_s) == ["onnx with 1 thread"]
    assert lost.ended.startswith("ended with code 1: ")
    assert not lost.is_late


def test_a_process_that_hangs_is_ended(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is limited."""
    monkeypatch.setattr(trial, "LIMIT_S", 0.01)

    outcome = start_process(job)

    assert outcome.is_late
    assert outcome.ended == "took more than 0.01 s"


def test_a_damaged_bundle_is_not_opened(job: Job, tmp_path: Path) -> None:
    """A trial checks what it opens."""
    copy = tmp_path / "bundle"
    copy.mkdir()
    for file in TINY.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "model.onnx").write_bytes(b"x" * (TINY / "model.onnx").stat().st_size)

    with pytest.raises(BundleCorrupt):
        run_job(replace(job, root=str(copy)), io.StringIO())


def test_opening_takes_what_the_trial_found(bundle: Bundle, home: Path) -> None:
    """From the folder to an answer; the second time nothing is tried."""
    told = Told()

    with opening.open(TINY, home=home, progress=told) as session:
        first = session.choice
        assert list(session.generate("ab", max_tokens=2)) is not None
    with opening.open(TINY, home=home, progress=told) as session:
        again = session.choice

    assert told.stages == ["timing what runs it quickest here, once"]
    assert first is not None
    assert again == replace(first, source="remembered")
    able, _ = able_engines(
        bundle, current_profile(), variant=bundle.manifest.default_variant, wanted=None
    )
    assert first.engine in able
    assert "reference" not in first.others()


def test_a_named_engine_is_not_timed(bundle: Bundle, home: Path) -> None:
    """Whoever asks for one gets it, with all threads."""
    with opening.open(TINY, home=home, engine="reference") as session:
        assert session.choice is not None
        assert (session.choice.engine, session.choice.source) == ("reference", "asked")
    assert not home.exists()


def test_what_was_quickest_and_fails_today_is_passed_over(
    bundle: Bundle, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is after it is taken, with the reason."""
    variant = bundle.manifest.default_variant
    found = choose_engine(bundle, variant, home=home)
    gone = replace(found, engine="onnx:cuda", fallbacks=("onnx",))
    monkeypatch.setattr("onhand.device.engine_opening.choose_engine", lambda *_, **__: gone)

    opened = open_chosen(bundle, variant=variant, engine=None, threads=None, home=home)
    opened.loaded.close()

    assert (opened.choice.engine, opened.choice.source) == ("onnx", "preferred")
    assert "built without CUDAExecutionProvider" in opened.passed_over["onnx:cuda"]
