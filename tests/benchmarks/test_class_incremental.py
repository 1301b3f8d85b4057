"""What the benchmark of class-incremental streams makes of a lesson and its figures."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from benchmarks.class_incremental import document_with, tables
from benchmarks.class_incremental_data import read_digits
from benchmarks.class_incremental_runs import Setting, Stream, learn_stream
from tests.device.learning.methods.models import HeadTeachable, latents

SETTING = Setting(n_tasks=3, epochs=4, batch=8, rate=0.05, memory_bytes=4000, precision="float16")


def stream() -> Stream:
    """Six classes in the plane of a simplex."""
    learned, judged = latents([*range(6)] * 12, width=6), latents([*range(6)] * 8, width=6, seed=1)
    return Stream(
        latents=learned["latent"],
        labels=learned["labels"],
        test_latents=judged["latent"],
        test_labels=judged["labels"],
    )


@pytest.mark.parametrize(("name", "least"), [("replay", 0.9), ("prototypes", 0.9), ("joint", 0.9)])
def test_a_stream_is_learned_and_judged_after_each_task(name: str, least: float) -> None:
    """What is not learned yet counts 0; the last row judges all."""
    found = learn_stream(HeadTeachable(6, 0), stream(), name, SETTING, seed=0)
    matrix = np.array(found["matrix"])

    assert found["accuracy"] == pytest.approx(matrix[-1].mean())
    assert float(str(found["accuracy"])) > least
    assert not np.triu(matrix, 1).any()
    assert matrix.shape == ((1, 1) if name == "joint" else (3, 3))


def test_a_seed_decides_all_of_a_run() -> None:
    """All but its seconds."""
    runs = [
        learn_stream(HeadTeachable(6, 0), stream(), "der++", SETTING, seed=seed)
        for seed in (1, 1, 2)
    ]

    assert runs[0]["matrix"] == runs[1]["matrix"]
    assert runs[0]["calibration_error"] == runs[1]["calibration_error"]
    assert runs[0]["calibration_error"] != runs[2]["calibration_error"]


def test_the_table_goes_between_the_marks_of_a_document() -> None:
    """What stands around them stays, and so do the marks."""
    one = {"average_accuracy": 0.9, "average_accuracy_spread": 0.01, "forgetting": 0.05,
           "forgetting_spread": 0.002}  # fmt: skip
    sets = {"digits": {"methods": {"replay": one}}}
    text = (
        "a\n<!-- class-incremental figures -->\nold\n<!-- end of class-incremental figures -->\nb\n"
    )
    made = document_with(text, sets)

    assert "| replay | 90.0 ± 1.0 | 5.0 ± 0.2 |" in made
    assert "| joint | - | - |" in made
    assert "old" not in made
    assert document_with(made, sets) == made
    assert tables(sets) in made


def test_digits_are_read_from_a_packed_table(tmp_path: Path) -> None:
    """Of 400 rows 360 judge; the label stands last."""
    rows = np.column_stack([np.tile(np.arange(400) % 17, (64, 1)).T, np.arange(400) % 10])
    with gzip.open(tmp_path / "digits.csv.gz", "wt") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in rows.tolist())
    data = read_digits(tmp_path / "digits.csv.gz")
    assert data is not None

    assert len(data.labels) == 40
    assert len(data.test_inputs) == 360
    assert sorted(set(data.test_labels.tolist())) == list(range(10))
