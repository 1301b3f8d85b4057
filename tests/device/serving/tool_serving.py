"""A server of models that call tools, and the official client's requests to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from tests.device.serving.served import client_of, serving
from tests.device.test_generate import FakeLoaded
from tests.device.test_opening import make_bundle
from tests.device.tools.families import (
    END,
    TEMPLATES,
    lamp_tools,
    tokenizer_content,
    tokenizer_of,
)

from onhand.device.opening import OpenedBundle
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.settings import ModelSettings
from onhand.device.template import ChatTemplate
from onhand.device.text_files import TextFiles

__all__ = ["ASK", "CALL", "FLAT_TOOLS", "TOOLS", "chat", "client_for", "model_of"]

ASK: dict[str, object] = {"role": "user", "content": "lights"}
FUNCTIONS = [tool.described() for tool in lamp_tools()]
TOOLS: list[Any] = [{"type": "function", "function": one} for one in FUNCTIONS]
FLAT_TOOLS: list[Any] = [{"type": "function", **one} for one in FUNCTIONS]
CALL = '<tool_call>\n{"name": "lamp", "arguments": {"room": "hall", "on": true}}\n</tool_call>'


def model_of(place: Path, loaded: FakeLoaded, *, family: str = "hermes") -> LocalModel:
    """A model of a family, that says what is given."""
    opened = OpenedBundle(
        bundle=make_bundle(place / "toy", tokenizer_json=tokenizer_content()),
        files=TextFiles(
            tokenizer=tokenizer_of(),
            template=ChatTemplate(TEMPLATES[family]),
            stop_ids=frozenset({END}),
        ),
        loaded=loaded,
        engine_name="fake",
        passed_over={},
    )
    return LocalModel(opened, ModelSettings(bundle=str(place / "toy"), name="toy"))


@contextmanager
def client_for(
    place: Path, loaded: FakeLoaded, *, family: str = "hermes"
) -> Iterator[openai.OpenAI]:
    with (
        serving(model_of(place, loaded, family=family)) as served,
        client_of(served) as client,
    ):
        yield client


def chat(client: openai.OpenAI, **more: Any) -> Any:
    asked: dict[str, Any] = {"model": "toy", "messages": [ASK], "tools": TOOLS}
    return client.chat.completions.create(**(asked | more))
