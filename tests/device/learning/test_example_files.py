"""Training files: every form is read, every bad line is named, nothing is left out in silence."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.learning import example_files
from onhand.device.learning.example_files import read_examples
from onhand.device.learning.examples import (
    Dialogue,
    Example,
    Labelled,
    Opinion,
    PlainText,
    Preference,
)
from onhand.device.template import Message

ASKED = {"role": "user", "content": "lamp on"}
TOLD = {"role": "assistant", "content": "done"}
RULE = {"role": "system", "content": "short"}
USER, ANSWER = Message("user", "lamp on"), Message("assistant", "done")


def lines(path: Path, *tables: object) -> Path:
    """Write JSON lines."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in tables]
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


FORMS: list[tuple[dict[str, object], Example]] = [
    ({"messages": [ASKED, TOLD]}, Dialogue(messages=(USER, ANSWER), learned=(1,))),
    (
        {"messages": [RULE, ASKED, TOLD, ASKED, TOLD, ASKED]},
        Dialogue(messages=(Message("system", "short"), USER, ANSWER, USER, ANSWER), learned=(2, 4)),
    ),
    (
        {"prompt": "lamp on", "completion": "done"},
        Dialogue(messages=(USER, ANSWER), learned=(1,)),
    ),
    (
        {"prompt": [ASKED, TOLD, ASKED], "completion": "done"},
        Dialogue(messages=(USER, ANSWER, USER, ANSWER), learned=(3,)),
    ),
    (
        {"prompt": "lamp on", "chosen": "done", "rejected": "no"},
        Preference(prompt=(USER,), chosen="done", rejected="no"),
    ),
    (
        {"prompt": "lamp on", "completion": "no", "label": False},
        Opinion(prompt=(USER,), answer="no", is_liked=False),
    ),
    ({"text": "lamp on", "label": " light "}, Labelled(given="lamp on", label="light")),
    ({"text": "lamp on", "label": 3}, Labelled(given="lamp on", label="3")),
    ({"text": "all of this"}, PlainText(text="all of this")),
]


@pytest.mark.parametrize(("table", "example"), FORMS)
def test_each_form_of_a_line_is_read(
    tmp_path: Path, table: dict[str, object], example: Example
) -> None:
    """By its keys; blank lines are nothing."""
    path = lines(tmp_path / "data.jsonl", table, "", "  ")

    (found,) = read_examples(path).examples

    assert found.where == "data.jsonl: line 1"
    assert found == replace(example, where=found.where)


BAD: list[tuple[object, str]] = [
    ("{not json", "line 2: not JSON"),
    ('{"text": "a", "text": "b", "label": "x"}', "given twice"),
    ("[1, 2]", "no JSON object"),
    ({"question": "a"}, "are no example; give one of"),
    ({"messages": []}, "list of 1 to"),
    ({"messages": [ASKED]}, "no answer of the assistant"),
    ({"messages": [TOLD]}, "begin with an answer"),
    ({"messages": [{"role": "bird", "content": "x"}, TOLD]}, "role is 'bird'"),
    ({"messages": [{"role": "user"}, TOLD]}, "role and content"),
    ({"messages": [ASKED, TOLD | {"tool_calls": []}]}, "'tool_calls', which cannot be learned"),
    ({"prompt": "a", "completion": 5}, "completion is 5, must be a text"),
    ({"prompt": "a", "completion": " "}, "completion is empty"),
    ({"prompt": "a", "chosen": "b", "rejected": "b"}, "same answer"),
    ({"prompt": "a", "completion": "b", "label": "yes"}, "must be true or false"),
    ({"text": "a", "label": ""}, "must be a name"),
    ({"text": "a", "label": True}, "must be a name"),
    ({"path": "../secret.png", "label": "x"}, "inside of"),
    ({"path": "/etc/passwd", "label": "x"}, "inside of"),
    ({"path": "none.png", "label": "x"}, "is no file"),
]


@pytest.mark.parametrize(("bad", "sentence"), BAD)
def test_a_bad_line_is_named(tmp_path: Path, bad: object, sentence: str) -> None:
    """With its number and what is wrong; the good ones around it are not taken alone."""
    good = {"text": "a", "label": "x"}
    path = lines(tmp_path / "data.jsonl", good, bad, good)

    with pytest.raises(InputError, match="1 line cannot be used: line 2: ") as caught:
        read_examples(path)
    assert sentence in str(caught.value)


