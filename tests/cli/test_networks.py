"""Commands on a bundle that holds no language model."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.device.test_opening import make_bundle
from tests.network_bundles import classifier, pack, write_network_report

from onhand.cli.main import main
from onhand.core.bundle import Bundle
from onhand.core.feed import PictureFeed
from onhand.device.networks import variants

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A classifier of small pictures, fed with pixels, and a state folder of its own."""
    monkeypatch.setenv("ONHAND_HOME", str(tmp_path / "home"))
    drawing = classifier(np.random.default_rng(0))
    _, channels, height, width = (size or 1 for size in drawing.inputs[0].shape)
    feed = PictureFeed(
        height=height,
        width=width,
        channels="rgb" if channels == 3 else "gray",
        mean=(0.0,) * channels,
        std=(255.0,) * channels,
    )
    return pack(tmp_path / "net", {"fp32": drawing}, task="image-classification", feed=feed)


@pytest.fixture
def picture(bundle: Bundle, tmp_path: Path) -> Path:
    """A picture of the network's size."""
    feed = bundle.manifest.network.feed
    assert isinstance(feed, PictureFeed)
    pixels = np.random.default_rng(1).integers(0, 256, (feed.height, feed.width, 3))
    np.save(tmp_path / "p.npy", pixels.astype(np.uint8))
    return tmp_path / "p.npy"


def test_a_picture_is_answered(bundle: Bundle, picture: Path, capsys: Capture) -> None:
    """The likeliest classes, by number where there are no labels; the same for programs."""
    line = ["run", str(bundle.root), "--input", str(picture), "--engine", "onnx"]
    assert main([*line, "--top", "2", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert main([*line, "--top", "1"]) == 0
    shown = capsys.readouterr().out

    first, second = answer["classes"]
    assert first["probability"] >= second["probability"] > 0
    assert first["label"] == str(first["index"])
    assert shown.startswith(f"{picture}: {first['label']} {first['probability']:.1%} (")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run NET", "nothing to answer: give --input FILE"),
        ("run NET --prompt hi", "its network takes no texts"),
        ("run NET --input no.npy", "no.npy: not an array that can be read"),
        ("run NET --input a.txt", "not a picture"),
        ("run NET --chat --input a.txt", "--chat is for language models; leave it out"),
        ("run NET --temperature 0.5", "--temperature is for language models"),
        ("run NET --variant int3 --input PIC", "no variant 'int3'; it has fp32"),
        ("run NET --engine magic --input PIC", "unknown engine 'magic'"),
        ("bench NET --kv int8", "--kv is for language models"),
        ("evaluate NET --text a.txt", "--text is for language models"),
        ("evaluate NET", "nothing to compare by: give --data DIR"),
        ("chat NET", "is a network for image-classification, this needs a language model"),
    ],
)
def test_what_does_not_go_with_a_network_is_refused(
    line: str, message: str, bundle: Bundle, picture: Path, tmp_path: Path, capsys: Capture
) -> None:
    """One sentence, exit code 2."""
    (tmp_path / "a.txt").write_text("x")
    words = line.replace("NET", str(bundle.root)).replace("PIC", str(picture))
    words = words.replace("a.txt", str(tmp_path / "a.txt")).replace("out", str(tmp_path / "out"))

    assert main(words.split()) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_network_is_not_exported_as_a_language_model(
    bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    """GGUF holds decoders alone."""
    pytest.importorskip("onnx", reason="exporting needs the host's packages")

    assert main(["export", str(bundle.root), "--to", "gguf", "-o", str(tmp_path / "out")]) == 2
    assert "this needs a language model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("build net.onnx -o x", "net.onnx: what is it for? give --task, one of image-class"),
        ("build net.onnx --task magic -o x", "task is 'magic', must be one of image-class"),
        ("build net.onnx --task features", "where to? give -o NAME, or --plan"),
        ("build net.onnx --task features --preset good -o x", "--preset is for language models"),
        ("build net.onnx --task features --plan", "a search is judged on examples"),
        ("build net.onnx --task features --variants 3 -o x", "give them as --data"),
        ("build net.onnx --task features --plan --bits 8", "and --bits leaves nothing to search"),
        ("build net.onnx --task features --plan --variants int8", "names of --variants leaves"),
        ("build folder --data d -o x", "--data is for networks: say with --task"),
        ("build net.onnx --task features --bits 3 -o x", "--bits is 3, must be 8, 4 or 32"),
        ("build net.onnx --task features --variants int3 -o x", "--variants: unknown 'int3'"),
        ("build net.onnx --task features --variants int8,int8 -o x", "'int8' is given twice"),
        ("build net.onnx --task features --bits 8 --variants int8 -o x", "leave --bits out"),
        ("build net.onnx --task features --bits 32 --recover -o x", "--recover trains integers"),
        ("build net.onnx --task features --recipe r.toml --recover -o x", "give one of them"),
        ("build folder --recover -o x", "--recover is for networks"),
        ("build net.onnx --task features --recipe r.toml --bits 8 -o x", "give one of them"),
        ("build net.onnx --task features --recipe gone.toml -o x", "gone.toml cannot be read"),
        ("build net.onnx --task features --heldout h -o x", "give those as --data"),
    ],
)
def test_a_build_of_a_network_says_what_is_wrong(line: str, message: str, capsys: Capture) -> None:
    """Before anything is read."""
    pytest.importorskip("onnx", reason="building needs the host's packages")

    assert main(line.split()) == 2
    assert message in capsys.readouterr().err


