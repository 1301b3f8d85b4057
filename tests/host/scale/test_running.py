"""Sweeps of real builds: bundles, refusals and failures, and the table of all."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import pytest
from tests.models import CONFIG, sample_text, write_checkpoint

from onhand.cli.main import main
from onhand.core.bundle import read_bundle
from onhand.core.errors import InputError
from onhand.host.scale.executor import LocalExecutor, Lost
from onhand.host.scale.running import run_sweep, sweep_page
from onhand.host.scale.sweep import Sweep
from onhand.host.scale.trial import Trial, TrialResult, pack, run_trial, unpack

pytest.importorskip("onnx", reason="builds bundles: needs onhand[host]")

_T = TypeVar("_T")
_R = TypeVar("_R")
SWEEP = """format = 1
[[source]]
name = "tiny"
from = "tiny-llama"
[[source]]
name = "missing"
from = "nowhere"
[[budget]]
name = "free"
limits = ""
[[budget]]
name = "narrow"
limits = "disk=1kB"
[options]
bits = 4
method = "rtn"
calibrate = "text.txt"
threads = 1
no_original = true
"""


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of a small model and of one that is not there."""
    folder = tmp_path_factory.mktemp("sweep")
    write_checkpoint(folder / "tiny-llama", CONFIG)
    (folder / "text.txt").write_text(sample_text(500, seed=1), encoding="utf-8")
    (folder / "sweep.toml").write_text(SWEEP, encoding="utf-8")
    return folder / "sweep.toml"


