"""Shelves of toy bundles: what a bundle's model says stands in a file of the bundle."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.device.test_generate import END, OPEN, TEMPLATE, FakeLoaded, letters, saying
from tests.device.test_opening import make_bundle

from onhand.core.bundle import read_bundle
from onhand.device.opening import OpenedBundle
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.models.memory import SessionMemory
from onhand.device.serving.models.shelf import Shelf
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.models.versions import Entry
from onhand.device.serving.settings import ModelSettings
from onhand.device.template import ChatTemplate
from onhand.device.text_files import TextFiles

__all__ = ["Clock", "Openings", "bundle_saying", "entry_of", "shelf_of", "swap"]

_FREE_TOKENS = 6


@dataclass(slots=True)
class Clock:
    """Seconds that pass when a test says so."""

    now_s: float = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@dataclass(slots=True)
class Openings:
    """Opens toy bundles, and remembers which.

    Attributes:
        made: NAME:VARIANT of all that were opened, in this order.
        loaded: their weights.
        failing: names whose opening fails.
        gate: opening waits for it.
        steps: answers wait for it after a few tokens.
    """

    made: list[str] = field(default_factory=list)
    loaded: list[FakeLoaded] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    steps: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.steps.set()

    def __call__(
        self, settings: ModelSettings, *, home: Path | None, memory: SessionMemory
    ) -> LocalModel:
        """Open one."""
        assert self.gate.wait(20)
        bundle = read_bundle(Path(settings.bundle))
        self.made.append(f"{settings.name}:{settings.variant}")
        if settings.name in self.failing:
            raise RuntimeError("out of luck")
        said = saying(bundle.path("answer.txt").read_text())

        def rule(tokens: list[int]) -> int:
            if OPEN not in tokens:
                return 0  # the first step is for nobody, and of any token
            if len(tokens) > _FREE_TOKENS:
                assert self.steps.wait(20)
            return said(tokens)

        self.loaded.append(FakeLoaded(rule))
        opened = OpenedBundle(
            bundle=bundle,
            files=TextFiles(
                tokenizer=letters(), template=ChatTemplate(TEMPLATE), stop_ids=frozenset({END})
            ),
            loaded=self.loaded[-1],
            engine_name="reference",
            passed_over={},
        )
        return LocalModel(opened, settings, memory=memory)


def bundle_saying(root: Path, text: str) -> Path:
    """A bundle of two variants, "float" and "other", whose model says one text."""
    root.parent.mkdir(parents=True, exist_ok=True)
    return make_bundle(root, answer_txt=text.encode()).root


def swap(root: Path, text: str) -> None:
    """Put another bundle in the place of one, as an update does."""
    beside, old = root.with_name(f"{root.name}.new"), root.with_name(f"{root.name}.old")
    bundle_saying(beside, text)
    root.rename(old)
    beside.rename(root)


def shelf_of(
    openings: Openings,
    *,
    memory_bytes: int = 2**30,
    clock: Clock | None = None,
    settings: ShelfSettings | None = None,
    has_thread: bool = False,
) -> Shelf:
    """A shelf of toy bundles that measures nothing, so that what is predicted counts."""
    more = {} if clock is None else {"clock": clock}
    return Shelf(
        settings or ShelfSettings(watch_s=0.0),
        memory_bytes=memory_bytes,
        open_model=openings,
        resident=lambda: 0,
        has_thread=has_thread,
        **more,  # type: ignore[arg-type] # a clock
    )


def entry_of(shelf: Shelf, place: Path, *, says: str = "yes", **settings: object) -> Entry:
    """A toy bundle on a shelf, called as its folder."""
    root = place if place.exists() else bundle_saying(place, says)
    given = ModelSettings(bundle=str(root), name=place.name, **settings)  # type: ignore[arg-type]
    return shelf.add(given)
