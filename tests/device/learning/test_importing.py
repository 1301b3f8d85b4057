"""What was learned elsewhere becomes a version: judged, refused, or taken as it is."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.device.learning.bundles import write_bundle
from tests.device.learning.test_learn import NAIVE, write_data

from onhand.cli.main import main
from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.core.safetensors import SafetensorsWriter, TensorSpec, open_safetensors
from onhand.device.learning.adapters import export_adapter
from onhand.device.learning.importing import Judges, import_learned, was_judged
from onhand.device.learning.in_use import versions_of
from onhand.device.learning.learn import learn
from onhand.device.learning.versions import learned_folder

NAMES = ("cup", "lamp", "window")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A network that can learn its head."""
    return write_bundle(tmp_path / "things")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes that it knows, and a new one."""
    return write_data(tmp_path / "data", names=NAMES)


@pytest.fixture
def elsewhere(bundle: Bundle, data: Path, tmp_path: Path) -> Path:
    """What another device learned of them."""
    home = tmp_path / "other-home"
    learn(bundle.root, data, settings=NAIVE, home=home)
    export_adapter(bundle.root, tmp_path / "given", home=home, to="safetensors")
    return tmp_path / "given"


def rewrite(folder: Path, change: float) -> None:
    """Multiply every tensor of a folder."""
    file = open_safetensors(folder / "learned.safetensors")
    tensors = {name: np.array(file.view(name)) * np.float32(change) for name in file.tensors}
    specs = {name: TensorSpec(dtype="F32", shape=array.shape) for name, array in tensors.items()}
    with SafetensorsWriter(folder / "learned.safetensors", specs) as writer:
        for name, array in tensors.items():
            writer.write(name, array)
        writer.close()


def test_what_passes_its_gate_is_used(
    bundle: Bundle, data: Path, elsewhere: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the name of the class that it brings."""
    words = ["versions", str(bundle.root), "--import", str(elsewhere), "--data", str(data)]

    assert main([*words, "--json"]) == 0

    shown = capsys.readouterr()
    assert "it passed its gate and is in use" in shown.err
    found = json.loads(shown.out)
    assert found["current"] == 1
    (one,) = found["versions"]
    assert one["is_judged"]
    assert one["figures"]["new_accuracy"] > one["figures"]["new_accuracy_before"]
    picture = str(sorted((data / "window").iterdir())[0])
    assert main(["run", str(bundle.root), "--input", picture, "--engine", "onnx"]) == 0
    assert "window" in capsys.readouterr().out


def test_what_is_worse_is_refused(
    bundle: Bundle, data: Path, elsewhere: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is kept with the reasons, the exit code says so, and its class has no name here."""
    rewrite(elsewhere, -1.0)
    words = ["versions", str(bundle.root), "--import", str(elsewhere), "--data", str(data)]

    assert main(words) == 4

    assert "refused by its gate and not used: its loss on" in capsys.readouterr().err
    versions = versions_of(bundle, home)
    assert versions.current().number == 0
    assert not versions.find(1).verdict.is_accepted
    assert not (versions.folder / "classes.json").exists()


def test_what_must_not_be_lost_judges_alone(
    bundle: Bundle, data: Path, elsewhere: Path, tmp_path: Path, home: Path
) -> None:
    """Examples of classes that are known already: they must stay right."""
    known = write_data(tmp_path / "known", names=NAMES[:2])
    made = import_learned(bundle.root, elsewhere, Judges(remember=known), home=home)

    assert made.is_used
    assert made.version.verdict.figures["old_examples"] == len(list(known.rglob("*.npz")))
    assert made.version.verdict.figures["new_examples"] == 0


def test_without_examples_it_has_to_be_asked_for(
    bundle: Bundle, elsewhere: Path, home: Path
) -> None:
    """Nothing is kept before; afterwards it says that nobody judged it."""
    with pytest.raises(InputError, match=r"no examples to judge it by.*--unjudged"):
        import_learned(bundle.root, elsewhere, Judges(), home=home)
    assert versions_of(bundle, home).list_versions() == ()

    made = import_learned(bundle.root, elsewhere, Judges(is_waived=True), home=home)

    assert made.is_used
    assert not made.is_judged
    assert not was_judged(made.version)
    assert made.added_classes == ("window",)


def test_examples_and_no_judgement_exclude_each_other(tmp_path: Path) -> None:
    """Before anything is read."""
    with pytest.raises(InputError, match="one of the two"):
        Judges(data=tmp_path, is_waived=True)


@pytest.mark.parametrize("option", [["--unjudged"], ["--data", "x"], ["--threads", "1"]])
def test_options_of_an_import_need_one(
    bundle: Bundle, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Said in one sentence."""
    assert main(["versions", str(bundle.root), *option]) == 2
    assert "are for --import DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"classes": [], "format": 1, "kind": "lora"}, "is of kind 'lora', the bundle's 'head'"),
        ({"classes": [], "format": 2, "kind": "head"}, "this reader knows 1"),
        ({"classes": ["a", "a"], "format": 1, "kind": "head"}, "names one twice"),
        ({"classes": ["cup", "x"], "format": 1, "kind": "head"}, "of another network"),
        ({"classes": [], "format": 1, "kind": "head"}, "nothing names the others"),
        ({"classes": 3, "format": 1, "kind": "head"}, "must be a list"),
        ({"classes": [""], "format": 1, "kind": "head"}, "no name of a class"),
        ([], "must be a JSON object"),
    ],
)
def test_what_does_not_fit_is_refused(
    bundle: Bundle, elsewhere: Path, home: Path, table: object, why: str
) -> None:
    """One sentence, and nothing is kept."""
    (elsewhere / "learned.json").write_text(json.dumps(table))

    with pytest.raises(InputError, match=why):
        import_learned(bundle.root, elsewhere, Judges(is_waived=True), home=home)
    assert not (learned_folder(home, bundle.manifest_sha256) / "versions").exists()


def test_numbers_that_are_none_are_refused(bundle: Bundle, elsewhere: Path, home: Path) -> None:
    """Before they are kept."""
    rewrite(elsewhere, float("nan"))

    with pytest.raises(InputError, match="NaN"):
        import_learned(bundle.root, elsewhere, Judges(is_waived=True), home=home)


@pytest.mark.parametrize("name", ["learned.safetensors", "learned.json"])
def test_a_missing_file_is_named(bundle: Bundle, elsewhere: Path, home: Path, name: str) -> None:
    """As is a folder that is none."""
    (elsewhere / name).unlink()

    with pytest.raises(InputError, match=r"missing|PEFT"):
        import_learned(bundle.root, elsewhere, Judges(is_waived=True), home=home)
    with pytest.raises(InputError, match="no such folder"):
        import_learned(bundle.root, elsewhere / "x", Judges(is_waived=True), home=home)
