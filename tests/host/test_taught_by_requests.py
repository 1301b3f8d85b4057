"""A language model that is served, corrected over HTTP, and answers rightly afterwards."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

pytest.importorskip("torch", reason="builds a bundle that can learn")

from tests.device.serving.served import serving

from onhand.core.measurement import Unit
from onhand.device.learning.ceilings import GO, Permission, Spent
from onhand.device.learning.feedback import Feedback
from onhand.device.learning.gate import Bounds
from onhand.device.learning.in_use import open_versions
from onhand.device.learning.learned import Learned
from onhand.device.learning.quarantine import Intake
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.suspicion import Limits
from onhand.device.learning.taught import learn_from_feedback, progressed
from onhand.device.serving.assembling import opened_state
from onhand.device.serving.feedback.settings import LearningSettings
from onhand.device.serving.governor.setting import GovernorSettings
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.settings import ModelSettings, ServeSettings
from onhand.host.build import build_bundle
from onhand.host.learning.wanted import parse_learnable
from onhand.host.options import BuildOptions

LEARNING = LearningSettings(
    enabled=True,
    method="naive",
    epochs=100,
    rate=0.02,
    held_out=0.0,
    least_examples=1,
    idle_s=0.0,
    retry_s=1000.0,
    threads=1,
    cpu_share=1.0,
    lowest_battery=0.0,
)


@pytest.fixture
def root(
    tiny: Path,
    shelf: Path,
    home: Path,
    options: BuildOptions,
    quick: Mapping[str, tuple[float, Unit]],
) -> Path:
    """A tiny language model that can learn."""
    lora = parse_learnable("lora,rank=8,targets=qkv+out+gate_up+down")
    build_bundle(str(tiny), shelf / "b", replace(options, learnable=lora), home=home)
    return shelf / "b"


@pytest.mark.slow
def test_a_corrected_answer_is_given_rightly_by_the_next_version(root: Path, home: Path) -> None:
    """Asked before, corrected by the answer's id, learned by a process of its own, asked after."""
    settings = ServeSettings(
        models=(ModelSettings(bundle=str(root), name="tiny", threads=1),),
        learning=LEARNING,
        # It would wait until nobody else keeps this machine busy.
        governor=GovernorSettings(enabled=False),
        shelf=ShelfSettings(watch_s=0.05),
    )
    with (
        opened_state(settings, home=home, told=lambda _: None) as state,
        serving(state=state, settings=settings) as served,
    ):
        before = _ask(served.url)
        fields = {"id": before[0], "verdict": "corrected", "correction": " the lamp"}
        reply = httpx2.post(f"{served.url}/v1/feedback", json=fields)
        end_s = time.monotonic() + 120
        learned: dict[str, object] = {}
        while (learned.get("version"), learned.get("last_verdict")) != (1, "accepted"):
            assert time.monotonic() < end_s, learned
            time.sleep(0.1)
            learned = httpx2.get(f"{served.url}/v1/feedback").json()["tiny"]
        after = _ask(served.url)

    assert (reply.status_code, reply.json()["outcome"]) == (200, "taken")
    assert before[1] != " the lamp"
    assert after[1] == " the lamp"


@pytest.mark.slow
def test_a_server_may_leave_all_else_as_it_was(root: Path, home: Path, tmp_path: Path) -> None:
    """With a scope, and examples of what is known."""
    known = tmp_path / "known.jsonl"
    rows = [{"prompt": f"play the song {i} again", "completion": "yes"} for i in range(20)]
    known.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    settings = ServeSettings(
        models=(ModelSettings(bundle=str(root), name="tiny", threads=1),),
        learning=replace(LEARNING, scope=True, remember=str(known), most_lost_points=100.0),
        governor=GovernorSettings(enabled=False),
        shelf=ShelfSettings(watch_s=0.05),
    )
    other = "play the song 3 again"
    with (
        opened_state(settings, home=home, told=lambda _: None) as state,
        serving(state=state, settings=settings) as served,
    ):
        before, unlike = _ask(served.url), _ask(served.url, other)
        fields = {"id": before[0], "verdict": "corrected", "correction": " the lamp"}
        httpx2.post(f"{served.url}/v1/feedback", json=fields)
        end_s = time.monotonic() + 120
        learned: dict[str, object] = {}
        while (learned.get("version"), learned.get("last_verdict")) != (1, "accepted"):
            assert time.monotonic() < end_s, learned
            time.sleep(0.1)
            learned = httpx2.get(f"{served.url}/v1/feedback").json()["tiny"]
        after, still = _ask(served.url), _ask(served.url, other)

    assert after[1] == " the lamp" != before[1]
    assert still[1] == unlike[1]


