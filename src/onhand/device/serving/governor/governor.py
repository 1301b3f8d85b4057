"""The loop: reads once a second, decides, carries out, and remembers why."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from onhand.core.errors import OnhandError
from onhand.device.serving.governor.decisions import Change, Governed, adjust, value_of
from onhand.device.serving.governor.governed import (
    Governable,
    HoldsGovernable,
    PrefersVariant,
    SharesOut,
)
from onhand.device.serving.governor.pace import Baseline, TokenTimes
from onhand.device.serving.governor.readings import Readings
from onhand.device.serving.governor.setting import KINDS, Bounds, GovernorSettings, Setting
from onhand.device.step_log import BatchLoad

__all__ = ["Governor"]

_LOG = logging.getLogger("onhand.serving.governor")
_WINDOW_S = 8.0


class Governor:
    """Adjusts models to what their device can give. Start it, and close it before the models.

    Attributes:
        aims: what is to be kept to.
    """

    def __init__(
        self,
        models: Callable[[], Sequence[object]],
        aims: GovernorSettings,
        *,
        read: Callable[[], Readings],
        processors: int,
        changed: Callable[[Change], None] | None = None,
    ) -> None:
        """Look at the models once; change nothing yet.

        Args:
            models: what is served now; what is `HoldsGovernable`, `PrefersVariant` or `SharesOut`
                of it is adjusted.
            aims: what is to be kept to.
            read: what the device says.
            processors: of the machine, hyper-threads that share a core counted once.
            changed: told of every change.
        """
        self.aims = aims
        self._models = models
        self._read = read
        self._changed = changed or (lambda change: None)
        self._to = _bounds(models(), aims, processors)
        self._governed = Governed(setting=self._to.usual)
        self._times = TokenTimes(window_s=max(_WINDOW_S, 3 * aims.interval_s))
        self._baseline = Baseline()
        self._lock = threading.Lock()  # guards what others look at
        self._readings: deque[tuple[Readings, Setting]] = deque(maxlen=aims.history)
        self._changes: deque[Change] = deque(maxlen=aims.history)
        self._read_s: float | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def setting(self) -> Setting:
        """What is set."""
        return self._governed.setting

    @property
    def held_back(self) -> str:
        """What models usually do and do not now, and why; "" where nothing was given up."""
        with self._lock:
            setting, usual = self._governed.setting, self._to.usual
            changes = {change.kind: change.reason for change in self._changes}
        kinds = [kind for kind in KINDS if value_of(setting, kind) != value_of(usual, kind)]
        if not kinds:
            return ""
        told = "; ".join(changes.get(kind, kind) for kind in kinds)
        return f"the governor holds answers back: {told}"

    @property
    def readings(self) -> Readings | None:
        """The last ones; None before the first."""
        with self._lock:
            return self._readings[-1][0] if self._readings else None

    def start(self) -> None:
        """Begin to read, in a thread of its own: a change may wait for a long step to end."""
        if self.aims.enabled and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="onhand-governor", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Read no more; safe to call twice. What is set stays."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def tick(self) -> Change | None:
        """Read, decide and carry out, once.

        Returns:
            What changed.
        """
        models = self._models()
        governed = _governables(models)
        before = self._follow(models, governed)
        now = self._with_work(self._read(), governed, before.setting)
        after = adjust(before, now, self.aims, self._to)
        self._carry_out(after, models, governed)
        if after.change is not None:
            self._times.clear()
            _LOG.info("%s", after.change.reason)
            self._changed(after.change)
        with self._lock:
            self._governed = after
            self._readings.append((now, after.setting))
            if after.change is not None:
                self._changes.append(after.change)
        return after.change

    def described(self) -> dict[str, object]:
        """Return what is set and why, and what was read, for a page or a program."""
        with self._lock:
            governed, readings = self._governed, list(self._readings)
            changes = list(self._changes)
        return {
            "enabled": self.aims.enabled,
            "aims": asdict(self.aims),
            "setting": asdict(governed.setting),
            "usual": asdict(self._to.usual),
            "others_cpus": governed.others_cpus,
            "findings": [asdict(one) for one in governed.findings],
            "changes": [asdict(one) for one in changes],
            "history": [{**asdict(now), "setting": asdict(setting)} for now, setting in readings],
        }

    def _run(self) -> None:
        while not self._over.wait(self.aims.interval_s):
            try:
                self.tick()
            except OnhandError as error:  # as a model that closes meanwhile
                _LOG.warning("governor: %s", error)

    def _with_work(
        self, now: Readings, governed: Sequence[Governable], setting: Setting
    ) -> Readings:
        """Add what the models have to do."""
        loads: Mapping[str, BatchLoad] = {model.name: model.work() for model in governed}
        drifts: list[float] = []
        for name, load in loads.items():
            self._times.add(now.at_s, load.token_s)
            # What fewer threads or others do to steps is compared, and is no best to learn from.
            learns = setting.threads == self._to.usual.threads
            way = (name, setting.variant_step)
            if (drift := self._baseline.drift(way, load.step_s, learns=learns)) is not None:
                drifts.append(drift)
        self._times.add(now.at_s, ())
        if sum(load.n_active for load in loads.values()) > setting.max_active:
            self._times.clear()  # answers that had begun under a higher limit
        since_s = None if self._read_s is None else now.at_s - self._read_s
        self._read_s = now.at_s
        n_tokens = sum(len(load.token_s) for load in loads.values())
        left = [model.nearest_deadline_s() for model in governed]
        return replace(
            now,
            n_active=sum(load.n_active for load in loads.values()),
            n_waiting=sum(load.n_waiting for load in loads.values()),
            tokens_per_s=n_tokens / since_s if since_s else None,
            token_s=self._times.slow(),
            drift=max(drifts, default=None),
            deadline_s=min((one for one in left if one is not None), default=None),
        )

    def _follow(self, models: Sequence[object], governed: Sequence[Governable]) -> Governed:
        """Widen bounds by models that were opened since; what was not given up grows with them."""
        usual, before = self._to.usual, self._governed
        self._to = _grown(self._to, models, governed, self.aims)
        held, wider = before.setting, self._to.usual
        if wider == usual:
            return before
        setting = replace(
            held,
            threads=wider.threads if held.threads == usual.threads else held.threads,
            max_active=wider.max_active if held.max_active == usual.max_active else held.max_active,
            max_stall=wider.max_stall if held.max_stall == usual.max_stall else held.max_stall,
            speculation=held.speculation or (wider.speculation and not usual.speculation),
        )
        return replace(before, setting=setting)

    def _carry_out(
        self, after: Governed, models: Sequence[object], governed: Sequence[Governable]
    ) -> None:
        setting, change = after.setting, after.change
        for one in governed:
            one.govern(setting)
        step = setting.variant_step
        variant = self.aims.variants[step - 1] if step else None
        for model in models:
            if (
                isinstance(model, PrefersVariant)
                and change is not None
                and change.kind == "variant"
            ):
                model.govern_variant(variant)
            if isinstance(model, SharesOut):
                model.use_cloud_share(setting.cloud_share)


def _governables(models: Sequence[object]) -> list[Governable]:
    return [
        one for model in models if isinstance(model, HoldsGovernable) for one in model.governables()
    ]


def _bounds(models: Sequence[object], aims: GovernorSettings, processors: int) -> Bounds:
    usual = Setting(threads=1, max_active=1, max_stall=1.0)
    to = Bounds(usual=usual, processors=processors)
    return _grown(to, models, _governables(models), aims)


def _grown(
    to: Bounds, models: Sequence[object], governed: Sequence[Governable], aims: GovernorSettings
) -> Bounds:
    extents = [one.extent for one in governed]
    usual = replace(
        to.usual,
        threads=max([to.usual.threads, *(one.threads for one in extents)]),
        max_active=max([to.usual.max_active, *(one.max_active for one in extents)]),
        max_stall=max([to.usual.max_stall, *(one.max_stall for one in extents)]),
        speculation=any([to.usual.speculation, *(one.speculates for one in extents)]),
    )
    has_variants = any(isinstance(model, PrefersVariant) for model in models)
    return replace(
        to,
        usual=usual,
        context=max([to.context, *(one.context for one in extents)]),
        most_variant_step=len(aims.variants) if has_variants else 0,
        has_cloud=any(isinstance(model, SharesOut) for model in models),
    )
