"""The governor at work: a real server, forced readings, streams that end whole and unchanged."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx2
import openai
import pytest
from tests.device.serving.served import client_of, fake_model, serving
from tests.device.test_generate import FakeLoaded, mixing, saying

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.errors import ResourceError
from onhand.device.engines.base import Session
from onhand.device.schedule import Limits
from onhand.device.serving.caches.exact import ExactCache
from onhand.device.serving.governor.governor import Governor
from onhand.device.serving.governor.readings import Readings
from onhand.device.serving.governor.setting import GovernorSettings, Setting
from onhand.device.serving.governor.starting import make_governor, start_governor
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.state import ServerState

AIMS = GovernorSettings(dwell_s=30, urgent_s=5, least_context=16)
SHORT_OF_MEMORY = Readings(at_s=0, memory_pressure=0.9)


class Threaded(FakeLoaded):
    """A fake model whose threads change, and whose steps wait until they are let through."""

    def __init__(self) -> None:
        super().__init__(mixing)
        self.threads = self.most_threads = 4
        self.may_go = threading.Event()
        self.may_go.set()

    def use_threads(self, n: int) -> None:
        """See `ThreadsLoaded`."""
        self.threads = n

    def step(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, batch: Sequence[tuple[Session, TokenArray]]
    ) -> FloatArray:
        """See `Loaded`."""
        assert self.may_go.wait(60)
        return super().step(batch)


class Forced:
    """Readings as a test wants them, half a minute apart."""

    def __init__(self, now: Readings) -> None:
        self.now = now
        self.at_s = 0.0

    def read(self) -> Readings:
        """Return them, later than before."""
        self.at_s += 31
        return replace(self.now, at_s=self.at_s)


def governed(model: LocalModel, forced: Forced) -> tuple[ServerState, Governor]:
    state = ServerState([model])
    return state, make_governor(state, AIMS, read=forced.read)


def limits(model: LocalModel) -> Limits:
    return model.governed._batcher.limits  # noqa: SLF001 (what the next step is planned by)


def test_streams_end_whole_while_everything_is_given_up(tmp_path: Path) -> None:
    """Fewer threads and answers at once from the next step on; the text is the same."""
    loaded = Threaded()
    model = fake_model(tmp_path, loaded=loaded)
    forced = Forced(Readings(at_s=0, throttled=0.5))
    state, governor = governed(model, forced)
    texts: dict[str, str] = {}

    def ask(client: openai.OpenAI, prompt: str) -> str:
        stream = client.completions.create(
            model="toy", prompt=prompt, max_tokens=24, stream=True, seed=1
        )
        return "".join(chunk.choices[0].text for chunk in stream)

    with serving(state=state) as served, client_of(served) as client:
        expected = {prompt: ask(client, prompt) for prompt in ("one", "two", "three")}
        loaded.may_go.clear()
        readers = [
            threading.Thread(target=lambda p=prompt: texts.update({p: ask(client, p)}))
            for prompt in expected
        ]
        for reader in readers:
            reader.start()
        while model.n_active < 3:
            readers[0].join(0.01)
        assert governor.tick() is not None
        assert loaded.threads == 3
        forced.now = SHORT_OF_MEMORY
        for _ in range(12):
            governor.tick()
        assert limits(model).max_active == 1
        assert limits(model).max_waiting == 64 + 7
        loaded.may_go.set()
        for reader in readers:
            reader.join(60)

    assert texts == expected


def test_what_was_given_up_comes_back(tmp_path: Path) -> None:
    """Once nothing presses, the server computes as it did at first."""
    loaded = Threaded()
    model = fake_model(tmp_path, loaded=loaded)
    usual = limits(model)
    forced = Forced(SHORT_OF_MEMORY)
    state, governor = governed(model, forced)
    while governor.tick() is not None:
        pass
    assert limits(model) != usual
    assert model.governed.ceiling == 16

    forced.now = Readings(at_s=0, memory_pressure=0)
    for _ in range(40):
        governor.tick()
    assert limits(model) == usual
    assert (loaded.threads, model.governed.ceiling) == (4, 0)
    state.close()


def test_what_is_held_back_is_said_until_it_is_back(tmp_path: Path) -> None:
    """With the reason of each thing; for nothing there is nothing to say."""
    forced = Forced(Readings(at_s=0, throttled=0.5))
    _, governor = governed(fake_model(tmp_path, loaded=Threaded()), forced)
    assert governor.held_back == ""
    governor.tick()

    said = governor.held_back
    assert said.startswith("the governor holds answers back: threads from 4 to 3: the control")
    forced.now = Readings(at_s=0, throttled=0.0)
    for _ in range(8):
        governor.tick()
    assert governor.held_back == ""


def test_new_answers_keep_to_the_ceiling(tmp_path: Path) -> None:
    """What asks for more is told to come back; what asks for nothing gets what there is."""
    model = fake_model(tmp_path)
    state, governor = governed(model, Forced(SHORT_OF_MEMORY))
    while model.governed.ceiling != 16:
        governor.tick()

    with serving(state=state) as served, client_of(served) as client:
        answer = client.completions.create(model="toy", prompt="x")
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 16
        with pytest.raises(openai.InternalServerError, match="lacks memory"):
            client.completions.create(model="toy", prompt="x", max_tokens=100)
        with pytest.raises(openai.InternalServerError, match="lacks memory"):
            client.completions.create(model="toy", prompt="x" * 16)


def test_what_a_ceiling_cut_is_not_what_others_get_later(tmp_path: Path) -> None:
    """The exact cache keeps no answer that ended only because the device was short of memory."""
    model = fake_model(tmp_path)
    forced = Forced(SHORT_OF_MEMORY)
    state = ServerState([model], exact=ExactCache(None, most_bytes=10**6))
    governor = make_governor(state, AIMS, read=forced.read)
    while model.governed.ceiling != 16:
        governor.tick()

    with serving(state=state) as served, client_of(served) as client:
        cut = client.completions.create(model="toy", prompt="x").choices[0].text
        forced.now = Readings(at_s=0)
        while model.governed.ceiling:
            governor.tick()
        whole = client.completions.create(model="toy", prompt="x").choices[0].text

    assert whole.startswith(cut)
    assert len(whole) > len(cut)


def test_the_ceiling_counts_tokens_of_prompt_and_answer(tmp_path: Path) -> None:
    """To the last one; without a ceiling nothing changes."""
    part = fake_model(tmp_path).governed
    assert part.max_tokens(1000, None) is None

    part.govern(Setting(threads=1, context=100))
    assert part.max_tokens(40, 60) == 60
    assert part.max_tokens(40, None) == 60
    with pytest.raises(ResourceError, match="100 tokens"):
        part.max_tokens(40, 61)
    part.govern(Setting(threads=1, context=part.extent.context))
    assert part.max_tokens(1000, None) is None


def test_the_nearest_deadline_is_known(tmp_path: Path) -> None:
    """As long as its answer runs."""
    part = fake_model(tmp_path).governed
    assert part.nearest_deadline_s() is None

    with part.expecting(1e9), part.expecting(None), part.expecting(2e9):
        left = part.nearest_deadline_s()
        assert left is not None
        assert 0 < left < 1e9
    assert part.nearest_deadline_s() is None


def test_readings_settings_and_reasons_are_shown(tmp_path: Path) -> None:
    """At a path of their own, and as figures for Prometheus."""
    state, governor = governed(fake_model(tmp_path, saying("yes")), Forced(SHORT_OF_MEMORY))
    with serving(state=state) as served:
        governor.tick()
        shown = httpx2.get(f"{served.url}/v1/governor").json()
        metrics = httpx2.get(f"{served.url}/metrics").text

    assert shown["setting"]["context"] == 100
    assert shown["usual"]["context"] == 0
    assert [one["reason"] for one in shown["changes"]] == [
        "context from 0 to 100: work waits for memory 90% of the time"
    ]
    assert shown["history"][0]["memory_pressure"] == 0.9
    assert shown["history"][0]["setting"] == shown["setting"]
    assert {one["cause"] for one in shown["findings"] if one["presses"]} == {"memory"}
    assert "onhand_governor_context 100.0" in metrics
    assert "onhand_governor_read_memory_pressure 0.9" in metrics
    assert "onhand_governor_read_battery NaN" in metrics
    assert 'onhand_governor_changes_total{cause="memory",kind="context"} 1.0' in metrics


def test_without_a_governor_the_path_says_so(tmp_path: Path) -> None:
    """Nothing is adjusted."""
    with serving(fake_model(tmp_path)) as served:
        assert httpx2.get(f"{served.url}/v1/governor").json() == {"enabled": False}


def test_a_governor_reads_this_device_until_its_server_ends(tmp_path: Path) -> None:
    """In a thread of its own, which ends with the state."""
    state = ServerState([fake_model(tmp_path)])
    governor = start_governor(state, GovernorSettings(interval_s=0.1))
    while governor.readings is None:
        threading.Event().wait(0.01)
    state.close()

    assert (governor.readings.memory_available_bytes or 0) > 0
    assert not any(one.name == "onhand-governor" for one in threading.enumerate())


class Elsewhere:
    """What gives a share of answers to others, and knows variants."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.variants: list[str | None] = []

    def use_cloud_share(self, share: float) -> None:
        """See `SharesOut`."""
        self.shares.append(share)

    def govern_variant(self, name: str | None) -> None:
        """See `PrefersVariant`."""
        self.variants.append(name)