def _ask(url: str, prompt: str = "turn on") -> tuple[str, str]:
    """Return an answer's id and text."""
    # " the lamp" has six tokens; this tokenizer has none that ends an answer.
    fields = {"model": "tiny", "prompt": prompt, "max_tokens": 6, "temperature": 0}
    said = httpx2.post(f"{url}/v1/completions", json=fields, timeout=60).json()
    return said["id"], said["choices"][0]["text"]


def _rated(answer: str, rating: float, question: str = "turn on") -> Feedback:
    return Feedback(
        tenant="anna",
        at_s=1.0,
        verdict="rated",
        messages=(("user", question),),
        answer=answer,
        rating=rating,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("feedback", "method"),
    [
        ([_rated("yes", 1.0), _rated("no", 0.0)], "dpo with naive"),
        ([_rated("yes", 1.0), _rated("no", 0.0, "turn off")], "kto with naive"),
        ([_rated("no", 0.0)], "kto with naive"),
    ],
    ids=["a pair", "each alone", "a bad one alone"],
)
def test_bad_ratings_teach_what_to_avoid(
    root: Path, home: Path, feedback: list[Feedback], method: str
) -> None:
    """Good answers are a version of their own; what was said is learned once."""
    versions = open_versions(root, home)
    intake = Intake(versions.folder, Limits())
    for one in feedback:
        assert intake.give(one).outcome == "taken"
    settings = LearnSettings(method="naive", epochs=3, rate=0.01)

    def learned() -> Learned | None:
        return learn_from_feedback(root, home=home, settings=settings, limits=Limits(), threads=1)

    made = learned()

    assert made is not None
    assert (made.is_used, made.method) == (True, method)
    assert versions.current().number == 1 + any(one.is_good for one in feedback)
    assert progressed(versions.folder).n_seen == len(feedback)
    assert learned() is None


@pytest.mark.slow
def test_ratings_that_were_broken_off_teach_no_good_answer_again(root: Path, home: Path) -> None:
    """Neither one that the gate refused, nor pairs where single opinions are left."""
    versions = open_versions(root, home)
    intake = Intake(versions.folder, Limits())
    for one in (_rated("yes", 1.0), _rated("no", 0.0), _rated("what", 0.0, "turn off")):
        assert intake.give(one).outcome == "taken"
    # Whatever is learned is refused, and nothing that is left of it would be another's work.
    settings = LearnSettings(method="naive", epochs=3, rate=0.01, bounds=Bounds(most_change=1e-9))
    methods: list[str] = []

    def look(spent: Spent) -> Permission:
        methods[:] = [one.method for one in versions.list_versions()]
        return GO

    def learned() -> Learned | None:
        return learn_from_feedback(
            root,
            home=home,
            settings=settings,
            limits=Limits(),
            threads=1,
            permit=look,
            is_interrupted=lambda: is_broken_off and len(methods) == 2,
        )

    is_broken_off = True
    broken = learned()
    is_broken_off = False
    whole = learned()

    assert broken is not None
    assert broken.ended == "interrupted"
    assert whole is not None
    assert whole.resumed_at == broken.steps > 0
    assert [one.method for one in versions.list_versions()] == [
        "naive",
        "dpo with naive",
        "kto with naive",
    ]
    assert progressed(versions.folder).n_seen == 3
