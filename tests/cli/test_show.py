"""What a bundle holds, whether it is whole, and what was measured for it."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import FakeHost

from onhand.cli.main import main
from onhand.core.bundle import Bundle
from onhand.core.errors import InputError
from onhand.device.engines.reference import ReferenceEngine

Capture = pytest.CaptureFixture[str]


def test_inspect_describes_every_variant(bundle: Bundle, capsys: Capture) -> None:
    """Bits, sizes and engines are shown, with the reason where an engine cannot run one."""
    assert main(["inspect", str(bundle.root)]) == 0

    shown, told = capsys.readouterr()
    assert "int8 (default)" in shown
    assert "128 tokens" in shown
    assert "int3 in groups of 32, symmetric" in shown
    assert "note: onnx cannot run int3 here: " in told


def test_inspect_gives_programs_one_object(bundle: Bundle, capsys: Capture) -> None:
    """Standard output is JSON and nothing else."""
    assert main(["inspect", str(bundle.root), "--json"]) == 0

    table = json.loads(capsys.readouterr().out)
    assert table["n_parameters"] == bundle.manifest.decoder.n_parameters
    assert table["default_variant"] == "int8"
    assert table["manifest_sha256"] == bundle.manifest_sha256
    assert table["variants"]["int8"]["bits_per_weight"] == 8 + 16 / 32
    assert table["variants"]["int8"]["size_bytes"] == bundle.size_bytes("int8")
    assert table["variants"]["int8"]["engines"]["reference"] is None
    assert "3-bit" in table["variants"]["int3"]["engines"]["onnx"]


def test_inspect_tells_of_an_engine_that_does_not_load(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Another package's broken engine is named with its reason; ours are shown all the same."""

    def load(_: str, name: str) -> object:
        if name == "onnx":
            raise InputError("engine 'onnx' cannot be loaded: no libgomp")
        return ReferenceEngine

    monkeypatch.setattr("onhand.cli.inspect.load_plugin", load)

    assert main(["inspect", str(bundle.root), "--json"]) == 0
    engines = json.loads(capsys.readouterr().out)["variants"]["int8"]["engines"]
    assert engines["onnx"] == "engine 'onnx' cannot be loaded: no libgomp"
    assert engines["reference"] is None


def test_inspect_reads_the_manifest_alone(bundle: Bundle, capsys: Capture) -> None:
    """A bundle of many gigabytes is described at once, even where files are missing."""
    bundle.path("int8.safetensors").unlink()

    assert main(["inspect", str(bundle.root)]) == 0
    assert "assistant" in capsys.readouterr().out


def test_verify_says_that_all_is_as_listed(bundle: Bundle, capsys: Capture) -> None:
    """And that nobody vouches for the manifest itself."""
    assert main(["verify", str(bundle.root)]) == 0

    shown = capsys.readouterr().out
    assert shown.startswith("4 files, ")
    assert bundle.manifest_sha256 in shown
    assert "signature none" in shown
    assert "unlisted" not in shown


