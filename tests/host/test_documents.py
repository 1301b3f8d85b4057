"""Texts and conversations that calibrate: read line by line, refused with the line's number."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.models import DECODER, sample_text, tokenizer_json

from onhand.core.errors import InputError
from onhand.device.template import ChatTemplate, Message
from onhand.device.text import Tokenizer, open_tokenizer
from onhand.host.documents import encode_documents, read_documents
from onhand.host.texts import split_texts

TEMPLATE = ChatTemplate(
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


def tokenizer() -> Tokenizer:
    """The tiny models' own."""
    return open_tokenizer(tokenizer_json(), bos_token=None, add_bos=None, where="tiny")


def chat(*contents: str) -> dict[str, object]:
    """A line with a conversation."""
    roles = ("user", "assistant")
    return {
        "messages": [
            {"role": roles[i % 2], "content": content} for i, content in enumerate(contents)
        ]
    }


def written(folder: Path, *lines: object, name: str = "talks.jsonl") -> Path:
    """A file of JSON lines."""
    path = folder / name
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    return path


def test_lines_are_texts_and_conversations(tmp_path: Path) -> None:
    """In their order; blank lines are nothing."""
    path = written(tmp_path, {"text": "turn on", "id": 7}, chat("the light", "done"))

    assert read_documents(path) == [
        "turn on",
        (Message("user", "the light"), Message("assistant", "done")),
    ]


def test_any_other_name_is_a_text(tmp_path: Path) -> None:
    """Even if it looks like JSON."""
    path = written(tmp_path, {"text": "turn on"}, name="talks.txt")

    assert read_documents(path) == '{"text": "turn on"}\n\n'


def test_conversations_go_through_the_template(tmp_path: Path) -> None:
    """With their special tokens, and without an answer begun."""
    documents = read_documents(written(tmp_path, {"text": "turn on"}, chat("the light", "done")))
    assert not isinstance(documents, str)

    ids = encode_documents(documents, tokenizer(), TEMPLATE)

    spoken = "<s>user: the light</s><s>assistant: done</s>"
    expected = [*tokenizer().encode_plain("turn on"), *tokenizer().encode_template(spoken)]
    assert ids.tolist() == [int(token) for token in expected]


def test_both_parts_have_documents_of_their_own(tmp_path: Path) -> None:
    """No conversation is in both, however few there are."""
    lines = [chat(sample_text(60, seed=seed), "done") for seed in range(10)]
    path = written(tmp_path, *lines)

    texts = split_texts(tokenizer(), path, DECODER, max_tokens=10**6, template=TEMPLATE)
    two = split_texts(
        tokenizer(), written(tmp_path, *lines[:2]), DECODER, max_tokens=10**6, template=TEMPLATE
    )

    documents = read_documents(written(tmp_path, *lines))
    assert not isinstance(documents, str)
    whole = encode_documents(documents[:7], tokenizer(), TEMPLATE)
    got = np.concatenate(texts.calibration.sequences)
    np.testing.assert_array_equal(got, whole[: got.size])
    assert whole.size - got.size < 64
    assert two.heldout.n_tokens > 10


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '"turn on"',
        '{"text": 3}',
        '{"text": " "}',
        '{"text": "a", "messages": [{"role": "user", "content": "b"}]}',
        '{"messages": []}',
        '{"messages": ["turn on"]}',
        '{"messages": [{"role": "user"}]}',
        '{"messages": [{"role": "stranger", "content": "a"}]}',
        '{"messages": [{"role": "user", "content": ["a"]}]}',
        "[" * 100_000,
    ],
)
def test_attack_a_line_that_is_neither(tmp_path: Path, line: str) -> None:
    """The sentence names file and line."""
    path = tmp_path / "talks.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n', encoding="utf-8")

    with pytest.raises(InputError, match=r"talks\.jsonl, line 2: "):
        read_documents(path)


def test_conversations_need_a_template() -> None:
    """A base model has none."""
    talk = (Message("user", "turn on"),)

    with pytest.raises(InputError, match="document 2 is a conversation, and the model has no chat"):
        encode_documents(["turn on", talk], tokenizer(), None)


def test_a_template_that_refuses_names_the_document() -> None:
    """As some refuse two questions in a row."""
    strict = ChatTemplate("{{ raise_exception('roles must alternate') }}")

    with pytest.raises(InputError, match=r"document 1: .*roles must alternate"):
        encode_documents([(Message("user", "on"),)], tokenizer(), strict)


def test_one_document_cannot_judge_itself(tmp_path: Path) -> None:
    """Nothing would be left to hold out."""
    with pytest.raises(InputError, match="has one document"):
        split_texts(tokenizer(), written(tmp_path, {"text": "turn on"}), DECODER, max_tokens=100)
