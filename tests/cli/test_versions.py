"""`onhand versions`, `rollback` and `feedback`, and what `inspect` says of what was learned."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import FakeAnswer, FakeSession
from tests.device.learning.test_in_use import learning_bundle, start_of, teach
from tests.device.learning.test_quarantine import said
from tests.device.test_opening import make_bundle

from onhand.cli.main import main
from onhand.device.learning.in_use import InUse, open_versions
from onhand.device.learning.quarantine import Intake
from onhand.device.learning.suspicion import Limits
from onhand.device.learning.verdict import Verdict
from onhand.device.learning.versions import Versions

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bundle that can learn."""
    return learning_bundle(tmp_path / "toy").root


@pytest.fixture
def versions(root: Path, home: Path) -> Versions:
    """Two accepted versions and a refused one."""
    found = open_versions(root, home)
    teach(found, 0.5)
    teach(found, 0.25, parent=1)
    start = start_of(found.lesson)
    found.propose(
        {**start, "out.B": start["out.B"] + 9},
        start=start,
        parent=2,
        method="adamw",
        counts={"examples": 12},
        verdict=Verdict(is_accepted=False, reasons=("it forgot",), figures={"old_loss": 2.5}),
    )
    return found


def test_versions_are_listed(versions: Versions, root: Path, capsys: Capture) -> None:
    """Each with what it was learned from, how, and what its gate said."""
    assert main(["versions", str(root)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "in use" in line and " 2 " in line]
    assert [line for line in lines if "adamw, 12 examples" in line and "refused: it forgot" in line]


def test_versions_for_programs(versions: Versions, root: Path, capsys: Capture) -> None:
    """One object with every figure of the gate."""
    assert main(["versions", str(root), "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["current"], found["damaged"]) == (2, {})
    assert [one["parent"] for one in found["versions"]] == [0, 1, 2]
    assert found["versions"][2]["figures"] == {"old_loss": 2.5}
    assert found["versions"][2]["is_accepted"] is False


def test_nothing_learned_yet(root: Path, capsys: Capture) -> None:
    """A new device says so."""
    assert main(["versions", str(root)]) == 0
    assert "nothing is learned yet" in capsys.readouterr().out


def test_a_damaged_version_is_an_exit_code(versions: Versions, root: Path, capsys: Capture) -> None:
    """What is used instead is listed, and the damage is said."""
    (versions.folder / "versions" / "0002" / "tensors.safetensors").unlink()

    assert main(["versions", str(root)]) == 3

    out, err = capsys.readouterr()
    assert "note: version 2 is damaged and not used" in err
    assert [line for line in out.splitlines() if "in use" in line and " 1 " in line]


def test_rollback_and_forward(versions: Versions, root: Path, capsys: Capture) -> None:
    """To the parent, to the bundle as it was built, and to any that passed its gate."""
    for given, said_now in (
        ([], "version 1 is in use; before it was version 2"),
        (["--to", "base"], "the bundle is used as it was built; before it was version 1"),
        (["--to", "2"], "version 2 is in use; before it was the bundle as it was built"),
    ):
        assert main(["rollback", str(root), *given]) == 0
        assert capsys.readouterr().out == f"{said_now}\n"

    assert main(["rollback", str(root), "--to", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"before": 2, "current": 1}


@pytest.mark.parametrize(
    ("to", "why"), [("3", "refused by its gate: it forgot"), ("8", "no version 8"), ("x", "--to")]
)
def test_rollback_to_what_cannot_be_used(
    versions: Versions, root: Path, capsys: Capture, to: str, why: str
) -> None:
    """Nothing changes, and the reason is said."""
    assert main(["rollback", str(root), "--to", to]) == 2
    assert why in capsys.readouterr().err
    assert versions.current().number == 2


def test_inspect_says_what_is_used(versions: Versions, root: Path, capsys: Capture) -> None:
    """For people and for programs."""
    assert main(["inspect", str(root)]) == 0
    assert "used version 2 learned here" in capsys.readouterr().out

    assert main(["inspect", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["learned"]["number"] == 2


def test_figures_are_those_of_the_bundle(versions: Versions, root: Path, capsys: Capture) -> None:
    """What was learned is left out where a bundle is measured, and that is said."""
    main(["bench", str(root), "--engine", "none-such"])

    note = "note: measured as it was built, without version 2 learned here\n"
    assert note in capsys.readouterr().err


def test_feedback_in_quarantine(root: Path, home: Path, capsys: Capture) -> None:
    """Listed with its reason; released it is taken, dropped it is gone."""
    intake = Intake(open_versions(root, home).folder, Limits())
    for answer in ("yes", "no", "maybe"):
        intake.give(said("is it on?", answer))
    first, second = (one.feedback.id for one in intake.held())

    assert main(["feedback", str(root)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 taken, 2 in quarantine\n")
    assert "another answer to the same input was taken before" in out

    assert main(["feedback", str(root), "--release", first, "--drop", second, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"dropped": [second], "quarantined": [], "released": [first], "taken": 2}


def test_feedback_that_is_unknown_or_both(root: Path, capsys: Capture) -> None:
    """A mistake of the command line, in one sentence."""
    assert main(["feedback", str(root), "--release", "abc"]) == 2
    assert "nothing with the id 'abc' is in quarantine" in capsys.readouterr().err
    assert main(["feedback", str(root), "--release", "abc", "--drop", "abc"]) == 2
    assert "choose one of the two" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["versions", "rollback", "feedback"])
def test_a_bundle_that_cannot_learn(tmp_path: Path, capsys: Capture, command: str) -> None:
    """Says how one would be built that can."""
    root = make_bundle(tmp_path / "plain").root

    assert main([command, str(root)]) == 2
    assert "build it again with --learnable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "number"), [([], None), (["--version", "base"], 0), (["--version", "3"], 3)]
)
def test_a_version_is_asked_for_by_number(
    session: FakeSession, given: list[str], number: int | None
) -> None:
    """Without one it is the one in use; base is the bundle as it was built."""
    session.answers = [FakeAnswer(["a"])]

    main(["run", "home", "--prompt", "hi", *given])

    assert session.opened[0][1]["version"] == number


@pytest.mark.parametrize("wrong", ["00", "-1", "newest", "1.5", "²"])
def test_a_version_is_a_number_or_base(session: FakeSession, capsys: Capture, wrong: str) -> None:
    """Anything else is a mistake of the command line."""
    assert main(["run", "home", "--prompt", "hi", f"--version={wrong}"]) == 2
    assert "must be a version's number, or base" in capsys.readouterr().err


def test_what_was_learned_and_what_is_damaged_is_said(
    session: FakeSession, capsys: Capture
) -> None:
    """On stderr, beside the answer."""
    session.answers = [FakeAnswer(["a"])]
    session.learned = InUse(1, "ab", ("version 2 is damaged and not used: gone",))

    main(["run", "home", "--prompt", "hi"])

    out, err = capsys.readouterr()
    assert out == "a\n"
    assert err == (
        "warning: version 2 is damaged and not used: gone\nnote: version 1 learned here answers\n"
    )
