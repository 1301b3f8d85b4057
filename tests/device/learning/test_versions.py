"""Learned versions: small, whole, checked before use, and taken back by a pointer."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import pytest
from tests.core.test_scope import scope_for

from onhand.core.arrays import FloatArray
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.lesson import Lesson, Trainable
from onhand.core.scope import Scope
from onhand.device.learning.verdict import Verdict, parse_verdict, render_verdict
from onhand.device.learning.versions import Version, Versions, learned_folder

_P = ParamSpec("_P")
_R = TypeVar("_R")
KEY = "ab" * 32
LESSON = Lesson(
    kind="head",
    feeds="classes",
    variant="plain",
    graph="learn.onnx",
    trunk=None,
    start="start.safetensors",
    trainables={
        "bias": Trainable(shape=(3,), tensor="bias", grows=True),
        "weight": Trainable(shape=(3, 2), tensor="weight", grows=True),
        "scale": Trainable(shape=(2,), tensor="scale"),
    },
)
START: dict[str, FloatArray] = {
    "bias": np.zeros(3, np.float32),
    "weight": np.ones((3, 2), np.float32),
    "scale": np.ones(2, np.float32),
}
GOOD = Verdict(is_accepted=True, figures={"loss": 0.5})
BAD = Verdict(is_accepted=False, reasons=("it forgot",))


def kept(home: Path, *, most: int = 8) -> Versions:
    """The versions of one bundle in a state folder."""
    folder = learned_folder(home, KEY)
    return Versions(folder=folder, lesson=LESSON, most=most, clock=lambda: 5.0)


def add(versions: Versions, value: float, *, parent: int = 0, verdict: Verdict = GOOD) -> Version:
    """A version that differs from the start by its bias, accepted if its gate said so."""
    values = START | {"bias": np.full(3, value, np.float32)}
    version = versions.propose(
        values, start=START, parent=parent, method="sgd", counts={"steps": 4}, verdict=verdict
    )
    if verdict.is_accepted:
        versions.accept(version.number)
    return version


def place(versions: Versions, number: int) -> Path:
    """Where a version lies."""
    return versions.folder / "versions" / f"{number:04d}"


def test_only_what_differs_is_stored(home: Path) -> None:
    """A version holds the tensors that changed, and says what it is."""
    versions = kept(home)

    made = add(versions, 2.0)

    assert versions.values(made).keys() == {"bias"}
    np.testing.assert_array_equal(versions.values(made)["bias"], np.full(3, 2.0))
    assert (made.number, made.parent, made.made_at_s) == (1, 0, 5.0)
    assert (made.method, made.counts, made.verdict) == ("sgd", {"steps": 4}, GOOD)


def test_nothing_learned_is_the_bundle_as_built(home: Path) -> None:
    """Without versions number 0 is in use, and asking makes no folder."""
    versions = kept(home)

    assert (versions.current().number, versions.list_versions()) == (0, ())
    assert not home.exists()


def test_a_scope_lies_beside_the_tensors(home: Path) -> None:
    """As it was, and no trainable; the bundle as it was built answers all."""
    versions = kept(home)
    scope = scope_for("water the tulips")
    values = START | {"bias": np.full(3, 2.0, np.float32)}

    made = versions.propose(
        values, start=START, parent=0, method="sgd", counts={}, verdict=GOOD, scope=scope
    )
    plain = add(versions, 2.0)

    found = versions.scope(made)
    assert found is not None
    np.testing.assert_array_equal(found.weights, scope.weights)
    np.testing.assert_array_equal(found.biases, scope.biases)
    assert versions.values(made).keys() == {"bias"}
    assert made.sha256 != plain.sha256
    assert versions.scope(plain) is None
    assert versions.scope(None) is None


def test_attack_a_scope_of_another_shape_is_damage(home: Path) -> None:
    """Though every hash fits."""
    versions = kept(home)
    scope = Scope(weights=np.zeros((1, 4), np.float32), biases=np.zeros(1, np.float32))

    made = versions.propose(
        START, start=START, parent=0, method="sgd", counts={}, verdict=GOOD, scope=scope
    )

    with pytest.raises(BundleCorrupt, match=r"tensors\.safetensors: the scope is \(1, 4\)"):
        versions.scope(made)


def test_a_candidate_is_not_in_use_before_it_is_accepted(home: Path) -> None:
    """Proposing changes nothing for who opens the bundle."""
    versions = kept(home)
    values = START | {"bias": np.ones(3, np.float32)}
    made = versions.propose(values, start=START, parent=0, method="sgd", counts={}, verdict=GOOD)
    before = versions.current().number
    versions.accept(made.number)

    assert (before, versions.current().number) == (0, 1)


def test_a_refused_candidate_cannot_be_accepted(home: Path) -> None:
    """It is kept with its reasons, which the error repeats."""
    versions = kept(home)
    add(versions, 1.0, verdict=BAD)

    with pytest.raises(InputError, match="version 1 was refused by its gate: it forgot"):
        versions.accept(1)
    assert versions.current().number == 0
    assert versions.list_versions()[0].verdict == BAD


def test_rollback_goes_to_the_parent_and_at_last_to_the_bundle(home: Path) -> None:
    """Each step back is one generation; before the first there is nothing."""
    versions = kept(home)
    add(versions, 1.0)
    add(versions, 2.0, parent=1)

    assert [versions.rollback(), versions.rollback()] == [1, 0]
    with pytest.raises(InputError, match="already used as it was built"):
        versions.rollback()


def test_rollback_to_a_number_may_go_forward_again(home: Path) -> None:
    """Nothing is lost by going back; an unknown number changes nothing."""
    versions = kept(home)
    add(versions, 1.0)
    add(versions, 2.0, parent=1)
    versions.rollback(0)
    versions.rollback(2)

    with pytest.raises(InputError, match="no version 9"):
        versions.rollback(9)
    assert versions.current().number == 2


def flip(path: Path) -> None:
    """Change the last byte of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut(path: Path) -> None:
    """Lose the second half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("name", ["tensors.safetensors", "version.json", "report.json"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_version_gives_way_to_its_parent(
    home: Path, name: str, damage: Callable[[Path], None]
) -> None:
    """Whatever of it is damaged, the nearest sound ancestor is in use, and that is said."""
    versions = kept(home)
    add(versions, 1.0)
    add(versions, 2.0, parent=1)
    add(versions, 3.0, parent=2)
    damage(place(versions, 3) / name)
    damage(place(versions, 2) / name)

    standing = versions.current()

    assert standing.number == 1
    assert [text.split(" is damaged")[0] for text in standing.passed_over] == [
        "version 3",
        "version 2",
    ]
    assert versions.damaged().keys() == {2, 3}
    with pytest.raises(BundleCorrupt):
        versions.accept(3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 2, "number": 1, "ancestors": []}',
        b'{"format": 1, "number": -1, "ancestors": []}',
        b'{"format": 1, "number": 1, "ancestors": ["../x"]}',
        b'{"format": 1, "number": 1, "ancestors": 3}',
        b" " * 70_000,
    ],
)
def test_attack_a_damaged_pointer_is_the_bundle_as_built(home: Path, content: bytes) -> None:
    """Nobody knows what was in use: nothing learned is, and that is said."""
    versions = kept(home)
    add(versions, 1.0)
    (versions.folder / "current.json").write_bytes(content)

    standing = versions.current()

    assert standing.number == 0
    assert "used as it was built" in standing.passed_over[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 2}, "of number 2"),
        ({"format": 9}, "format 9"),
        ({"tensors": "../../x"}, "no SHA-256"),
        ({"counts": [1]}, "counts must be"),
        ({"method": "a\nb"}, "no text"),
        ({"made_at_s": "now"}, "no number"),
        ({"other": 1}, "unknown key 'other'"),
    ],
)
def test_attack_a_version_with_a_fitting_seal(
    home: Path, change: dict[str, object], message: str
) -> None:
    """Who can write the seal still cannot write what is no version."""
    versions = kept(home)
    add(versions, 1.0)
    path = place(versions, 1) / "version.json"
    table = json.loads(path.read_bytes()) | change
    del table["seal"]
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    table["seal"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(table))

    with pytest.raises(BundleCorrupt, match=message):
        versions.find(1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bias", np.array([np.nan, 0, 0], np.float32), "NaN or an infinity"),
        ("scale", np.zeros(3, np.float32), r"\(3,\), the lesson has \(2,\)"),
        ("weight", np.zeros((2, 2), np.float32), r"\(2, 2\), the lesson has"),
        ("weight", np.zeros((4, 3), np.float32), r"\(4, 3\), the lesson has"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    home: Path, name: str, value: FloatArray, message: str
) -> None:
    """Nothing is written of values that are not finite or of another shape."""
    versions = kept(home)

    with pytest.raises(InputError, match=message):
        versions.propose(
            START | {name: value}, start=START, parent=0, method="x", counts={}, verdict=GOOD
        )
    assert not home.exists()


def test_classes_may_be_added(home: Path) -> None:
    """A tensor that grows may have more rows than it started with."""
    versions = kept(home)
    grown = {"bias": np.ones(5, np.float32), "weight": np.ones((5, 2), np.float32)}
    made = versions.propose(
        START | grown, start=START, parent=0, method="x", counts={}, verdict=GOOD
    )

    assert versions.values(made)["weight"].shape == (5, 2)


def test_old_versions_go_refused_ones_first(home: Path) -> None:
    """The bound holds; what is in use and its parent stay however old they are."""
    versions = kept(home, most=3)
    add(versions, 1.0)
    add(versions, 2.0, parent=1)
    for _ in range(3):
        add(versions, 3.0, parent=2, verdict=BAD)

    assert [one.number for one in versions.list_versions()] == [1, 2, 5]
    add(versions, 4.0, parent=2)
    add(versions, 5.0, parent=6)
    add(versions, 6.0, parent=7)
    assert [one.number for one in versions.list_versions()] == [6, 7, 8]
    assert versions.current().number == 8


def test_a_bundle_key_is_a_hash(home: Path) -> None:
    """No key reaches another folder."""
    with pytest.raises(InputError, match="is not a SHA-256"):
        learned_folder(home, "../" + "a" * 61)


def test_a_verdict_comes_back(home: Path) -> None:
    """What was written is what is read; a figure that is not finite is left out."""
    verdict = Verdict(is_accepted=False, reasons=("a", "b"), figures={"x": 1.5, "y": np.inf})

    assert parse_verdict(render_verdict(verdict), where="here") == Verdict(
        is_accepted=False, reasons=("a", "b"), figures={"x": 1.5}
    )


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"format": 1, "is_accepted": 1, "reasons": [], "figures": {}}',
        b'{"format": 1, "is_accepted": true, "reasons": [1], "figures": {}}',
        b'{"format": 1, "is_accepted": true, "reasons": {}, "figures": {}}',
        b'{"format": 1, "is_accepted": true, "reasons": [], "figures": {"a": "b"}}',
        b'{"format": 1, "is_accepted": true, "reasons": [], "figures": []}',
        b'{"format": 1, "is_accepted": true, "reasons": [], "figures": {}, "x": 1}',
    ],
)
def test_attack_a_report(content: bytes) -> None:
    """A report is what `render_verdict` writes, and nothing else."""
    with pytest.raises(BundleCorrupt, match="here"):
        parse_verdict(content, where="here")


class _Countdown:
    """Ends this process, as a kill would, at the n-th call that changes the disk."""

    def __init__(self, left: int) -> None:
        self.left = left

    def before(self, call: Callable[_P, _R]) -> Callable[_P, _R]:
        """The call, unless the process ends first."""

        def counted(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            self.left -= 1
            if self.left < 0:
                os._exit(9)
            return call(*args, **kwargs)

        return counted


def _learn_and_be_killed(versions: Versions, calls: int) -> None:
    countdown = _Countdown(calls)
    os.fsync = countdown.before(os.fsync)
    os.unlink = countdown.before(os.unlink)
    os.rmdir = countdown.before(os.rmdir)
    os.rename = countdown.before(os.rename)
    os.replace = countdown.before(os.replace)
    add(versions, 9.0, parent=2)
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_all_is_whole(home: Path) -> None:
    """At each call that changes the disk: the version before or the new one, never a part."""
    versions = kept(home, most=2)
    add(versions, 1.0)
    add(versions, 2.0, parent=1)
    seen: list[int] = []
    for calls in range(100):
        child = os.fork()
        if child == 0:
            _learn_and_be_killed(versions, calls)
        _, status = os.waitpid(child, 0)
        assert versions.damaged() == {}
        standing = versions.current()
        assert standing.passed_over == ()
        seen.append(standing.number)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        versions.rollback(2)

    assert seen[0] == 2
    assert seen[-1] > 2
    add(versions, 3.0, parent=2)
    left = [one.name for one in (versions.folder / "versions").iterdir()]
    assert not [name for name in left if name.startswith(".")]
