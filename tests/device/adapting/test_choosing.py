"""What is quickest here is found once, remembered, and found again when anything changes."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.device.test_opening import make_bundle

from onhand.core.bundle import Bundle
from onhand.core.profile import DeviceProfile
from onhand.core.profile_parts import Provider
from onhand.device.adapting import choosing, fingerprints
from onhand.device.adapting.choosing import WayChoice, choose_way, recall_way, thread_counts
from onhand.device.adapting.trial import Outcome
from onhand.device.adapting.trial_child import Job
from onhand.device.free_memory import FreeMemory
from onhand.device.probe import current_profile

WAYS = ("native", "onnx", "onnx:cuda", "reference")


class Told:
    """Remembers what it is told. See `Progress`."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def start(self, what: str, total: float) -> None:
        """See `Progress`."""
        self.stages.append(what)

    def advance(self, amount: float) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """See `Progress`."""
        self.notes.append(text)


class Trials:
    """Stands in for processes: seconds of a step by way, or a sentence for a crash."""

    def __init__(self, **took: float | str) -> None:
        self.took: Mapping[str, float | str] = {
            name.replace("_on_", ":"): value for name, value in took.items()
        }
        self.jobs: list[Job] = []

    def __call__(self, job: Job) -> Outcome:
        """See `Start`."""
        self.jobs.append(job)
        events: list[dict[str, object]] = []
        for way in job.ways:
            events.append({"event": "open", "way": way})
            took = self.took[way]
            if isinstance(took, str):
                return Outcome(events=tuple(events), ended=took)
            for threads in job.threads:
                figures = {"decode_s": took / threads, "prefill_s_per_token": took / 10}
                events.append({"event": "timed", "way": way, "threads": threads, **figures})
        return Outcome(events=tuple(events))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Any bundle: nothing of it is opened."""
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def profile() -> DeviceProfile:
    """This device, with four threads."""
    return replace(current_profile(), usable_threads=4)


Choose = Callable[..., WayChoice]


@pytest.fixture
def choose(bundle: Bundle, profile: DeviceProfile, home: Path) -> Choose:
    """Choose among `WAYS`, but for what a test says otherwise."""

    def do(trials: Trials, **changed: object) -> WayChoice:
        given: dict[str, object] = {
            "variant": "float",
            "able": WAYS,
            "profile": profile,
            "home": home,
        } | changed
        return choose_way(bundle, start=trials, **given)  # type: ignore[arg-type] # as above

    return do


def test_the_accelerator_that_is_slower_is_not_used(choose: Choose) -> None:
    """The processor is taken, and figures say why; the reference is never worth the timing."""
    trials = Trials(native=0.01, onnx=0.02, onnx_on_cuda=0.08)

    choice = choose(trials)

    assert (choice.engine, choice.threads, choice.source) == ("native", 4, "timed")
    assert choice.others()["onnx:cuda"].startswith("50 tokens/s and")
    assert "native with 4 threads 400 tokens/s" in choice.others()["onnx:cuda"]
    assert choice.fallbacks == ("onnx", "onnx:cuda")
    assert all("reference" not in job.ways for job in trials.jobs)


def test_the_accelerator_that_is_faster_is_used(choose: Choose) -> None:
    """Beside it stands what the processor took."""
    choice = choose(Trials(native=0.01, onnx=0.02, onnx_on_cuda=0.001))

    assert choice.engine == "onnx:cuda"
    assert set(choice.others()) == {"native", "onnx"}
    assert "timed here" in choice.sentence()


def test_what_was_found_is_remembered(choose: Choose, bundle: Bundle, profile: DeviceProfile,
                                      home: Path) -> None:  # fmt: skip
    """The second opening asks nobody: not even who could run it."""
    trials = Trials(native=0.01, onnx=0.02, onnx_on_cuda=0.001)
    first = choose(trials)
    n_jobs = len(trials.jobs)

    def nobody() -> tuple[str, ...]:
        raise AssertionError("asked again")

    again = choose(trials, able=nobody)

    assert len(trials.jobs) == n_jobs
    assert again == replace(first, source="remembered")
    assert recall_way(bundle, "float", profile, home=home) == again
    assert "remembered here" in again.sentence()


def _newer(names: object = ()) -> dict[str, str]:
    return {"onnxruntime": "99.0"}


def _plugged(*_: object, **__: object) -> tuple[str, ...]:
    return ("/dev/nvidiactl",)


CUDA = Provider(name="CUDAExecutionProvider", package="onnxruntime", is_usable=True)


@pytest.mark.parametrize(
    "change",
    [
        {"processor": "another"},
        {"instruction_sets": ("neon",)},
        {"usable_threads": 2},
        {"providers": (CUDA,)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_device_is_timed_anew(
    choose: Choose, profile: DeviceProfile, change: dict[str, object]
) -> None:
    """Processor, threads, providers: whatever may change the end of a race."""
    trials = Trials(native=0.01, onnx=0.02, onnx_on_cuda=0.08)
    choose(trials)
    n_jobs = len(trials.jobs)

    changed = replace(profile, **change)  # type: ignore[arg-type] # fields of these types

    assert choose(trials, profile=changed).source == "timed"
    assert len(trials.jobs) == 2 * n_jobs


@pytest.mark.parametrize(
    ("name", "value"),
    [("package_versions", _newer), ("seen_accelerators", _plugged), ("__version__", "99.0")],
)
def test_another_package_or_accelerator_is_timed_anew(
    choose: Choose, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    """Also what is plugged in later."""
    trials = Trials(native=0.01, onnx=0.02, onnx_on_cuda=0.08)
    choose(trials)

    monkeypatch.setattr(fingerprints, name, value)

    assert choose(trials).source == "timed"


def test_another_use_is_timed_anew(choose: Choose) -> None:
    """Another variant, another kind of keys and values, other threads."""
    trials = Trials(native=0.01, onnx=0.02, onnx_on_cuda=0.08)

    choices = [
        choose(trials, **way) for way in ({}, {"variant": "other"}, {"kv": "int8"}, {"threads": 3})
    ]

    assert [choice.source for choice in choices] == ["timed"] * 4
    assert [choice.threads for choice in choices] == [4, 4, 4, 3]
    assert {job.threads for job in trials.jobs} == {(4, 2, 1), (3,)}


def test_a_crash_in_a_trial_is_remembered(choose: Choose) -> None:
    """It is not tried again with every opening."""
    trials = Trials(native=0.01, onnx=0.02, onnx_on_cuda="crashed with signal 11")

    first = choose(trials)
    again = choose(trials)

    assert first.failed == again.failed == {"onnx:cuda": "crashed with signal 11"}
    assert again.source == "remembered"


def test_a_damaged_memory_is_ignored_and_said(choose: Choose, bundle: Bundle, home: Path) -> None:
    """Whoever broke the file, the ways are timed anew."""
    trials = Trials(native=0.01, onnx=0.02, onnx_on_cuda=0.08)
    choose(trials)
    (kept,) = (home / "state" / bundle.manifest_sha256).glob("decoder-way-*.json")

    for content in (b"\x00", b'{"format": 1, "value": {"latency_s": 3}}', b'{"format": 9}'):
        kept.write_bytes(content)
        told = Told()

        assert choose(trials, progress=told).source == "timed"
        assert "what was timed before is not used" in told.notes[0]


def test_where_nothing_can_be_kept_it_is_said(choose: Choose, home: Path) -> None:
    """The choice holds for this opening."""
    home.write_text("no folder")
    told = Told()

    choice = choose(Trials(native=0.01, onnx=0.02, onnx_on_cuda=0.08), progress=told)

    assert choice.engine == "native"
    assert any("what is quickest is not kept" in note for note in told.notes)


def test_one_way_with_one_thread_needs_no_trial(choose: Choose) -> None:
    """There is nothing to choose."""
    trials = Trials()

    only = choose(trials, able=("native", "reference"), threads=2)
    last = choose(trials, able=("reference",))

    assert (only.engine, only.threads, only.source) == ("native", 2, "only")
    assert only.fallbacks == ("reference",)
    assert (last.engine, last.threads) == ("reference", 4)
    assert only.sentence() == "native with 2 threads, the only one"
    assert trials.jobs == []


def test_where_all_fail_opening_says_why(choose: Choose) -> None:
    """Nothing is remembered of it: the next opening tries again."""
    trials = Trials(native="killed", onnx="killed", onnx_on_cuda="killed")

    first = choose(trials)
    n_jobs = len(trials.jobs)
    again = choose(trials)

    assert (first.engine, first.source) == ("native", "preferred")
    assert len(trials.jobs) == 2 * n_jobs
    assert first == again


@pytest.mark.parametrize(("free", "together"), [(10**9, True), (1400, False)])
def test_with_little_memory_ways_are_open_one_by_one(
    choose: Choose, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, free: int, together: bool
) -> None:
    """Three copies of the weights each are thought to be too many."""
    size = bundle.size_bytes("float")
    n_free = free if together else 4 * size + 100
    monkeypatch.setattr(choosing, "free_memory", lambda: FreeMemory(n_free, "a test"))
    trials = Trials(native=0.01, onnx=0.02, onnx_on_cuda=0.08)

    choose(trials)

    assert {job.together for job in trials.jobs} == {together}


def test_without_memory_nothing_is_tried(
    choose: Choose, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first preferred one is taken, with a word."""
    monkeypatch.setattr(choosing, "free_memory", lambda: FreeMemory(0, "a test"))
    trials, told = Trials(), Told()

    choice = choose(trials, progress=told)

    assert (choice.engine, choice.source, trials.jobs) == ("native", "preferred", [])
    assert "not timed: 0 bytes are free" in told.notes[0]


def test_threads_are_halved() -> None:
    """All, and halves of them, to one."""
    assert thread_counts(1) == (1,)
    assert thread_counts(6) == (6, 3, 1)
    assert thread_counts(16) == (16, 8, 4, 2, 1)
