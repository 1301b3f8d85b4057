"""A real server that is given feedback, learns in idle time, and answers with what it learned."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.device.learning.test_in_use import teach
from tests.device.serving.feedback.teaching import FixedLoaded, Teaching, learning_bundle
from tests.device.serving.served import Served, client_of, serving

from onhand.device.learning.idle_child import Job
from onhand.device.learning.in_use import open_versions
from onhand.device.learning.quarantine import read_feedback
from onhand.device.learning.versions import Versions
from onhand.device.serving.feedback.child import LearningProcess
from onhand.device.serving.feedback.desk import FeedbackDesk, show_learning
from onhand.device.serving.feedback.settings import LearningSettings
from onhand.device.serving.models.shelf import Shelf
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.models.shelved import shelved
from onhand.device.serving.settings import ModelSettings, ServeSettings
from onhand.device.serving.state import ServerState

LEARNING = LearningSettings(enabled=True, least_examples=2, idle_s=0.0, retry_s=0.0)
KEYS = {"anna": "a-long-secret-of-anna", "ben": "a-long-secret-of-ben"}


@dataclass(slots=True)
class Learners:
    """Stands for the processes that learn: each teaches one version when a test says so.

    Attributes:
        versions: where they put it.
        jobs: what they were asked.
        go: they end when it is set.
        told: how often one was told to end.
        is_judged: whether examples judge what was learned.
    """

    versions: Versions
    jobs: list[Job] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    told: int = 0
    is_judged: bool = True

    async def __call__(self, job: Job) -> LearningProcess:
        """See `StartLearning`."""
        self.jobs.append(job)
        return _Learner(self)


class _Learner:
    """See `LearningProcess`."""

    def __init__(self, learners: Learners) -> None:
        self._learners = learners
        self._is_over = False

    @property
    def process(self) -> int:
        """See `LearningProcess`: there is none."""
        return 0

    async def ended(self) -> Mapping[str, object]:
        """See `LearningProcess`."""
        while not self._is_over:
            if self._learners.go.is_set():
                version = teach(self._learners.versions, 0.25)
                return {
                    "ended": "done",
                    "is_judged": self._learners.is_judged,
                    "is_used": True,
                    "version": version.number,
                }
            await asyncio.sleep(0.005)
        return {"ended": "interrupted"}

    def tell_to_end(self) -> None:
        """See `LearningProcess`."""
        self._learners.told += 1
        self._is_over = True

    async def end(self) -> None:
        """See `LearningProcess`."""
        self._is_over = True


@dataclass(frozen=True, slots=True)
class Classroom:
    """A server that learns.

    Attributes:
        served: it.
        desk: its feedback.
        versions: what it learned.
        learners: what learns.
        teaching: what opens its model.
    """

    served: Served
    desk: FeedbackDesk
    versions: Versions
    learners: Learners
    teaching: Teaching

    def post(self, who: str = "anna", /, **fields: Any) -> httpx2.Response:
        """Give feedback."""
        headers = {"Authorization": f"Bearer {KEYS[who]}"}
        return httpx2.post(f"{self.served.url}/v1/feedback", json=fields, headers=headers)

    def get(self, path: str) -> httpx2.Response:
        """Look."""
        headers = {"Authorization": f"Bearer {KEYS['anna']}"}
        return httpx2.get(f"{self.served.url}{path}", headers=headers)

    def ask(self, who: str = "anna") -> tuple[str, str]:
        """Return an answer's id and text."""
        with openai.OpenAI(
            base_url=f"{self.served.url}/v1", api_key=KEYS[who], max_retries=0
        ) as client:
            answer = client.completions.create(model="toy", prompt="<open>")
        return answer.id, answer.choices[0].text