def test_routers_and_shelves_are_told(tmp_path: Path) -> None:
    """The share that goes elsewhere, and the variant of new answers by its name."""
    elsewhere = Elsewhere()
    aims = GovernorSettings(variants=("int4",), least_context=16)
    forced = Forced(SHORT_OF_MEMORY)
    governor = Governor(lambda: [elsewhere], aims, read=forced.read, processors=2)
    for _ in range(8):
        governor.tick()

    assert elsewhere.shares[-1] == 0.5
    assert elsewhere.variants[-1] == "int4"
    forced.now = Readings(at_s=0)
    for _ in range(8):
        governor.tick()
    assert elsewhere.shares[-1] == 0
    assert [*dict.fromkeys(elsewhere.variants)] == ["int4", None]


def test_a_model_that_comes_later_is_governed_as_if_it_had_been_there(tmp_path: Path) -> None:
    """What was not given up grows with it."""
    models: list[object] = []
    forced = Forced(Readings(at_s=0))
    governor = Governor(lambda: models, AIMS, read=forced.read, processors=4)
    governor.tick()
    loaded = Threaded()
    models.append(fake_model(tmp_path, loaded=loaded))
    governor.tick()

    assert (governor.setting.threads, governor.setting.max_active) == (4, 8)
    assert loaded.threads == 4
