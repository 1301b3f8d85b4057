"""A toy language model that says which of its learned versions answers."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tests.device.learning.test_in_use import learning_bundle
from tests.device.test_generate import END, OPEN, TEMPLATE, FakeLoaded, letters, saying
from tests.device.toy_model import TakesAdapters, ToySession

from onhand.core.adapter import Adapter
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import read_bundle
from onhand.core.errors import InputError
from onhand.device.engines.base import Session
from onhand.device.learning.in_use import choose_version, learned_adapter
from onhand.device.opening import OpenedBundle
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.models.memory import SessionMemory, UnboundedMemory
from onhand.device.serving.settings import ModelSettings
from onhand.device.template import ChatTemplate
from onhand.device.text_files import TextFiles

__all__ = ["FixedLoaded", "TaughtLoaded", "Teaching", "learning_bundle"]


def _said(adapter: Adapter | None) -> str:
    """What a model with an adapter says: a letter for what it adds."""
    if adapter is None or not adapter.pairs:
        return "base"
    return "learned " + "abcdefgh"[int(adapter.pairs["layers.0.out"][1][0, 0]) % 8]


class _Session(ToySession):
    """Keeps what its adapter says for life."""

    def __init__(self, context: int, says: str) -> None:
        super().__init__(context)
        self.says = says

    def fork(self) -> Session:  # type: ignore[explicit-override] # Python 3.11 has no word for it
        """See `Session`."""
        forked = _Session(self.context, self.says)
        forked.tokens = list(self.tokens)
        return forked


class FixedLoaded(FakeLoaded):
    """Answers with the adapter that it was opened with; see `Loaded`."""

    def __init__(self, adapter: Adapter | None, steps: threading.Event) -> None:
        super().__init__(saying(""))
        self.opened_with = adapter
        self.steps = steps
        self.sessions: list[_Session] = []

    def session(  # type: ignore[explicit-override] # likewise
        self, *, context: int | None = None
    ) -> Session:
        """See `Loaded`."""
        return self.made(context, self.opened_with)

    def made(self, context: int | None, adapter: Adapter | None) -> Session:
        """A session that says what an adapter says."""
        self.sessions.append(_Session(context or self.context, _said(adapter)))
        return self.sessions[-1]

    def step(  # type: ignore[explicit-override] # likewise
        self, batch: Sequence[tuple[Session, TokenArray]]
    ) -> FloatArray:
        """See `Loaded`."""
        rows = np.ones((len(batch), self.vocab_size), dtype=np.float32)
        for row, (session, tokens) in zip(rows, batch, strict=True):
            assert isinstance(session, _Session)
            session.tokens += tokens.tolist()
            if OPEN in session.tokens:
                opened = max(i for i, token in enumerate(session.tokens) if token == OPEN)
                if len(session.tokens) > opened + 3:
                    assert self.steps.wait(20)
                row[saying(session.says)(session.tokens)] = 9
            else:
                row[END] = 9
        return rows


class TaughtLoaded(TakesAdapters, FixedLoaded):
    """Takes adapters while it runs; see `AdaptingLoaded`."""

    def __init__(self, adapter: Adapter | None, steps: threading.Event) -> None:
        super().__init__(adapter, steps)
        self.added: dict[str, Adapter] = {}

    def session(  # type: ignore[explicit-override] # likewise
        self, *, context: int | None = None, adapter: str | None = None
    ) -> Session:
        """See `AdaptingLoaded`."""
        if adapter is None:
            return self.made(context, self.opened_with)
        if adapter not in self.added:
            raise InputError(f"there is no adapter {adapter!r}")
        return self.made(context, self.added[adapter])


@dataclass(slots=True)
class Teaching:
    """Opens toy bundles with the learned version that settings name; see `OpenServed`.

    Attributes:
        kind: of the weights: `TaughtLoaded` or `FixedLoaded`.
        loaded: all that were opened, in this order.
        steps: answers wait for it after two letters.
    """

    kind: type[FixedLoaded] = TaughtLoaded
    loaded: list[FixedLoaded] = field(default_factory=list)
    steps: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.steps.set()

    def __call__(
        self,
        settings: ModelSettings,
        *,
        home: Path | None,
        memory: SessionMemory = UnboundedMemory(),  # noqa: B008 (it has no state)
    ) -> LocalModel:
        """Open one."""
        bundle = read_bundle(Path(settings.bundle))
        learned, version = choose_version(bundle, home, settings.version_number)
        adapter = None
        if version is not None and home is not None:
            adapter = learned_adapter(bundle, home, version)
        self.loaded.append(self.kind(adapter, self.steps))
        opened = OpenedBundle(
            bundle=bundle,
            files=TextFiles(
                tokenizer=letters(), template=ChatTemplate(TEMPLATE), stop_ids=frozenset({END})
            ),
            loaded=self.loaded[-1],
            engine_name="reference",
            passed_over={},
            learned=learned,
        )
        return LocalModel(opened, settings, memory=memory)
