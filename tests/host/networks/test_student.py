"""A student cut out of its teacher or brought along, trained and written by one command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.host.networks.test_distil import QUICK, bench, damaged, figures, pictures, teacher

from onhand.cli.main import main
from onhand.core.errors import InputError
from onhand.host.networks.costs import count_operations
from onhand.host.networks.graph import Graph, Node
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.onnx_files import model_bytes, read_onnx
from onhand.host.networks.student import Scaling, distil_network, parse_student, scaled_student

pytest.importorskip("torch", reason="trains in torch")


def wide(n_blocks: int = 2) -> Graph:
    """A network of 32 channels, with residual blocks."""
    made, rng = teacher(width=32), np.random.default_rng(3)
    nodes, constants, last = list(made.nodes), dict(made.constants), "r"
    for i in range(n_blocks):
        weight = 0.05 * rng.normal(size=(32, 32, 1, 1))
        constants[f"b{i}.w"] = weight.astype(np.float32)
        nodes[2 + 2 * i : 2 + 2 * i] = [
            Node(op="Conv", inputs=(last, f"b{i}.w"), outputs=(f"b{i}.c",)),
            Node(op="Add", inputs=(last, f"b{i}.c"), outputs=(f"b{i}",)),
        ]
        last = f"b{i}"
    pool = next(i for i, node in enumerate(nodes) if node.op == "GlobalAveragePool")
    nodes[pool] = replace(nodes[pool], inputs=(last,))
    return replace(made, nodes=tuple(nodes), constants=constants)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a teacher, a student and examples."""
    (tmp_path / "teacher.onnx").write_bytes(model_bytes(wide()))
    (tmp_path / "student.onnx").write_bytes(model_bytes(damaged(wide(), by=0.1)))
    arrays = pictures().batch(range(24))
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type] # numpy's own type
    return tmp_path


def test_a_students_shares_are_read() -> None:
    """Width, depth or both; else it is a place."""
    assert parse_student("width=0.5") == Scaling(width=0.5)
    assert parse_student("width=0.5, depth=0.25") == Scaling(width=0.5, depth=0.25)
    assert parse_student("models/small.onnx") == "models/small.onnx"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("height=0.5", "'height' is none of width, depth"),
        ("width=half", "width is 'half', must be a number"),
        ("width=0", "width is 0, must be from 0.05 to 1"),
        ("width=nan", "width is nan"),
        ("width=0.5,width=0.5", "given twice"),
    ],
)
def test_slips_in_shares_are_said(text: str, message: str) -> None:
    """In one sentence."""
    with pytest.raises(InputError, match=message):
        parse_student(text)


def test_width_and_depth_make_it_smaller() -> None:
    """Operations fall with the square of the width; half of the blocks go with the depth."""
    original = wide()

    narrow, _ = scaled_student(Scaling(width=0.5), bench(original))
    short, _ = scaled_student(Scaling(depth=0.5), bench(original))

    assert count_operations(narrow) <= 0.5 * count_operations(original)
    assert sum(node.op == "Add" for node in short.nodes) == 1
    with pytest.raises(InputError, match=r"2 residual blocks, of which depth=0\.9 leaves all"):
        scaled_student(Scaling(depth=0.9), bench(original))


@pytest.mark.parametrize("student", ["student.onnx", "width=0.5"])
def test_a_student_is_trained_and_written(place: Path, student: str) -> None:
    """The file runs, is nearer to the teacher than before, and nothing else stays behind."""
    given = str(place / student) if student.endswith(".onnx") else student
    transform = replace(QUICK, learning_rate=0.005)

    made = distil_network(
        str(place / "teacher.onnx"),
        given,
        place / "out.onnx",
        transform,
        task="image-classification",
        data=place / "data.npz",
        threads=1,
    )

    before, after = figures(made.notes[-1])
    assert after < before
    answer = GraphRunner(read_onnx(made.path), threads=1).run(pictures().batch([0, 1]))
    assert answer["y"].shape == (2, 4)
    assert made.size_bytes[1] == sum(a.nbytes for a in read_onnx(made.path).constants.values())
    assert (made.size_bytes[1] < made.size_bytes[0]) is (student == "width=0.5")
    assert {path.name for path in place.iterdir()} == {
        "teacher.onnx", "student.onnx", "data.npz", "out.onnx",
    }  # fmt: skip


def test_the_command_trains(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what was made, and refuses to overwrite it."""
    call = ["distil", str(place / "teacher.onnx"), "--student", str(place / "student.onnx")]
    call += ["-o", str(place / "out.onnx"), "--task", "image-classification", "--threads", "1"]
    call += ["--data", str(place / "data.npz"), "--steps", "4", "--augment", "flip", "--json"]

    code = main(call)

    made = json.loads(capsys.readouterr().out)
    assert code == 0
    assert made["path"] == str(place / "out.onnx")
    assert made["size_bytes"]["student"] == made["size_bytes"]["teacher"]
    assert main(call) == 2
    assert "exists; remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--student is missing; needed are --student, -o, --task, --data"),
        (["--student", "width=0.5", "-o", "o.onnx", "--task", "features"], "--data is missing"),
    ],
)
def test_what_the_command_needs_is_said(
    more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is read."""
    assert main(["distil", "teacher.onnx", *more]) == 2
    assert message in capsys.readouterr().err


def test_a_student_of_other_inputs_is_refused(place: Path) -> None:
    """Both sides are shown."""
    other = wide()
    value = replace(other.inputs[0], name="picture")
    odd = replace(other.renamed({"x": "picture"}), inputs=(value,))
    (place / "odd.onnx").write_bytes(model_bytes(odd))

    with pytest.raises(InputError, match=r"its inputs are picture .* those of the teacher are x"):
        distil_network(
            str(place / "teacher.onnx"),
            str(place / "odd.onnx"),
            place / "out.onnx",
            QUICK,
            task="image-classification",
            data=place / "data.npz",
        )
