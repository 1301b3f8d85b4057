"""The device's own state: kept whole, found by the bundle's hash, never outside its folder."""

import json
import threading
from pathlib import Path

import pytest

from onhand.core.errors import InputError, ResourceError
from onhand.device.state import (
    default_home,
    recall,
    recall_bytes,
    remember,
    remember_bytes,
    write_text_atomically,
)

KEY = "ab" * 32


def kept(home: Path) -> Path:
    """The one file that a test has kept."""
    (path,) = home.rglob("*.json")
    return path


@pytest.mark.parametrize("value", [None, 1.5, "text", [1, {"a": True}], {"engine": "onnx"}])
def test_what_is_kept_comes_back(home: Path, value: object) -> None:
    """Any JSON value, in a folder that did not exist."""
    remember(home, KEY, "engine-choice", value)

    assert recall(home, KEY, "engine-choice") == value


def test_what_was_never_kept_is_none(home: Path) -> None:
    """Neither asking nor a missing folder is an error, and asking makes no folder."""
    assert recall(home, KEY, "engine") is None
    assert not home.exists()


def test_bundles_and_names_do_not_mix(home: Path) -> None:
    """Each bundle and each name has a value of its own; the last one counts."""
    for key, name, value in [(KEY, "a", 1), (KEY, "b", 2), ("cd" * 32, "a", 3), (KEY, "a", 4)]:
        remember(home, key, name, value)

    assert [recall(home, KEY, "a"), recall(home, KEY, "b"), recall(home, "cd" * 32, "a")] == [
        4,
        2,
        3,
    ]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "A", "a.json", "a" * 65])
def test_attack_name_outside(home: Path, name: str) -> None:
    """A name is one plain word: it cannot reach another folder."""
    with pytest.raises(InputError, match="state: name"):
        remember(home, KEY, name, 1)
    with pytest.raises(InputError, match="state: name"):
        recall(home, KEY, name)
    assert not home.exists()


@pytest.mark.parametrize("key", ["", "..", "AB" * 32, "ab" * 31, "../" + "a" * 61, KEY + "\n"])
def test_attack_key_outside(home: Path, key: str) -> None:
    """A key is a SHA-256 and nothing else."""
    with pytest.raises(InputError, match="is not a SHA-256"):
        remember(home, key, "a", 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"value": 1}', b"\xff\xfe", b"[" * 9999])
def test_a_damaged_file_is_named(home: Path, content: bytes) -> None:
    """The error says which file to remove, and keeping a value again heals it."""
    remember(home, KEY, "a", 1)
    kept(home).write_bytes(content)

    with pytest.raises(InputError, match=r"a\.json: damaged state .*; remove the file"):
        recall(home, KEY, "a")
    remember(home, KEY, "a", 2)
    assert recall(home, KEY, "a") == 2


