"""One set of weights, many conversations: the same answers, and clear ownership."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.device.test_generate import (
    END,
    TEMPLATE,
    FakeLoaded,
    letters,
    mixing,
    saying,
    text_session,
    user,
)
from tests.device.test_opening import GoodEngine, Register, ToyLoaded, make_bundle, register

import onhand
from onhand.core.errors import EngineBusy, InputError
from onhand.device.generate import TextSession
from onhand.device.schedule import Limits
from onhand.device.template import ChatTemplate
from onhand.device.text_files import TextFiles
from onhand.device.text_model import TextModel

__all__ = ["register"]  # a fixture

FILES = TextFiles(tokenizer=letters(), template=ChatTemplate(TEMPLATE), stop_ids=frozenset({END}))


def text_model(loaded: FakeLoaded, limits: Limits = Limits()) -> TextModel:  # noqa: B008
    return TextModel(loaded, FILES, limits=limits)


def talk(session: TextSession, name: str) -> list[str]:
    """Three turns, each on top of those before it."""
    said = ""
    for i in range(3):
        said += f"{name}{i}"
        said += session.complete(said, max_tokens=7)
    return [said]


def test_conversations_do_not_meet() -> None:
    """Each in a thread of its own: as if the others were not there."""
    names = [f"person {i}, " for i in range(10)]
    with text_model(FakeLoaded(mixing), Limits(max_active=4)) as model:
        sessions = [model.session() for _ in names]
        with ThreadPoolExecutor(len(names)) as pool:
            found = list(pool.map(talk, sessions, names))

    assert found == [talk(text_session(FakeLoaded(mixing)), name) for name in names]


def test_a_session_alone_reuses_and_steps_as_one_that_owns_its_weights() -> None:
    """The very same steps, and no step more."""
    shared, own = FakeLoaded(mixing), FakeLoaded(mixing)
    with text_model(shared) as model:
        assert talk(model.session(), "a") == talk(text_session(own), "a")

    assert shared.fed == own.fed


def test_answers_read_in_turns_are_those_of_sessions_apart() -> None:
    """One thread may read several answers piece by piece."""
    with text_model(FakeLoaded(mixing)) as model:
        first = model.session().generate("abc", max_tokens=20)
        second = model.session().generate("xyz", max_tokens=20)
        pieces = list(zip(first, second, strict=True))

    for i, prompt in enumerate(("abc", "xyz")):
        alone = text_session(FakeLoaded(mixing)).complete(prompt, max_tokens=20)
        assert "".join(pair[i] for pair in pieces) == alone


def test_an_answer_left_early_frees_its_place() -> None:
    """By a stop string, by closing it, or by the next question; a later one is not disturbed."""
    limits = Limits(max_active=1, max_waiting=0)
    with text_model(FakeLoaded(saying("one STOP two")), limits) as model:
        session, other = model.session(), model.session()

        assert "".join(session.chat(user("?"), stop=["STOP"])) == "one "
        assert next(other.chat(user("?"))) == "o"
        with pytest.raises(EngineBusy, match="1 requests are open"):
            session.complete([user("?")])
        assert other.complete([user("?")]) == "one STOP two"
        assert session.complete([user("?")]) == "one STOP two"
        other.close()


def test_closing_a_session_leaves_the_weights() -> None:
    """They are the model's, and go with it."""
    loaded = FakeLoaded(mixing)
    model = text_model(loaded)
    with model.session(context=30) as first:
        assert first.context == 30
        first.generate("abc")
    assert not loaded.is_closed
    assert loaded.session_made is not None
    assert loaded.session_made.is_closed
    assert model.session().complete("abc", max_tokens=3)
    assert model.context == 200

    model.close()
    model.close()
    assert loaded.is_closed


def test_closing_the_model_ends_its_answers() -> None:
    """Those that are read are broken off with an error, later ones refused."""
    model = text_model(FakeLoaded(mixing))
    session = model.session()
    answer = session.generate("abc")
    next(answer)

    model.close()

    with pytest.raises(InputError, match="the model was closed before the answer ended"):
        list(answer)
    with pytest.raises(InputError, match="the batcher is closed"):
        session.complete("abc")


def test_a_bundle_is_opened_as_a_model(register: Register, tmp_path: Path) -> None:
    """With the engine that `open` would take, and limits as given."""
    register(onnx=GoodEngine)
    root = make_bundle(tmp_path / "a").root
    with onhand.open_model(root, threads=3, max_active=1, max_waiting=0) as model:
        assert (model.engine_name, model.passed_over) == ("onnx", {})
        answer = model.session(context=8).generate("a", max_tokens=2)
        next(answer)
        with pytest.raises(EngineBusy):
            model.session().complete("a", max_tokens=2)

    assert GoodEngine.asked == [("float", 3)]
    with pytest.raises(InputError, match="max_active is 0"):
        onhand.open_model(root, max_active=0)


def test_weights_are_released_if_the_model_cannot_begin(
    register: Register, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it lacks, nothing stays open."""

    def refuse(*_: object, **__: object) -> None:
        raise InputError("no more threads")

    register(onnx=GoodEngine)
    monkeypatch.setattr("onhand.device.opening.TextModel", refuse)
    ToyLoaded.closed = 0

    with pytest.raises(InputError, match="no more threads"):
        onhand.open_model(make_bundle(tmp_path / "b").root)

    assert ToyLoaded.closed == 1