def test_verify_lists_files_that_nobody_vouches_for(bundle: Bundle, capsys: Capture) -> None:
    """Files and links beside the listed ones are named, in folders as well."""
    (bundle.root / "more").mkdir()
    (bundle.root / "more" / "payload.bin").write_bytes(b"x")
    (bundle.root / "link").symlink_to("elsewhere")

    assert main(["verify", str(bundle.root), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["unlisted"] == ["link", "more/payload.bin"]
    assert table["signature"] == "none"

    assert main(["verify", str(bundle.root)]) == 0
    shown = capsys.readouterr().out
    assert "'more/payload.bin' is not in the manifest" in shown


def test_verify_refuses_a_signature_that_is_none(bundle: Bundle, capsys: Capture) -> None:
    """What stands in its place must be one."""
    (bundle.root / "signature").write_bytes(b"x" * 64)

    assert main(["verify", str(bundle.root)]) == 7
    assert "its signature cannot be read" in capsys.readouterr().err


def test_verify_finds_one_changed_byte(bundle: Bundle, capsys: Capture) -> None:
    """The exit code is 3, and nothing is on stdout."""
    place = bundle.path("int3.safetensors")
    place.write_bytes(place.read_bytes()[:-1] + b"!")

    assert main(["verify", str(bundle.root), "--json"]) == 3
    shown, told = capsys.readouterr()
    assert shown == ""
    assert "'int3.safetensors' has SHA-256" in told


def test_report_shows_variants_beside_the_original(bundle: Bundle, capsys: Capture) -> None:
    """Figures, verdicts on the budget, where it was measured, and the notes."""
    assert main(["report", str(bundle.root)]) == 0

    shown, told = capsys.readouterr()
    assert "Size on disk" in shown
    assert "0.35x" in shown
    assert "int3" in shown
    assert "holds" in shown
    assert "onnxruntime 1.31" in shown
    assert "note: the machine was busy" in told


def test_a_figure_that_is_missing_is_told(bundle: Bundle, capsys: Capture) -> None:
    """Why the original has no speed is said; a failed limit is marked."""
    place = bundle.root / "report.json"
    table = json.loads(place.read_text())
    table["original"]["missing"] = "not asked for"
    table["budget"]["limits"] = {"load": 0.1}
    place.write_text(json.dumps(table))

    assert main(["report", str(bundle.root)]) == 0

    shown, told = capsys.readouterr()
    assert "FAILS: was not measured" in shown
    assert "note: figures of the original: not asked for" in told


def test_report_gives_programs_the_file(bundle: Bundle, capsys: Capture) -> None:
    """--json prints what report.json holds."""
    (bundle.root / "report.html").write_text("<p>")

    assert main(["report", str(bundle.root), "--json"]) == 0

    shown, told = capsys.readouterr()
    assert json.loads(shown) == json.loads((bundle.root / "report.json").read_text())
    assert f"{bundle.root}/report.html" in told


def test_report_writes_a_page_where_it_is_told(
    bundle: Bundle, host: FakeHost, tmp_path: Path, capsys: Capture
) -> None:
    """--html makes the page anew, in the bundle or at a path."""
    host.outcome = "<p>page</p>"

    assert main(["report", str(bundle.root), "--html"]) == 0
    assert main(["report", str(bundle.root), "--html", str(tmp_path / "page.html")]) == 0

    assert (bundle.root / "report.html").read_text() == "<p>page</p>"
    assert (tmp_path / "page.html").read_text() == "<p>page</p>"
    assert f"note: as a page with plots: {tmp_path / 'page.html'}\n" in capsys.readouterr().err


def test_a_page_without_plotting_says_what_to_install(
    bundle: Bundle, host: FakeHost, capsys: Capture
) -> None:
    """A device lacks matplotlib; one sentence says so."""
    host.outcome = ModuleNotFoundError("no", name="matplotlib.figure")

    assert main(["report", str(bundle.root), "--html"]) == 2
    assert capsys.readouterr().err == (
        "onhand report: the page needs matplotlib, which is not installed: "
        'pip install "onhand[host]"\n'
    )


def test_a_path_without_html_is_a_mistake(bundle: Bundle, capsys: Capture) -> None:
    """Nothing is written by accident."""
    assert main(["report", str(bundle.root), "page.html"]) == 2
    assert "as in --html page.html" in capsys.readouterr().err


def _second(bundle: Bundle, place: Path) -> Path:
    """Another device's report of the same bundle, alone in a file."""
    table = json.loads((bundle.root / "report.json").read_text())
    table["device"] = {**table["device"], "processor": "another", "name": "board-b"}
    place.write_text(json.dumps(table))
    return place


def test_two_reports_stand_side_by_side(bundle: Bundle, tmp_path: Path, capsys: Capture) -> None:
    """A bundle beside itself, and beside the report of another device, which is said."""
    assert main(["report", str(bundle.root), str(bundle.root)]) == 0
    shown, told = capsys.readouterr()
    assert "assistant (second)" in shown
    assert "same within the spread" in shown
    assert told == ""

    other = _second(bundle, tmp_path / "board.json")
    assert main(["report", str(bundle.root), str(other)]) == 0
    shown, told = capsys.readouterr()
    assert "1.000x" in shown
    assert "note: other devices: " in told


def test_two_reports_as_json_and_as_a_page(
    bundle: Bundle, host: FakeHost, tmp_path: Path, capsys: Capture
) -> None:
    """Plain numbers for programs; the page goes where -o says."""
    host.outcome = "<p>two</p>"
    place = tmp_path / "two.html"

    assert main(["report", str(bundle.root), str(bundle.root), "-o", str(place), "--json"]) == 0

    assert place.read_text() == "<p>two</p>"
    table = json.loads(capsys.readouterr().out)
    assert table["rows"][0] == {
        "measurement": "size_bytes",
        "first": "700 B",
        "second": "700 B",
        "ratio": 1.0,
        "range": [1.0, 1.0],
        "difference": "same",
        "remark": "",
    }


def test_one_page_goes_where_o_says(bundle: Bundle, host: FakeHost, tmp_path: Path) -> None:
    """As --html with a path does."""
    host.outcome = "<p>one</p>"

    assert main(["report", str(bundle.root), "-o", str(tmp_path / "one.html")]) == 0
    assert (tmp_path / "one.html").read_text() == "<p>one</p>"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--html", "a.html", "-o", "b.html"], "b.html or to a.html? give one of them"),
        (["--repair", "-o", "b.html"], "leave --html, -o and --json out"),
        (["none.json"], "has no none.json"),
    ],
)
def test_what_does_not_go_together_is_told(
    arguments: list[str], sentence: str, bundle: Bundle, capsys: Capture
) -> None:
    """One sentence."""
    assert main(["report", str(bundle.root), *arguments]) == 2
    assert sentence in capsys.readouterr().err