@contextmanager
def classroom(
    tmp_path: Path,
    home: Path,
    *,
    settings: LearningSettings = LEARNING,
    kind: type[FixedLoaded] | None = None,
    battery: Callable[[], tuple[float | None, bool | None]] = lambda: (None, None),
) -> Iterator[Classroom]:
    """Serve a bundle that can learn."""
    root = learning_bundle(tmp_path / "toy").root
    versions = open_versions(root, home)
    teaching = Teaching() if kind is None else Teaching(kind)
    learners = Learners(versions)
    shelf = Shelf(
        ShelfSettings(watch_s=0.05, least_stay_s=0.0),
        memory_bytes=2**30,
        home=home,
        open_model=teaching,
        resident=lambda: 0,
    )
    shelf.add(ModelSettings(bundle=str(root), name="toy"))
    state = ServerState([shelved(shelf, entry) for entry in shelf.entries])
    desk = FeedbackDesk(
        state, settings, home=home, start_child=learners, battery=battery, tick_s=0.01
    )
    state.feedback = desk
    state.beside.append(desk)
    show_learning(desk, state.metrics)
    tenants = {hashlib.sha256(key.encode()).hexdigest(): name for name, key in KEYS.items()}
    try:
        with serving(state=state, settings=ServeSettings(tenants=tenants)) as served:
            yield Classroom(served, desk, versions, learners, teaching)
    finally:
        shelf.close()


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something, for ten seconds at most."""
    end_s = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.005)


@pytest.fixture
def room(tmp_path: Path, home: Path) -> Iterator[Classroom]:
    """A server that learns after two examples."""
    with classroom(tmp_path, home) as made:
        yield made


def test_an_answer_is_corrected_by_its_id(room: Classroom) -> None:
    """The id that OpenAI's client shows is enough; what is right is on disk then."""
    name, text = room.ask()

    reply = room.post(id=name, verdict="corrected", correction="sure")

    assert (reply.status_code, reply.json()["outcome"]) == (200, "taken")
    (kept,) = read_feedback(room.versions.folder)
    assert (kept.text, kept.answer, kept.wrong) == ("<open>", "sure", text)
    assert kept.tenant == "anna"


def test_attack_nobody_rates_anothers_answers(room: Classroom) -> None:
    """Not even with the right id."""
    name, _ = room.ask("anna")

    reply = room.post("ben", id=name, verdict="rated", rating=0.0)

    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "no_answer"
    assert read_feedback(room.versions.folder) == []


def test_what_is_suspect_waits_and_what_was_there_is_refused(room: Classroom) -> None:
    """With the reason, and a status of its own."""
    talk = [{"role": "user", "content": "is it on?"}]
    replies = [room.post(messages=talk, answer=answer) for answer in ("yes", "yes", "no")]

    assert [one.status_code for one in replies] == [200, 422, 202]
    assert replies[1].json()["error"]["message"] == "the same example was taken before"
    assert replies[2].json()["reason"] == "another answer to the same input was taken before"
    assert room.get("/v1/feedback").json()["toy"]["quarantined"] == 1


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        (
            {"model": "other", "messages": [{"role": "user", "content": "x"}], "answer": "y"},
            404,
            "",
        ),
        ({"input": "a", "label": "b"}, 404, "model_not_found"),
        ({"verdict": "accepted"}, 400, ""),
    ],
)
def test_feedback_for_nobody_is_refused(
    room: Classroom, fields: dict[str, Any], status: int, code: str
) -> None:
    """Of a model that is not here, or of another kind."""
    reply = room.post(**fields)

    assert reply.status_code == status
    assert code in str(reply.json()["error"].get("code"))


def test_without_a_key_nothing_is_taken(room: Classroom) -> None:
    """And nothing is shown; with one, the health has nothing but figures."""
    assert httpx2.post(f"{room.served.url}/v1/feedback", json={}).status_code == 401
    assert httpx2.get(f"{room.served.url}/v1/feedback").status_code == 401
    assert httpx2.get(f"{room.served.url}/health").status_code == 401
    health = room.get("/health").json()
    assert health["learning"]["toy"] == {
        "version": 0,
        "examples_waiting": 0,
        "quarantined": 0,
        "last_verdict": None,
        "is_learning": False,
        "held_by": None,
    }


def give_two(room: Classroom) -> None:
    """Enough to learn from."""
    for question in ("a", "b"):
        room.post(messages=[{"role": "user", "content": question}], answer=f"to {question}")


@pytest.mark.parametrize("kind", [None, FixedLoaded], ids=["adapts", "opens again"])
def test_it_learns_in_idle_time_and_answers_with_it(
    tmp_path: Path, home: Path, kind: type[FixedLoaded] | None
) -> None:
    """From feedback to another answer, without a restart."""
    settings = replace(LEARNING, retry_s=1000.0)
    with classroom(tmp_path, home, settings=settings, kind=kind) as room:
        before = room.ask()[1]
        give_two(room)
        until(lambda: len(room.learners.jobs) == 1)
        assert room.get("/v1/feedback").json()["toy"]["is_learning"] is True
        room.learners.go.set()
        until(lambda: room.ask()[1] == "learned b")
        figures = room.get("/metrics").text

    assert before == "base"
    job = room.learners.jobs[0]
    assert (job.method, job.cpu_share, job.bundle) == ("replay", 0.5, str(tmp_path / "toy"))
    assert 'onhand_learning_version{model="toy"} 1.0' in figures
    assert 'onhand_learning_examples_taken{model="toy"} 2.0' in figures
    assert 'onhand_learning_trainings_total{model="toy"}' in figures


