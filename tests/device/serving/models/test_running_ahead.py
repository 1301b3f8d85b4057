"""What an answer computed before its reader had enough of it is not remembered."""

import threading
from pathlib import Path

import pytest
from tests.device.serving.served import fake_model

from onhand.device.serving.asks import Ask, Piece
from onhand.device.serving.models.local import LocalModel


def said(model: LocalModel, prompt: str, *stop: str) -> str:
    """An answer, read by this thread."""
    ask = Ask(tenant="one", prompt=prompt, max_tokens=40, stop=stop)
    pieces: list[Piece] = []
    model.read(ask, model.begin(ask, is_wanted=lambda: True), pieces.append)
    return "".join(piece.text for piece in pieces)


def test_a_conversation_goes_on_from_what_was_read(tmp_path: Path) -> None:
    """Beside another request an answer runs ahead of its reader, past the text that ends it."""
    first, fresh = "x" * 20, fake_model(tmp_path, name="fresh")
    whole = said(fresh, first)
    model = fake_model(tmp_path)
    ask = Ask(tenant="one", prompt=first, max_tokens=40, stop=(whole[3:6],))
    other = Ask(tenant="two", prompt="y" * 20, max_tokens=40)
    begun, beside = (model.begin(one, is_wanted=lambda: True) for one in (ask, other))
    for _ in range(1000):
        if begun.session.length >= 30:
            break
        threading.Event().wait(0.01)
    else:
        pytest.fail("the answer does not run ahead")
    model.read(ask, begun, lambda piece: None)
    beside.request.close()

    assert said(model, first + whole[:8]) == said(fresh, first + whole[:8])
    assert said(model, first + whole[:4] + "other") == said(fresh, first + whole[:4] + "other")
    model.close()
    fresh.close()