REPAIR = {
    "added_bytes": 4096,
    "estimated": True,
    "recipe": 'name = "int8-repaired"\n',
    "remaining": 0.4,
    "share": 0.9,
    "worst": ["l0_down"],
}


def _with_repair(bundle: Bundle, repair: object) -> None:
    place = bundle.root / "report.json"
    table = json.loads(place.read_text())
    table["variants"]["int8"]["repair"] = repair
    place.write_text(json.dumps(table))


def test_repair_prints_the_recipe_alone(bundle: Bundle, capsys: Capture) -> None:
    """So that it goes into a file."""
    _with_repair(bundle, REPAIR)

    assert main(["report", str(bundle.root), "--repair"]) == 0

    assert capsys.readouterr().out.strip() == 'name = "int8-repaired"'


@pytest.mark.parametrize(
    ("repair", "options", "code", "sentence"),
    [
        (None, [], 2, "'int8' has no repair: nothing in it can be given more bits"),
        (REPAIR, ["--json"], 2, "--repair prints a recipe alone"),
        (REPAIR, ["--html"], 2, "--repair prints a recipe alone"),
        (REPAIR | {"recipe": 1}, [], 3, "variants.int8.repair.recipe is 1, must be a text"),
        (REPAIR | {"worst": "l0_down"}, [], 3, "variants.int8.repair.worst is str"),
    ],
)
def test_a_repair_that_cannot_be_shown_is_told(
    repair: object, options: list[str], code: int, sentence: str, bundle: Bundle, capsys: Capture
) -> None:
    """Nothing to repair, options that exclude each other, damage."""
    _with_repair(bundle, repair)

    assert main(["report", str(bundle.root), "--repair", *options]) == code
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "code", "sentence"),
    [
        (None, 2, "nothing was measured for it"),
        (b"{", 3, "not JSON"),
        (b" " * (16 * 2**20 + 1), 3, "is over 16777216 bytes"),
        (b"[]", 3, "is not a JSON object"),
        (b'{"format": 2}', 3, "format is 2, this reader knows 1"),
    ],
)
def test_a_report_that_cannot_be_used_is_refused(
    content: bytes | None, code: int, sentence: str, bundle: Bundle, capsys: Capture
) -> None:
    """Missing, damaged, or of a later format."""
    place = bundle.root / "report.json"
    place.unlink()
    if content is not None:
        place.write_bytes(content)

    assert main(["report", str(bundle.root)]) == code
    assert sentence in capsys.readouterr().err


def test_a_report_that_cannot_be_opened_is_told(bundle: Bundle, capsys: Capture) -> None:
    """A folder in its place is no report."""
    (bundle.root / "report.json").unlink()
    (bundle.root / "report.json").mkdir()

    assert main(["report", str(bundle.root)]) == 2
    assert "report.json: cannot be read" in capsys.readouterr().err


def test_attack_report_of_another_bundle(bundle: Bundle, capsys: Capture) -> None:
    """A better model's report cannot be shown for this one."""
    place = bundle.root / "report.json"
    place.write_text(place.read_text().replace(bundle.manifest_sha256, "f" * 64))

    assert main(["report", str(bundle.root)]) == 3
    assert "is the report of another bundle" in capsys.readouterr().err