@pytest.mark.parametrize("is_judged", [True, False])
def test_a_version_that_nothing_judged_is_a_warning(
    tmp_path: Path, home: Path, caplog: pytest.LogCaptureFixture, is_judged: bool
) -> None:
    """It passed its gate, which had nothing to hold against it."""
    with classroom(tmp_path, home, settings=replace(LEARNING, retry_s=1000.0)) as room:
        room.learners.is_judged = is_judged
        give_two(room)
        room.learners.go.set()
        until(lambda: room.get("/health").json()["learning"]["toy"]["version"] == 1)

    warned = [one for one in caplog.messages if one.startswith("model toy: nothing judged version")]
    assert len(warned) == (not is_judged)


def test_a_request_ends_a_training_and_it_goes_on_later(room: Classroom) -> None:
    """Whoever asks comes first; a stream that runs meanwhile is whole."""
    give_two(room)
    until(lambda: len(room.learners.jobs) == 1)
    room.teaching.steps.clear()
    with openai.OpenAI(
        base_url=f"{room.served.url}/v1", api_key=KEYS["anna"], max_retries=0
    ) as client:
        stream = client.completions.create(model="toy", prompt="<open>", stream=True)
        until(lambda: room.learners.told == 1)
        n_begun = len(room.learners.jobs)
        time.sleep(0.05)
        assert len(room.learners.jobs) == n_begun
        room.teaching.steps.set()
        text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    until(lambda: len(room.learners.jobs) > n_begun)

    assert text == "base"


def test_a_stream_ends_on_the_version_that_it_began_with(room: Classroom) -> None:
    """Another version goes into use while it runs."""
    room.ask()
    room.teaching.steps.clear()
    with client_of(room.served) as plain:
        client = plain.with_options(api_key=KEYS["anna"])
        stream = client.completions.create(model="toy", prompt="<open>", stream=True)
        teach(room.versions, 0.25)
        entry = room.desk.pupils()[0].model.entry
        until(lambda: entry.version.learned.number == 1 or entry.place().facts.learned.number == 1)
        room.teaching.steps.set()
        text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)

    assert text == "base"
    assert room.ask()[1] == "learned b"


def test_too_few_examples_wait(tmp_path: Path, home: Path) -> None:
    """And it is said for what."""
    with classroom(tmp_path, home, settings=replace(LEARNING, least_examples=3)) as room:
        give_two(room)
        until(lambda: room.get("/v1/feedback").json()["toy"]["waits_for"] is not None)
        found = room.get("/v1/feedback").json()["toy"]

    assert (found["examples_waiting"], found["waits_for"]) == (2, "2 of 3 new examples")
    assert room.learners.jobs == []


def test_a_low_battery_waits_for_mains(
    tmp_path: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is begun, and the reason is said: to who asks, in figures, and once in the log."""
    caplog.set_level("INFO", logger="onhand.serving.learning")
    with classroom(tmp_path, home, battery=lambda: (0.3, False)) as room:
        give_two(room)
        said = "the battery is at 30%, and not on mains"
        until(lambda: room.get("/v1/feedback").json()["toy"]["waits_for"] == said)
        health = room.get("/health").json()["learning"]["toy"]
        figures = room.get("/metrics").text

    assert room.learners.jobs == []
    assert health["held_by"] == "battery"
    assert 'onhand_learning_held_back{model="toy"} 1.0' in figures
    lines = [one.getMessage() for one in caplog.records if "examples wait" in one.getMessage()]
    assert lines == [f"model toy: 2 new examples wait: {said}"]


def test_the_end_of_the_server_ends_a_training(tmp_path: Path, home: Path) -> None:
    """Nothing is left running."""
    with classroom(tmp_path, home) as room:
        give_two(room)
        until(lambda: len(room.learners.jobs) == 1)

    assert room.desk.described()["toy"]["is_learning"] is False