@pytest.mark.slow
def test_a_sweep_leaves_bundles_and_a_table(
    sweep_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is refused or fails is a line like others; going on builds nothing again."""
    words = ["sweep", str(sweep_file), "-o", str(tmp_path / "out"), "--json"]

    code = main(words)
    table = json.loads(capsys.readouterr().out)

    assert code == 1  # one source is not there
    rows = {row["name"]: row for row in table["trials"]}
    outcomes = {name: row["outcome"] for name, row in rows.items()}
    assert outcomes["tiny-free"] == "built"
    assert outcomes["tiny-narrow"] == "refused"
    assert outcomes["missing-free"] == outcomes["missing-narrow"] == "failed"
    assert rows["tiny-narrow"]["message"].startswith("disk: ")
    bundle = read_bundle(tmp_path / "out" / "tiny-free")
    assert rows["tiny-free"]["manifest_sha256"] == bundle.manifest_sha256
    assert rows["tiny-free"]["figures"]["size_bytes"]["value"] > 0
    assert json.loads((tmp_path / "out/sweep.json").read_text()) == table
    assert '<a href="tiny-free/report.html">' in (tmp_path / "out/sweep.html").read_text()

    main([*words, "--resume"])
    again = {row["name"]: row for row in json.loads(capsys.readouterr().out)["trials"]}
    assert again["tiny-free"] == rows["tiny-free"]
    assert again["missing-free"]["seconds"] != rows["missing-free"]["seconds"]


class _Scripted:
    """Gives results that were thought of before, in any order."""

    def __init__(self, results: dict[str, TrialResult | Lost], order: Sequence[int]) -> None:
        self.results = results
        self.order = order
        self.given: list[Trial] = []

    def map(
        self,
        work: Callable[[_T], _R],
        items: Sequence[_T],
        *,
        on_done: Callable[[int, _R | Lost], None] | None = None,
    ) -> list[_R | Lost]:
        """See `Executor`."""
        self.given = [cast(Trial, item) for item in items]
        results = [cast("_R | Lost", self.results[trial.name]) for trial in self.given]
        assert on_done is not None
        for number in self.order:
            on_done(number, results[number])
        return results


def trials(*names: str) -> Sweep:
    """A sweep of some trials."""
    made = [Trial(name=n, source=n, device="", budget="", words=(n,)) for n in names]
    return Sweep(name="sweep", trials=tuple(made), is_timed=False)


def test_the_table_is_in_the_sweeps_order(tmp_path: Path, home: Path) -> None:
    """Whoever is done first; a worker that dies each time is a line as well."""
    results: dict[str, TrialResult | Lost] = {
        "a": TrialResult(name="a", outcome="refused", message="too large"),
        "b": Lost("its worker died"),
    }

    table = run_sweep(trials("a", "b"), tmp_path / "out", _Scripted(results, [1, 0]), home=home)

    rows = table["trials"]
    assert isinstance(rows, list)
    assert [(row["name"], row["outcome"], row["message"]) for row in rows] == [
        ("a", "refused", "too large"),
        ("b", "lost", "its worker died"),
    ]


def test_going_on_does_what_is_left_or_changed(tmp_path: Path, home: Path) -> None:
    """A refusal stands as long as the trial is the same; what was lost is tried again."""
    results: dict[str, TrialResult | Lost] = {
        "a": TrialResult(name="a", outcome="refused"),
        "b": Lost("x"),
        "c": TrialResult(name="c", outcome="refused"),
    }
    first = trials("a", "b", "c")
    run_sweep(first, tmp_path, _Scripted(results, [0, 1, 2]), home=home)
    changed = replace(first.trials[2], words=("c", "--bits", "8"))
    executor = _Scripted(results, [0, 1])

    run_sweep(
        replace(first, trials=(*first.trials[:2], changed)),
        tmp_path,
        executor,
        home=home,
        is_resumed=True,
    )

    assert [trial.name for trial in executor.given] == ["b", "c"]


def test_what_is_there_is_not_written_over(tmp_path: Path, home: Path) -> None:
    """A bundle of another sweep stays."""
    (tmp_path / "a").mkdir()

    with pytest.raises(InputError, match="exists already; choose another folder"):
        run_sweep(trials("a"), tmp_path, LocalExecutor(), home=home)


def test_a_damaged_table_is_told(tmp_path: Path, home: Path) -> None:
    """It is not taken for an empty one."""
    (tmp_path / "sweep.json").write_text("[]")

    with pytest.raises(InputError, match="is not the table of a sweep"):
        run_sweep(trials("a"), tmp_path, LocalExecutor(), home=home, is_resumed=True)


def test_attack_names_and_reasons_are_text_on_the_page() -> None:
    """What a source's author wrote does not become the page's code."""
    row = {
        "name": "a",
        "source": "<script>",
        "device": "",
        "budget": "",
        "outcome": "failed",
        "message": "<img src=x>",
        "figures": {},
        "profile": "<b>",
    }

    page = sweep_page("<i>", [row])

    assert "<script>" not in page
    assert "<img" not in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_a_bundle_comes_back_whole(tmp_path: Path) -> None:
    """What was packed elsewhere is the same here."""
    (tmp_path / "made/deep").mkdir(parents=True)
    (tmp_path / "made/deep/file").write_bytes(b"content")

    unpack(pack(tmp_path / "made"), tmp_path / "here")

    assert (tmp_path / "here/deep/file").read_bytes() == b"content"


def test_times_are_not_judged_while_others_run(
    sweep_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials side by side would disturb each other's figures."""
    timed = sweep_file.with_name("timed.toml")
    timed.write_text(SWEEP.replace("disk=1kB", "decode=5"))

    assert main(["sweep", str(timed), "-o", str(tmp_path / "out"), "--at-once", "2"]) == 2
    assert "its budgets limit times" in capsys.readouterr().err


@pytest.mark.slow
def test_a_build_ends_with_who_asked_for_it(sweep_file: Path, tmp_path: Path) -> None:
    """A worker that is killed leaves no build running."""
    code = (
        "import sys; from onhand.cli.main import main; "
        f"main(['sweep', {str(sweep_file)!r}, '-o', {str(tmp_path / 'out')!r}])"
    )
    asked = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    child = until(lambda: children(asked.pid))

    asked.send_signal(signal.SIGKILL)
    asked.wait()

    assert until(lambda: [1] if not any(alive(pid) for pid in child) else [])


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def until(found: Callable[[], list[int]]) -> list[int]:
    """What is found once there is something."""
    end = time.monotonic() + 30
    while not (values := found()) and time.monotonic() < end:
        time.sleep(0.02)
    return values


def test_a_trial_without_a_folder_sends_its_bundle_back(tmp_path: Path) -> None:
    """A failure has the sentence of the build, and nothing is left."""
    trial = Trial(name="x", source="x", device="", budget="", words=(str(tmp_path / "none"),))

    result = run_trial(replace(trial, home=str(tmp_path / "home")))

    assert result.outcome == "failed"
    assert "none" in result.message
    assert result.packed is None
    assert not any(tmp_path.iterdir())