def test_many_bad_lines_are_counted_and_the_first_named(tmp_path: Path) -> None:
    """Nobody reads a thousand."""
    with pytest.raises(InputError, match=r"8 lines .*line 1: .*line 5: .*; and 3 more"):
        read_examples(lines(tmp_path / "data.jsonl", *["nothing"] * 8))


def test_keys_that_say_nothing_are_told(tmp_path: Path) -> None:
    """They are no error, and not taken in silence."""
    table = {"text": "a", "label": "x", "source": "me"}

    assert read_examples(lines(tmp_path / "data.jsonl", table, table)).notes == (
        "data.jsonl: 'source' is given in 2 lines and not used",
    )


@pytest.mark.parametrize(("name", "separator"), [("data.csv", ","), ("data.tsv", "\t")])
def test_tables_of_texts_are_read(tmp_path: Path, name: str, separator: str) -> None:
    """Columns in any order, quotes and line ends inside of them."""
    rows = ["Label,text", 'light,"lamp on,', 'please"', "heat,warmer"]
    if separator == "\t":
        rows = ["label\ttext", 'light\t"lamp on,', 'please"', "heat\twarmer"]
    path = tmp_path / name
    path.write_text("\ufeff" + "\n".join(rows) + "\n\n", encoding="utf-8")

    found = read_examples(path).examples

    assert [(one.given, one.label) for one in found if isinstance(one, Labelled)] == [
        ("lamp on,\nplease", "light"),
        ("warmer", "heat"),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,b\n1,2\n", "line 1 must name the columns text and label"),
        ("text,label\nx\n", "line 2: has 1 columns, the first line names 2"),
        ('text,label\n"x,y\n', "line 2"),
        ("", "line 1 must name"),
        ("text,label\n", "holds no example"),
    ],
)
def test_a_bad_table_is_told(tmp_path: Path, content: str, sentence: str) -> None:
    """With the line."""
    path = tmp_path / "data.csv"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(InputError, match=sentence):
        read_examples(path)


def test_a_text_is_one_example(tmp_path: Path) -> None:
    """The whole of it."""
    path = tmp_path / "diary.txt"
    path.write_text("one\n\ntwo\n", encoding="utf-8")

    assert read_examples(path).examples == (PlainText(text="one\n\ntwo\n", where="diary.txt"),)


def test_a_folder_for_each_class_is_read(tmp_path: Path) -> None:
    """In an order of its own, not the disk's; hidden files are none."""
    for name in ("b/2.npy", "b/1.wav", "a/3.png", ".git/x.png", "a/.hidden"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")

    found = read_examples(tmp_path).examples

    assert [(one.where, one.label) for one in found if isinstance(one, Labelled)] == [
        ("a/3.png", "a"),
        ("b/1.wav", "b"),
        ("b/2.npy", "b"),
    ]


@pytest.mark.parametrize("name", ["readme.txt", "a/readme.txt", "a/deep/1.png"])
def test_a_folder_with_something_else_is_refused(tmp_path: Path, name: str) -> None:
    """It would be left out in silence."""
    for one in ("a/1.png", name):
        path = tmp_path / one
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    with pytest.raises(InputError, match="one folder for each class"):
        read_examples(tmp_path)


def test_paths_are_those_beside_the_list(tmp_path: Path) -> None:
    """A list of pictures lies in their folder."""
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", np.zeros((2, 2, 3), np.uint8))

    (found,) = read_examples(
        lines(tmp_path / "list.jsonl", {"path": "in/a.npy", "label": "cup"})
    ).examples

    assert isinstance(found, Labelled)
    assert found.given == tmp_path / "in" / "a.npy"


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, of another kind, too large, not UTF-8, empty."""
    with pytest.raises(InputError, match=r"cannot be read"):
        read_examples(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="not known by its name"):
        read_examples(tmp_path / "data.xlsx")
    (tmp_path / "bad.txt").write_bytes(b"fine\nfine\n\xff\n")
    with pytest.raises(InputError, match="line 3: is not UTF-8"):
        read_examples(tmp_path / "bad.txt")
    (tmp_path / "blank.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no example"):
        read_examples(tmp_path / "blank.txt")
    monkeypatch.setattr(example_files, "MOST_FILE_BYTES", 3)
    with pytest.raises(InputError, match="over 3 bytes"):
        read_examples(tmp_path / "bad.txt")


@given(content=st.binary(max_size=200))
def test_any_bytes_are_examples_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Never another error."""
    path = tmp_path_factory.mktemp("fuzz") / "data.jsonl"
    path.write_bytes(content)
    told = str(path)
    try:
        found = len(read_examples(path).examples)
    except InputError as error:
        found, told = 1, str(error)

    assert found
    assert str(path) in told
