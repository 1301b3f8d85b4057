"""A conversation whose prompts are answered with what was learned, or without it."""

import numpy as np
import pytest
from tests.core.test_scope import scope_for
from tests.device.test_generate import FakeLoaded, letters, mixing
from tests.device.toy_model import TakesAdapters

from onhand.core.adapter import Adapter
from onhand.core.errors import InputError
from onhand.device.engines.base import Session
from onhand.device.generate import TextSession
from onhand.device.tracks import AS_BUILT, let_leave_out


class Adapting(TakesAdapters, FakeLoaded):
    """A model that can leave out what it was opened with."""

    def __init__(self) -> None:
        """Begin without any adapter."""
        super().__init__(mixing)
        self.added: dict[str, Adapter] = {}
        self.begun: list[str | None] = []

    def session(  # type: ignore[explicit-override] # Python 3.11 has no word for it
        self, *, context: int | None = None, adapter: str | None = None
    ) -> Session:
        """See `AdaptingLoaded`."""
        assert adapter is None or adapter in self.added
        self.begun.append(adapter)
        return super().session(context=context)


def test_prompts_beyond_the_scope_have_a_session_of_their_own() -> None:
    """Begun when the first one comes, and gone on with by the next."""
    loaded = Adapting()
    let_leave_out(loaded, "native", "version 1")
    session = TextSession(loaded, letters(), scope=scope_for("water the tulips"))

    asked = ("water the tulips", "lock the door", "lock the doors", "Water the Tulips")
    reused = []
    for text in asked:
        session.complete(text, max_tokens=1)
        reused.append(session.generate(text, max_tokens=1).reused_tokens)

    assert loaded.begun == [None, AS_BUILT]
    # All but the last token was known the second time.
    assert reused == [len(text) - 1 for text in asked]
    session.close()
    assert loaded.is_closed


def test_without_a_scope_there_is_one_session() -> None:
    """Nothing is begun twice."""
    loaded = Adapting()
    session = TextSession(loaded, letters())

    session.complete("water the tulips", max_tokens=1)
    session.complete("lock the door", max_tokens=1)

    assert loaded.begun == [None]


def test_leaving_out_is_prepared_once() -> None:
    """A second version finds it there, and it adds nothing."""
    loaded = Adapting()

    let_leave_out(loaded, "native", "version 1")
    let_leave_out(loaded, "native", "version 2")

    assert list(loaded.added) == [AS_BUILT]
    assert dict(loaded.added[AS_BUILT].pairs) == {}


def test_an_engine_with_one_adapter_is_refused_by_name() -> None:
    """And what to take instead."""
    with pytest.raises(InputError, match=r"version 3 .* engine 'onnx' cannot .* take 'native'"):
        let_leave_out(FakeLoaded(mixing), "onnx", "version 3")


def test_answers_do_not_depend_on_what_was_asked_in_the_other_session() -> None:
    """In turn or alone, the memory is the prompt's own."""
    texts = ["water the tulips", "lock the door", "water the tulips!", "lock it"]

    def said(*asked: str) -> list[str]:
        loaded = Adapting()
        let_leave_out(loaded, "native", "version 1")
        session = TextSession(loaded, letters(), scope=scope_for("water the tulips"))
        return [session.complete(text, max_tokens=4) for text in asked]

    assert said(*texts) == [said(text)[0] for text in texts]
    assert np.unique(said(*texts)).size > 1