def test_inspect_shows_inputs_and_engines(bundle: Bundle, capsys: Capture) -> None:
    """For people and for programs."""
    assert main(["inspect", str(bundle.root)]) == 0
    shown = capsys.readouterr().out
    assert main(["inspect", str(bundle.root), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)

    assert "network for image-classification" in shown
    assert table["kind"] == "network"
    assert table["network"]["inputs"][0]["name"] in shown
    assert table["variants"]["fp32"]["engines"]["onnx"] is None


def test_verify_knows_networks(bundle: Bundle, capsys: Capture) -> None:
    """As it knows language models."""
    assert main(["verify", str(bundle.root)]) == 0
    assert "as listed" in capsys.readouterr().out


def test_options_of_networks_are_refused_for_others(tmp_path: Path, capsys: Capture) -> None:
    """A language model takes no pictures."""
    root = make_bundle(tmp_path / "words").root

    assert main(["run", str(root), "--input", "a.png"]) == 2
    assert "--input is for networks that are no language models" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["run --input a.png", "evaluate --data a", "merge --data a -o b"])
def test_a_missing_bundle_is_said_before_its_options(
    tmp_path: Path, words: str, capsys: Capture
) -> None:
    """Nobody can know what is for a bundle that is not there."""
    command, *options = words.split()

    assert main([command, str(tmp_path / "none"), *options]) == 2
    assert f"{tmp_path / 'none'}: not a bundle" in capsys.readouterr().err


@pytest.fixture
def several(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """Two variants, of which the second is quicker by what timing says."""
    drawing = classifier(np.random.default_rng(0))
    made = pack(
        tmp_path / "several",
        {"int8": drawing, "fp32": drawing},
        task="image-classification",
        feed=bundle.manifest.network.feed,
    )
    write_network_report(made, {"int8": {"quality_loss": 0.01}, "fp32": {"quality_loss": 0.0}})
    took = {"int8": [0.004], "fp32": [0.003]}
    monkeypatch.setattr(
        variants, "time_interleaved", lambda runs: {name: took[name] for name in runs}
    )
    return made


def test_the_chosen_variant_is_told(
    several: Bundle, picture: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it was timed, by what runs, by what measures, and afterwards; --variant forces one."""
    run = ["run", str(several.root), "--input", str(picture)]
    why = "; int8 takes 4 ms here, fp32 3"

    def said(*line: str) -> str:
        assert main(list(line)) == 0
        return capsys.readouterr().err

    inspect = ["inspect", str(several.root)]
    assert "opening times int8, fp32 once and takes the quickest" in said(*inspect)
    assert f"note: variant fp32 in onnx{why}" in said(*run, "--engine", "onnx")
    said(*run)
    assert "note: opening takes variant fp32 in " in (known := said(*inspect))
    assert why in known
    assert said(*run, "--variant", "int8") == ""
    assert main([*run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variant"] == "fp32"
    assert main([*inspect, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chosen"]["variant"] == "fp32"
    measured = {}

    def bench(root: Path, **given: object) -> tuple[dict[str, object], str]:
        measured.update(given)
        return {}, ""

    monkeypatch.setattr("onhand.device.networks.bench.bench_network", bench)
    assert f"note: variant fp32 in {measured.get('engine', '')}" in said("bench", str(several.root))
    assert measured["variant"] == "fp32"


def test_a_variant_that_is_not_taken_is_told(several: Bundle, capsys: Capture) -> None:
    """Where only the default one may be taken, too."""
    (several.root / "report.json").unlink()

    assert main(["inspect", str(several.root)]) == 0

    said = capsys.readouterr().err
    assert "opening takes variant int8; fp32 is not taken unasked: no report says" in said
