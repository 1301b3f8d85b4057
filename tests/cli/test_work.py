"""Building, judging and measuring: what is passed on, what is shown, what is refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.cli.conftest import DEVICE, FakeHost, measurement, report_of

from onhand.cli.main import main
from onhand.core.budget import Budget
from onhand.core.bundle import Bundle
from onhand.core.errors import BudgetExceeded
from onhand.core.measurement import Measurement
from onhand.core.profile import DeviceProfile, read_profile, render_profile
from onhand.host.learning.wanted import Learnable
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize

Capture = pytest.CaptureFixture[str]
QUALITY = ("perplexity", "original_perplexity", "kl_divergence", "top1_agreement")


@dataclass(frozen=True)
class Built:
    """See `BuildResult`."""

    root: Path
    report: Mapping[str, object]


def test_build_passes_everything_on(
    host: FakeHost, bundle: Bundle, home: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Sizes, limits and the device are read before any work; the report is the result."""
    host.outcome = Built(root=bundle.root, report=report_of(bundle))
    (tmp_path / "board.toml").write_text(render_profile(DEVICE))
    line = "--variants int8,int4 --method rtn --group 64 --asymmetric --embed-bits 8 --threads 2"
    line += f" --budget disk=1MiB,quality=1% --max-ram 4GiB --device {tmp_path / 'board.toml'}"
    line += " --calibrate words.txt --accept-estimates --no-original --accuracy-level 0 --json"
    line += " --adapter lora --learnable lora,rank=4,targets=qkv+down"

    assert main(["build", "a/model", "-o", "out", *line.split()]) == 0

    (name, arguments, options) = host.calls[0]
    progress = options.pop("progress")
    assert hasattr(progress, "advance")
    assert options == {"home": home}
    usual = Quantize(group_size=64, symmetric=False, method="rtn", embed_bits=8)
    asked = BuildOptions(
        transforms={"int8": replace(usual, bits=8), "int4": usual},
        budget=Budget(size_bytes=2**20, perplexity_increase=0.01),
        device=DEVICE,
        calibrate=Path("words.txt"),
        max_ram=4 * 2**30,
        accept_estimates=True,
        accuracy_level=0,
        threads=2,
        measure_original=False,
        adapter=Path("lora"),
        learnable=Learnable(kind="lora", rank=4, targets=("qkv", "down")),
    )
    assert (name, arguments) == ("build", ("a/model", Path("out"), asked))
    assert list(asked.transforms) == ["int8", "int4"]
    shown, told = capsys.readouterr()
    assert json.loads(shown) == json.loads(json.dumps(report_of(bundle)))
    assert str(bundle.root) in told


def test_a_recipe_may_say_what_is_learned(
    host: FakeHost, bundle: Bundle, tmp_path: Path, capsys: Capture
) -> None:
    """It, or the option, but not both."""
    host.outcome = Built(root=bundle.root, report=report_of(bundle))
    recipe = tmp_path / "r.toml"
    recipe.write_text('learnable = "lora,rank=2"\n[[step]]\npass = "quantize"\n')

    assert main(["build", "m", "-o", "out", "--recipe", str(recipe)]) == 0
    asked = host.calls[0][1][2]
    assert isinstance(asked, BuildOptions)
    assert asked.learnable == Learnable(kind="lora", rank=2)
    both = ["build", "m", "-o", "out", "--recipe", str(recipe), "--learnable", "lora"]
    assert main(both) == 2
    assert "says what is learnable already" in capsys.readouterr().err


