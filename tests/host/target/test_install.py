"""The runtime on a board: what it says of itself, and an installation from wheels."""

import io
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from tests.host.target.conftest import Board
from tests.host.target.test_link import connect

from onhand.core.errors import InputError, ResourceError
from onhand.core.progress import Quiet
from onhand.host.target.install import facts_from_answer, install_runtime, present_runtime

ANSWER: dict[str, object] = {
    "python": [3, 11, 2],
    "executable": "/usr/bin/python3",
    "tag": "cpython-311",
    "system": "linux",
    "machine": "aarch64",
    "free_bytes": 10**9,
    "compiler": "",
    "folder": "/srv/onhand-on-target",
}


def test_a_board_says_what_it_is() -> None:
    """The version as people write it."""
    facts = facts_from_answer(ANSWER, "ssh://board")

    assert facts.python == "3.11.2"
    assert facts.machine.machine == "aarch64"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("python", "3.11"),
        ("python", [3, "11"]),
        ("machine", 5),
        ("free_bytes", "much"),
        ("tag", None),
    ],
)
def test_attack_a_board_that_says_something_else_is_refused(key: str, value: object) -> None:
    """What comes from the board is of a type, or an error."""
    with pytest.raises(InputError, match="ssh://board: "):
        facts_from_answer({**ANSWER, key: value}, "ssh://board")
    with pytest.raises(InputError, match=f"does not say what '{key}'"):
        facts_from_answer({k: v for k, v in ANSWER.items() if k != key}, "ssh://board")


def wheel(*, needs: str = "") -> bytes:
    """A wheel that passes for this onhand, with nothing in it."""
    info = f"onhand-{metadata.version('onhand')}.dist-info"
    about = f"Metadata-Version: 2.1\nName: onhand\nVersion: {metadata.version('onhand')}\n"
    files = {
        "onhand/__init__.py": "",
        "onhand/device/__init__.py": "",
        "onhand/device/bench.py": "",
        f"{info}/METADATA": about + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


class Notes:
    """Keeps the stages and what is noted."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self, what: str, total: float) -> None:
        """Keep it."""
        self.said.append(what)

    def advance(self, amount: float) -> None:
        """See `Progress`."""

    def note(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)


@pytest.mark.slow
def test_a_runtime_is_installed_from_wheels_once(board: Board, tmp_path: Path) -> None:
    """In an environment of its own; a missing wheel is named; the second time nothing is done."""
    name = f"onhand-{metadata.version('onhand')}-py3-none-any.whl"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / name).write_bytes(wheel(needs="surely-missing>=2"))
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / name).write_bytes(wheel())
    link = connect(board, limit_s=300.0)
    facts = facts_from_answer(link.ask("hello", folder=None), board.url)
    first, second = Notes(), Notes()

    with pytest.raises(ResourceError, match=r"there is no surely-missing>=2 for .* in the folder"):
        install_runtime(link, facts, wheels=tmp_path / "bad", progress=Quiet())
    made = install_runtime(link, facts, wheels=tmp_path / "good", progress=first)
    again = install_runtime(link, facts, wheels=tmp_path / "good", progress=second)
    link.close()

    assert made == again
    assert "installing the runtime on the board" in first.said
    assert [said for said in second.said if "native part" not in said] == []
    assert "on the board the runtime has no native part: the wheel has none" in second.said[-1]


def test_a_python_without_onhand_is_told(board: Board) -> None:
    """And what to do."""
    link = connect(board, python="/usr/bin/python3")

    with pytest.raises(InputError, match="has no onhand that runs"):
        present_runtime(link, "/usr/bin/python3")
    link.close()