def test_attack_a_file_too_large(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is far larger than any state is not read whole."""
    remember(home, KEY, "a", "x" * 1000)
    monkeypatch.setattr("onhand.device.state.MAX_STATE_BYTES", 999)

    with pytest.raises(InputError, match="it is over 999 bytes"):
        recall(home, KEY, "a")


def test_a_folder_in_the_place_of_a_file(home: Path) -> None:
    """What cannot be read is named."""
    (home / "state" / KEY / "a.json").mkdir(parents=True)

    with pytest.raises(InputError, match=r"a\.json: cannot be read"):
        recall(home, KEY, "a")


def test_a_later_format_is_refused(home: Path) -> None:
    """State of a newer onhand is not guessed at."""
    remember(home, KEY, "a", 1)
    kept(home).write_text(json.dumps({"format": 2, "value": 1}))

    with pytest.raises(InputError, match="format 2, this reader knows 1"):
        recall(home, KEY, "a")


@pytest.mark.parametrize("value", [object(), float("nan"), {"a": b"bytes"}])
def test_what_json_cannot_hold_is_refused(home: Path, value: object) -> None:
    """Nothing is written then, and what was there stays."""
    remember(home, KEY, "a", "before")

    with pytest.raises(InputError, match="is not JSON"):
        remember(home, KEY, "a", value)
    assert recall(home, KEY, "a") == "before"


def test_two_writers_never_leave_half_a_file(home: Path) -> None:
    """Whoever reads while two write sees one whole value or the other, and no litter stays."""
    values = ["x" * 50_000, "y" * 90_000]
    remember(home, KEY, "a", values[0])

    def write(value: str) -> None:
        for _ in range(15):
            remember(home, KEY, "a", value)

    writers = [threading.Thread(target=write, args=(value,)) for value in values]
    for writer in writers:
        writer.start()
    seen = {str(recall(home, KEY, "a")) for _ in range(100)}
    for writer in writers:
        writer.join()

    assert seen <= set(values)
    assert [path.name for path in (home / "state" / KEY).iterdir()] == ["a.json"]


def test_a_folder_that_cannot_be_made(home: Path) -> None:
    """A file where the folder should be is one clear sentence."""
    home.write_text("in the way")

    with pytest.raises(ResourceError, match="cannot be made"):
        remember(home, KEY, "a", 1)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """A place that cannot be replaced, such as a folder, is an error and leaves no litter."""
    (tmp_path / "place" / "inside").mkdir(parents=True)

    with pytest.raises(ResourceError, match="cannot be written"):
        write_text_atomically(tmp_path / "place", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


@pytest.mark.parametrize(
    ("system", "end"),
    [
        ("linux", ".local/state/onhand"),
        ("darwin", "Library/Application Support/onhand"),
        ("win32", "AppData/Local/onhand"),
    ],
)
def test_the_usual_folder_of_each_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, end: str
) -> None:
    """Below the user's own folder; it is not made by asking."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)

    assert default_home(system) == tmp_path / end
    assert not default_home(system).exists()


def test_a_user_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service account may have none: the error says so."""

    def nowhere() -> Path:
        raise RuntimeError("could not determine home directory")

    monkeypatch.setattr(Path, "home", nowhere)

    with pytest.raises(ResourceError, match="no home folder"):
        default_home("linux")


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 99])
def test_bytes_come_back_to_whoever_made_them(home: Path, content: bytes) -> None:
    """And to nobody else: another version asks for its own."""
    remember_bytes(home, KEY, "compiled", content, made_by="version 1")

    assert recall_bytes(home, KEY, "compiled", made_by="version 1") == content
    assert recall_bytes(home, KEY, "compiled", made_by="version 2") is None
    assert recall_bytes(home, KEY, "other", made_by="version 1") is None
    assert recall_bytes(home / "no", KEY, "compiled", made_by="version 1") is None
    assert recall(home, KEY, "compiled") is None


@pytest.mark.parametrize("place", [0, 31, 32, -1])
def test_attack_damaged_bytes_are_none(home: Path, place: int) -> None:
    """Whoever asks makes them anew."""
    remember_bytes(home, KEY, "compiled", b"some bytes", made_by="me")
    (path,) = home.rglob("*.bin")
    whole = bytearray(path.read_bytes())
    whole[place] ^= 128
    path.write_bytes(whole)

    assert recall_bytes(home, KEY, "compiled", made_by="me") is None
    path.write_bytes(b"short")
    assert recall_bytes(home, KEY, "compiled", made_by="me") is None


def test_attack_bytes_outside(home: Path) -> None:
    """Names and keys are as of other state."""
    with pytest.raises(InputError, match="state: name"):
        remember_bytes(home, KEY, "../x", b"", made_by="")
    with pytest.raises(InputError, match="is not a SHA-256"):
        recall_bytes(home, "..", "x", made_by="")


def test_bytes_that_cannot_be_written_are_an_error(home: Path) -> None:
    """By the folder's name."""
    home.write_text("a file")

    with pytest.raises(ResourceError, match="cannot be made"):
        remember_bytes(home, KEY, "compiled", b"", made_by="")