def test_build_shows_people_the_evidence(host: FakeHost, bundle: Bundle, capsys: Capture) -> None:
    """Without options it is one int4 variant, or the source's own codes where it has some."""
    host.outcome = Built(root=bundle.root, report=report_of(bundle))

    assert main(["build", "a/model", "-o", "out"]) == 0

    asked = host.calls[0][1][2]
    assert asked == BuildOptions(transforms={"int4": Quantize()}, keep_codes=True)
    assert "Size on disk" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ("", True),
        ("--embed-bits 8", True),
        ("--bits 4", False),
        ("--method rtn", False),
        ("--group 64 --embed-bits 8", False),
        ("--asymmetric", False),
        ("--variants int4", False),
        ("--recipe recipe.toml", False),
    ],
)
def test_codes_of_a_quantised_source_are_kept_unless_rounding_is_asked_for(
    host: FakeHost,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    kept: bool,
) -> None:
    """`--embed-bits` is about what such a source left plain."""
    host.outcome = Built(root=bundle.root, report=report_of(bundle))
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text('[[step]]\npass = "quantize"\n')

    assert main(["build", "a/model", "-o", "out", *options.split()]) == 0

    asked = host.calls[0][1][2]
    assert isinstance(asked, BuildOptions)
    assert asked.keep_codes is kept


def test_the_help_names_the_defaults_of_the_pass() -> None:
    """The defaults are the dataclass's; the help repeats them."""
    usual = Quantize()

    assert (usual.bits, usual.method, usual.group_size) == (4, "clip", 32)


def test_a_budget_that_does_not_hold_ends_with_its_own_code(
    host: FakeHost, capsys: Capture
) -> None:
    """The sentence is the host's: figure and nearest setting."""
    host.outcome = BudgetExceeded("disk: is 2 MiB, at most 1 MiB allowed; try --bits 4")

    assert main(["build", "m", "-o", "out", "--json"]) == 4
    shown, told = capsys.readouterr()
    assert shown == ""
    assert told == "onhand build: disk: is 2 MiB, at most 1 MiB allowed; try --bits 4\n"


@pytest.mark.parametrize("command", ["build m -o out", "build m --plan", "evaluate b --text t"])
@pytest.mark.parametrize("package", ["onnx", "huggingface_hub"])
def test_a_missing_host_extra_is_named(
    command: str, package: str, host: FakeHost, capsys: Capture
) -> None:
    """One sentence says what to install."""
    host.outcome = ModuleNotFoundError(f"No module named {package!r}", name=package)

    assert main(command.split()) == 2
    told = capsys.readouterr().err
    assert f"needs {package}, which is not installed" in told
    assert 'pip install "onhand[host]"' in told


def test_another_import_error_is_not_blamed_on_the_extra(host: FakeHost) -> None:
    """A mistake of ours is shown as one."""
    host.outcome = ImportError("cannot import name 'x'", name="onhand.host.build")

    with pytest.raises(ImportError, match="cannot import name"):
        main(["build", "m", "-o", "out"])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "give -o NAME, or --plan"),
        ("-o x --accuracy-level 3", "accuracy level is 3, must be 0, 1 or 4"),
        ("-o x --max-ram lots", "--max-ram: 'lots' is not a number"),
        ("-o x --max-ram 0", "must be above 0"),
        ("-o x --budget dsk=1", "did you mean 'disk'?"),
        ("-o x --bits 5", "bits is 5"),
        ("-o x --method best", "must be one of rtn, hqq, clip"),
        ("-o x --group 0", "group_size is 0"),
        ("-o x --variants int8,int5", "unknown 'int5'; known: int2, int3, int4, int8"),
        ("-o x --variants int8,int8", "'int8' is given twice"),
        ("-o x --variants int8 --bits 4", "leave --bits out"),
        ("-o x --recipe r.toml --group 32", "--recipe says all that --group says"),
        ("-o x --recipe r.toml --asymmetric", "--recipe says all that --asymmetric says"),
        ("-o x --recipe none.toml", "recipe none.toml cannot be read"),
        ("-o x --device none.toml", "none.toml cannot be read"),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    line: str, sentence: str, host: FakeHost, capsys: Capture
) -> None:
    """Each says what was found and what is expected."""
    assert main(["build", "m", *line.split()]) == 2
    assert sentence in capsys.readouterr().err
    assert host.calls == []


