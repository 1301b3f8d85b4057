"""From feedback to a version: what waits is left out, what was learned is remembered."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.device.learning.bundles import LABELS, N_PIXELS, trunk_weights, write_bundle

from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.device.learning.feedback import Feedback
from onhand.device.learning.gate import Bounds
from onhand.device.learning.idle_child import Job
from onhand.device.learning.in_use import open_versions
from onhand.device.learning.learned import Learned
from onhand.device.learning.quarantine import Intake
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.suspicion import Limits
from onhand.device.learning.taught import Progressed, learn_from_feedback, progressed

_LIMITS = Limits()
_SETTINGS = LearnSettings(method="naive", epochs=20, rate=0.05)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A network of pixels that can learn its head."""
    return write_bundle(tmp_path / "things")


def arrays(pixels: FloatArray) -> bytes:
    """An example of the network, as a file."""
    file = io.BytesIO()
    np.savez(file, pixels=pixels[None])
    return file.getvalue()


def shown(kind: int, seed: int, *, label: str = "", scale: float = 1.0) -> Feedback:
    """A thing that looks like others of its kind."""
    rng = np.random.default_rng([kind, seed])
    pixels = trunk_weights()[:, kind] + 0.1 * rng.standard_normal(N_PIXELS)
    return Feedback(
        tenant="anna",
        at_s=1.0,
        verdict="accepted",
        picture=arrays((scale * pixels).astype(np.float32)),
        answer=label or LABELS[kind],
    )


def folder_of(bundle: Bundle, home: Path) -> Path:
    """Where what was learned lies."""
    return open_versions(bundle.root, home).folder


def give(bundle: Bundle, home: Path, examples: list[Feedback]) -> None:
    """Take feedback."""
    intake = Intake(folder_of(bundle, home), _LIMITS)
    for one in examples:
        assert intake.give(one).outcome == "taken"


def learn(bundle: Bundle, home: Path, **more: object) -> object:
    """Learn what was taken."""
    given: dict[str, object] = {"home": home, "settings": _SETTINGS, "limits": _LIMITS, **more}
    return learn_from_feedback(bundle.root, **given)  # type: ignore[arg-type] # its arguments


def test_what_was_taken_becomes_a_version(bundle: Bundle, home: Path) -> None:
    """It is better on what was held out, so it is in use; nothing is left to learn then."""
    give(bundle, home, [shown(i % 2, i) for i in range(30)])

    learned = learn(bundle, home)

    assert isinstance(learned, Learned)
    assert (learned.is_accepted, learned.is_used) == (True, True)
    assert open_versions(bundle.root, home).current().number == 1
    now = progressed(folder_of(bundle, home))
    assert (now.n_seen, now.n_learned, now.outcome) == (30, 30, "accepted")
    assert learn(bundle, home) is None


def test_only_what_is_new_is_taught_and_the_rest_is_remembered(bundle: Bundle, home: Path) -> None:
    """What was learned before judges whether it was forgotten."""
    give(bundle, home, [shown(i % 2, i) for i in range(30)])
    learn(bundle, home)
    give(bundle, home, [shown(2, i) for i in range(20)])

    learned = learn(bundle, home)

    assert isinstance(learned, Learned)
    assert learned.examples + learned.heldout == 20
    assert learned.past + learned.past_heldout == 30


def test_what_was_refused_is_taught_again_with_more(bundle: Bundle, home: Path) -> None:
    """A candidate that failed loses none of its examples."""
    give(bundle, home, [shown(i % 2, i) for i in range(30)])
    strict = replace(_SETTINGS, bounds=Bounds(most_change=1e-9))
    refused = learn(bundle, home, settings=strict)
    now = progressed(folder_of(bundle, home))

    assert isinstance(refused, Learned)
    assert not refused.is_accepted
    assert (now.n_seen, now.n_learned, now.outcome) == (30, 0, "refused")
    assert "the weights moved" in now.reason
    again = learn(bundle, home)
    assert isinstance(again, Learned)
    assert again.examples + again.heldout == 30


def test_what_is_held_is_not_learned(bundle: Bundle, home: Path) -> None:
    """What waits in quarantine is left out until it is released."""
    examples = [shown(i % 2, i) for i in range(30)]
    give(bundle, home, examples)
    Intake(folder_of(bundle, home), _LIMITS).hold(examples[0], "looked odd")

    learned = learn(bundle, home)

    assert isinstance(learned, Learned)
    assert learned.examples + learned.heldout == 29


def test_an_extreme_loss_is_set_aside(bundle: Bundle, home: Path) -> None:
    """Once the model knows something, a wrong label for it stands out."""
    give(bundle, home, [shown(i % 2, i) for i in range(40)])
    learn(bundle, home)
    poison = shown(0, 99, label=LABELS[1], scale=20.0)
    give(bundle, home, [*(shown(i % 2, 100 + i) for i in range(20)), poison])

    learned = learn(bundle, home)

    (held,) = Intake(folder_of(bundle, home), _LIMITS).held()
    assert held.feedback == poison
    assert "deviations above the median" in held.reason
    assert isinstance(learned, Learned)
    assert learned.examples + learned.heldout == 20


