"""Feedback of a server: taken in over HTTP, learned in idle time by a process of its own."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from onhand.core.errors import OnhandError
from onhand.device.serving.api.bodies import Body
from onhand.device.serving.api.replies import JsonReply
from onhand.device.serving.asks import Ask, Ending, Piece
from onhand.device.serving.feedback.child import LearningProcess, StartLearning, start_learning
from onhand.device.serving.feedback.idle import Decision, Moment, decide
from onhand.device.serving.feedback.pupils import Pupil, pupil_of
from onhand.device.serving.feedback.reading import read_feedback_request
from onhand.device.serving.feedback.recent import RecentAnswer, RecentAnswers
from onhand.device.serving.feedback.settings import LearningSettings
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.models.shelved import ShelvedModel, ShelvedNetwork
from onhand.device.serving.refusals import Refusal, RefusedRequest, not_for_model
from onhand.device.serving.state import ServerState, on_device
from onhand.device.threads import usable_threads

__all__ = ["HEALTH_KEYS", "FeedbackDesk", "no_feedback", "show_learning"]

HEALTH_KEYS: Final = (
    "version",
    "examples_waiting",
    "quarantined",
    "last_verdict",
    "is_learning",
    "held_by",
)
"""What is said of a model without a key."""
_LOG = logging.getLogger("onhand.serving.learning")
_TICK_S: Final = 1.0
_STATUS: Final = {"taken": 200, "quarantined": 202}


class FeedbackDesk:
    """What a server learns from. Of one event loop; see `Beside`.

    Attributes:
        recent: answers that can be rated by their id.
    """

    def __init__(
        self,
        state: ServerState,
        settings: LearningSettings,
        *,
        home: Path,
        start_child: StartLearning = start_learning,
        battery: Callable[[], tuple[float | None, bool | None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        tick_s: float = _TICK_S,
    ) -> None:
        """Put it together; `start` begins to look for idle time.

        Args:
            state: the models.
            settings: when and how they learn.
            home: the state folder.
            start_child: starts a process that learns.
            battery: charge from 0 to 1, and whether the device is on mains; None for this one's.
            clock: seconds that only grow.
            now: seconds since 1970.
            tick_s: seconds between two looks.
        """
        self._state = state
        self._settings = settings
        self._home = home
        self._start_child = start_child
        self._battery = battery or _own_battery
        self._clock = clock
        self._now = now
        self._tick_s = tick_s
        self._pupils: dict[tuple[str, str], Pupil | str] = {}
        self._task: asyncio.Task[None] | None = None
        self._learning: tuple[Pupil, LearningProcess, asyncio.Task[None]] | None = None
        self._is_told = False
        self._busy_s = clock()
        self._rested: dict[str, float] = {}
        self._decided: dict[str, Decision] = {}
        self.recent = RecentAnswers(
            most=settings.remember_answers,
            most_bytes=settings.remember_bytes,
            most_s=settings.remember_s,
            clock=clock,
        )
        self.n_trainings: dict[str, int] = {}

    async def start(self) -> None:
        """Begin to look for idle time."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; a training that runs is gone on with after the next start. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._learning is not None:
            _, process, ending = self._learning
            await process.end()
            await asyncio.gather(ending, return_exceptions=True)

    def noted(
        self,
        name: str,
        model: str,
        asks: Sequence[Ask],
        parts: AsyncGenerator[tuple[int, Piece | Ending]],
    ) -> AsyncGenerator[tuple[int, Piece | Ending]]:
        """Pass an answer on, and keep it so that it can be rated; see `RecentAnswers.noting`."""
        self._busy_s = self._clock()
        return self.recent.noting(name, model, asks, parts)

    async def give(
        self, body: Body, *, tenant: str, may_ask: Callable[[str], bool] = lambda name: True
    ) -> JsonReply:
        """Take feedback.

        Args:
            body: of the request.
            tenant: who asks.
            may_ask: whether a model of a name is one that it may teach.

        Returns:
            What became of it: taken (status 200), or in quarantine (202).

        Raises:
            RefusedRequest: if it says nothing that can be learned, or the model cannot.
            OnhandError: if it cannot be kept.
        """
        said = read_feedback_request(
            body, self.recent, tenant=tenant, now_s=self._now(), shown=self._shown
        )
        is_text = bool(said.feedback.messages)
        pupil = self._pupil(said.model, is_text=is_text or said.from_answer)
        if not may_ask(pupil.name):
            raise RefusedRequest(not_for_model())
        finding = await asyncio.to_thread(pupil.intake.give, said.feedback)
        if finding.outcome == "refused":
            raise RefusedRequest(
                Refusal(status=422, message=finding.reason, code="feedback_refused")
            )
        reply: dict[str, object] = {
            "id": said.feedback.id,
            "object": "feedback",
            "model": pupil.name,
            "outcome": finding.outcome,
        }
        if finding.reason:
            reply["reason"] = finding.reason
        return JsonReply(reply, status=_STATUS[finding.outcome])

    def described(self) -> Mapping[str, Mapping[str, object]]:
        """Return how all that can learn stands, by model."""
        learning = None if self._learning is None else self._learning[0].name
        return {
            pupil.name: {
                **pupil.described(),
                "is_learning": pupil.name == learning,
                "waits_for": decided.reason if decided else None,
                "held_by": decided.held_by if decided and decided.held_by else None,
            }
            for pupil in self.pupils()
            for decided in (self._decided.get(pupil.name),)
        }

    def processes(self) -> tuple[int, ...]:
        """Return the processes that learn now."""
        learning = self._learning
        return () if learning is None else (learning[1].process,)

    def is_held(self, name: str) -> bool:
        """Return whether examples of a model wait for the device alone."""
        decided = self._decided.get(name)
        return decided is not None and bool(decided.held_by)

    def pupils(self) -> list[Pupil]:
        """Return the models that can learn."""
        found = (self._found(model) for model in self._on_device())
        return [one for one in found if isinstance(one, Pupil)]

    async def tick(self) -> None:
        """Look once whether something is to begin or to end."""
        if self._state.n_active:
            self._busy_s = self._clock()
        for pupil in self.pupils():
            decision = decide(await asyncio.to_thread(self._moment, pupil), self._settings)
            self._note(pupil, decision)
            if decision.action == "start":
                await self._begin(pupil, decision.reason)
            elif decision.action == "stop" and self._learning is not None and not self._is_told:
                _LOG.info("model %s: learning pauses: %s", pupil.name, decision.reason)
                self._is_told = True
                self._learning[1].tell_to_end()

    def _note(self, pupil: Pupil, decision: Decision) -> None:
        """Keep what was decided, and say so where the device begins to hold learning back."""
        before = self._decided.get(pupil.name)
        self._decided[pupil.name] = decision
        is_new = before is None or before.held_by != decision.held_by
        if decision.held_by and is_new and decision.action == "leave":
            _LOG.info(
                "model %s: %d new examples wait: %s", pupil.name, pupil.n_new, decision.reason
            )

    async def _run(self) -> None:
        while True:
            try:
                await self.tick()
            except (OnhandError, OSError) as error:  # as a disk that is full for the moment
                _LOG.warning("learning: %s", error)
            await asyncio.sleep(self._tick_s)

    async def _begin(self, pupil: Pupil, reason: str) -> None:
        threads = self._settings.threads or max(1, usable_threads() // 2)
        process = await self._start_child(pupil.job(self._settings, self._home, threads=threads))
        self.n_trainings[pupil.name] = self.n_trainings.get(pupil.name, 0) + 1
        _LOG.info("model %s: learns: %s", pupil.name, reason)
        self._is_told = False
        ending = asyncio.create_task(self._follow(pupil, process))
        self._learning = (pupil, process, ending)

    async def _follow(self, pupil: Pupil, process: LearningProcess) -> None:
        said: Mapping[str, object] = {"ended": "failed", "why": "it was not heard of"}
        try:
            said = await process.ended()
        finally:
            self._learning = None
            if said.get("ended") != "interrupted":
                self._rested[pupil.name] = self._clock()
            self._log(pupil, said)
        if said.get("is_used"):
            await asyncio.to_thread(pupil.model.reload)

    def _log(self, pupil: Pupil, said: Mapping[str, object]) -> None:
        if said.get("is_used"):
            _LOG.info("model %s: version %s passed its gate", pupil.name, said.get("version"))
            if not said.get("is_judged"):
                _LOG.warning(
                    "model %s: nothing judged version %s: no example was held out or remembered "
                    "(held_out and remember of [learning])",
                    pupil.name,
                    said.get("version"),
                )
        elif said.get("ended") == "interrupted":
            _LOG.info("model %s: learning goes on later", pupil.name)
        else:
            reasons = said.get("reasons")
            why = "; ".join(map(str, reasons)) if isinstance(reasons, list) else said.get("why")
            _LOG.warning("model %s: learned nothing that is used: %s", pupil.name, why)

    def _moment(self, pupil: Pupil) -> Moment:
        charge, is_plugged = self._battery()
        governor = self._state.governor
        now = None if governor is None else governor.readings
        learning = None if self._learning is None else self._learning[0].name
        rested_s = self._rested.get(pupil.name)
        others = None if now is None else now.others_cpus
        return Moment(
            idle_s=0.0 if self._state.n_active else self._clock() - self._busy_s,
            n_new=pupil.n_new,
            is_learning=learning == pupil.name,
            is_other_learning=learning not in {None, pupil.name},
            rested_s=None if rested_s is None else self._clock() - rested_s,
            battery=charge,
            is_plugged=is_plugged,
            others_cpus=others,
            memory_pressure=None if now is None else now.memory_pressure,
            held_back="" if governor is None else governor.held_back,
            is_draining=self._state.is_draining,
        )

    def _on_device(self) -> list[ShelvedModel | ShelvedNetwork]:
        found = (on_device(model) for model in self._state.models.values())
        return [one for one in found if isinstance(one, ShelvedModel | ShelvedNetwork)]

    def _found(self, model: ShelvedModel | ShelvedNetwork) -> Pupil | str:
        # Another bundle in the same place is another pupil.
        key = (model.entry.name, model.entry.version.bundle_sha256)
        if key not in self._pupils:
            self._pupils[key] = pupil_of(model, home=self._home, settings=self._settings)
        return self._pupils[key]

    def _shown(self, answer: RecentAnswer) -> tuple[str, str]:
        """See `Shown`."""
        return self._pupil(answer.model, is_text=True).shown(answer)

    def _pupil(self, name: str | None, *, is_text: bool) -> Pupil:
        """Return the model that feedback is for.

        Raises:
            RefusedRequest: if there is none, or it cannot learn.
        """
        served = self._state.text_model(name) if is_text else self._state.network(name)
        model = on_device(served)
        found: Pupil | str = f"{served.name} is not on this device, and learns nothing here"
        if isinstance(model, ShelvedModel | ShelvedNetwork):
            found = self._found(model)
        if isinstance(found, str):
            raise RefusedRequest(Refusal(status=409, message=found, code="cannot_learn"))
        return found


def no_feedback() -> Refusal:
    """Return the refusal of feedback where nothing is learned."""
    message = "this server learns nothing: see [learning] in its settings"
    return Refusal(status=404, message=message, code="no_learning")


def show_learning(desk: FeedbackDesk, metrics: Metrics) -> None:
    """Show what models learn.

    Args:
        desk: whose.
        metrics: where.
    """

    def figure(value: Callable[[Pupil], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {pupil.name: value(pupil) for pupil in desk.pupils()}

    verdicts = {"accepted": 1.0, "refused": 0.0, "failed": -1.0}
    for name, text, value in (
        ("version", "Learned version that answers; 0: as built.", lambda one: one.version),
        ("examples_waiting", "Examples since the last training.", lambda one: one.n_new),
        ("examples_taken", "Examples that were taken.", lambda one: one.intake.n_taken),
        ("quarantined", "Feedback in quarantine.", lambda one: one.intake.n_held),
        ("refused", "Feedback refused since the start.", lambda one: one.intake.n_refused),
        (
            "last_verdict",
            "Of the last training: 1 accepted, 0 refused, -1 failed or none.",
            lambda one: verdicts.get(one.progressed().outcome, -1.0),
        ),
        (
            "held_back",
            "1 where enough examples wait and the device forbids to learn.",
            lambda one: float(desk.is_held(one.name)),
        ),
    ):
        metrics.family(f"onhand_learning_{name}", text, "model", figure(value))
    metrics.family(
        "onhand_learning_trainings",
        "Trainings that were begun or gone on with.",
        "model",
        lambda: dict(desk.n_trainings),
        is_count=True,
    )


def _own_battery() -> tuple[float | None, bool | None]:
    from onhand.device.hardware.power import battery_of

    found = battery_of()
    return (None, None) if found is None else (found.charge, found.is_plugged)