def test_evaluate_gives_programs_measurements(host: FakeHost, home: Path, capsys: Capture) -> None:
    """Every figure is a `Measurement` object under its name."""
    host.outcome = {name: measurement(name, 1.25) for name in QUALITY}

    line = "evaluate b --text t.txt --original m --original-adapter l --variant int4 --json"
    line += " --max-tokens 99 --kv int8 --prefill bf16"
    assert main(line.split()) == 0

    table = json.loads(capsys.readouterr().out)
    assert list(table) == sorted(QUALITY)
    assert table["perplexity"] == {
        **measurement("perplexity", 1.25).to_json(),
        "interval": [0.5, 1.5],
    }
    _, arguments, options = host.calls[0]
    del options["progress"]
    assert arguments == (Path("b"), Path("t.txt"))
    assert options == {
        "version": None,
        "original": Path("m"),
        "original_adapter": Path("l"),
        "variant": "int4",
        "engine": None,
        "threads": None,
        "kv": "int8",
        "prefill": "bf16",
        "max_tokens": 99,
        "home": home,
    }


def test_a_figure_that_is_no_number_is_no_json(host: FakeHost, capsys: Capture) -> None:
    """NaN is an engine's failure, not a line that parsers reject."""
    host.outcome = {"perplexity": measurement("perplexity", float("nan"))}

    assert main(["evaluate", "b", "--text", "t", "--json"]) == 5
    shown, told = capsys.readouterr()
    assert shown == ""
    assert "cannot be written as JSON" in told


def test_the_home_folder_is_the_usual_one_without_a_variable(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONHAND_HOME goes before the user's own folder for state."""
    monkeypatch.delenv("ONHAND_HOME")
    monkeypatch.setattr("onhand.device.state.default_home", lambda: Path("usual"))
    host.outcome = {name: measurement(name, 1.0) for name in QUALITY}

    assert main(["evaluate", "b", "--text", "t"]) == 0
    assert host.calls[0][2]["home"] == Path("usual")


def test_bench_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Figures are shown with their spread, and marked where they are estimates."""
    calls: list[tuple[Path, dict[str, object]]] = []

    def bench(root: Path, **options: object) -> dict[str, Measurement]:
        calls.append((root, options))
        joules = Measurement(
            name="energy_j_per_token",
            value=0.5,
            unit="joule",
            samples=3,
            spread=0.1,
            how="x",
            estimated=True,
        )
        size, reading = measurement("size_bytes", 2048.0), measurement("read_bandwidth", 3e9)
        reading = replace(reading, unit="byte/s", interval=None)
        return {figure.name: figure for figure in (joules, size, reading)}

    monkeypatch.setattr("onhand.cli.bench.bench", bench)

    line = "bench b --prompt-tokens 8 --generated-tokens 4 --runs 2 --threads 1"
    line += " --head two-stage --kv int8 --prefill bf16"
    assert main(line.split()) == 0
    shown = capsys.readouterr().out
    assert "about 500 mJ" in shown
    assert "estimate" in shown
    assert "2.0 KiB" in shown
    assert "3.0 GB/s" in shown
    assert "measured by: x\n" in shown
    assert main(["bench", "b", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        "energy_j_per_token",
        "size_bytes",
        "read_bandwidth",
    }
    root, options = calls[0]
    del options["progress"], options["home"]
    assert root == Path("b")
    assert options == {
        "version": None,
        "variant": None,
        "engine": None,
        "threads": 1,
        "head": "two-stage",
        "kv": "int8",
        "prefill": "bf16",
        "prompt_tokens": 8,
        "generated_tokens": 4,
        "runs": 2,
    }


def test_probe_saves_a_profile_that_build_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    """The table is for people, the file for `--device`."""

    def probe(*_: object, **__: object) -> DeviceProfile:
        return DEVICE

    monkeypatch.setattr("onhand.device.probe.probe", probe)
    place = tmp_path / "board.toml"

    assert main(["probe", "-o", str(place)]) == 0
    assert "Board 1" in capsys.readouterr().out
    assert read_profile(place) == DEVICE

    assert main(["probe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usable_threads"] == DEVICE.usable_threads