def test_a_broken_off_training_goes_on(bundle: Bundle, home: Path) -> None:
    """The same call again begins where the last step ended."""
    give(bundle, home, [shown(i % 2, i) for i in range(30)])
    asked: list[int] = []

    def soon() -> bool:
        asked.append(1)
        return len(asked) > 30 + 3  # of each example, whether its loss is extreme

    broken = learn(bundle, home, is_interrupted=soon)
    whole = learn(bundle, home)

    assert isinstance(broken, Learned)
    assert isinstance(whole, Learned)
    assert (broken.ended, broken.version, broken.steps) == ("interrupted", None, 3)
    assert (whole.ended, whole.resumed_at, whole.version) == ("done", 3, 1)


def test_a_look_at_losses_is_broken_off_as_well(bundle: Bundle, home: Path) -> None:
    """Whoever asks does not wait for it; nothing is counted as looked at, and it begins anew."""
    give(bundle, home, [shown(i % 2, i) for i in range(30)])
    asked: list[int] = []

    def soon() -> bool:
        asked.append(1)
        return len(asked) > 5

    broken = learn(bundle, home, is_interrupted=soon)

    assert isinstance(broken, Learned)
    assert (broken.ended, broken.version, broken.steps, len(asked)) == ("interrupted", None, 0, 6)
    assert progressed(folder_of(bundle, home)) == Progressed()
    whole = learn(bundle, home)
    assert isinstance(whole, Learned)
    assert whole.version == 1


def test_only_the_last_examples_say_what_is_usual(
    bundle: Bundle, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that was taught for years looks at no more than it did in its first month."""
    monkeypatch.setattr("onhand.device.learning.screening.MOST_PAST", 4)
    give(bundle, home, [shown(i % 2, i) for i in range(30)])
    learn(bundle, home)
    give(bundle, home, [shown(i % 2, 100 + i) for i in range(3)])
    learn(bundle, home)

    looked_at = folder_of(bundle, home) / "taken" / "screened.jsonl"
    assert len(looked_at.read_text(encoding="utf-8").splitlines()) == 7


def test_bad_answers_alone_teach_nothing(bundle: Bundle, home: Path) -> None:
    """They say what is wrong, and not what is right."""
    give(bundle, home, [replace(shown(i % 2, i), verdict="rated", rating=0.0) for i in range(5)])

    assert learn(bundle, home) is None
    assert progressed(folder_of(bundle, home)).n_seen == 5


@pytest.mark.parametrize("content", [b"", b"{", b'{"n_seen": -1}', b"[1]"])
def test_attack_a_damaged_count_begins_anew(tmp_path: Path, content: bytes) -> None:
    """What was learned once is learned again; nothing is lost."""
    (tmp_path / "taught.json").write_bytes(content)

    assert progressed(tmp_path) == Progressed()


def job_of(bundle: Bundle, home: Path) -> Job:
    """What a server asks of its child."""
    return Job(
        bundle=str(bundle.root),
        bundle_sha256=bundle.manifest_sha256,
        home=str(home),
        method="naive",
        epochs=20,
        rate=0.05,
        held_out=0.2,
        remember="",
        threads=1,
        seconds=60.0,
        memory_bytes=0,
        energy_j=0.0,
        lowest_battery=0.0,
        cpu_share=1.0,
        most_lost_points=0.5,
        most_lost_loss=0.0,
        most_example_bytes=65536,
    )


def run_child(job: Job) -> dict[str, object]:
    """Let a process do a job."""
    child = subprocess.Popen(
        [sys.executable, "-m", "onhand.device.learning.idle_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        child.stdin.write(job.rendered())
        child.stdin.flush()
        line = child.stdout.readline()
    assert child.returncode == 0
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_a_process_of_its_own_learns(bundle: Bundle, home: Path) -> None:
    """It says how it ended, in one line."""
    give(bundle, home, [shown(i % 2, i) for i in range(30)])

    said = run_child(job_of(bundle, home))

    assert (said["ended"], said["is_used"], said["version"]) == ("done", True, 1)
    assert said["is_judged"] is True


def test_a_failure_is_noted_and_said(bundle: Bundle, home: Path) -> None:
    """It is not begun again before there is more to learn."""
    give(bundle, home, [shown(0, 1)])

    said = run_child(replace(job_of(bundle, home), method="nonsense"))

    now = progressed(folder_of(bundle, home))
    assert said["ended"] == "failed"
    assert "nonsense" in now.reason
    assert (now.outcome, now.n_seen, now.n_learned) == ("failed", 1, 0)
