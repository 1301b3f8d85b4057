"""An interrupted build goes on from what is finished, and ends with the same bytes."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.host.killed_build import transforms
from tests.host.recorder import Recorder

from onhand.core.errors import InputError, ResourceError, SourceError
from onhand.core.measurement import Unit
from onhand.host.build import build_bundle
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize
from onhand.host.work import open_work

Quick = Mapping[str, tuple[float, Unit]]


@pytest.fixture
def options(text: Path) -> BuildOptions:
    """Statistics, and two variants."""
    return BuildOptions(transforms=transforms(), calibrate=text, threads=1, measure_original=False)


@pytest.fixture(scope="module")
def whole(tiny: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a build that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    line = [tiny, text, folder / "b", folder / "home", "no such stage", 0]
    _run(line, expected=0)
    return contents(folder / "b")


def contents(bundle: Path) -> dict[str, bytes]:
    """All files but the report."""
    return {
        path.name: path.read_bytes()
        for path in bundle.iterdir()
        if not path.name.startswith("report.")
    }


def interrupt(source: Path, out: Path, options: BuildOptions, home: Path) -> None:
    """Stop a build between two matrices."""
    progress = Recorder("quantizing", after=1)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(str(source), out, options, home=home, progress=progress)


def _run(line: list[object], *, expected: int) -> None:
    command = [sys.executable, "-m", "tests.host.killed_build", *map(str, line)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False, timeout=120)
    assert done.returncode == expected, done.stderr.decode()


@pytest.mark.parametrize(
    ("stage", "count"), [("running the original", 5), ("quantizing", 3), ("comparing", 0)]
)
def test_a_killed_build_is_resumed(
    tiny: Path,
    text: Path,
    shelf: Path,
    home: Path,
    options: BuildOptions,
    quick: Quick,
    whole: dict[str, bytes],
    stage: str,
    count: int,
) -> None:
    """Killed in the middle of a layer, between two matrices, in the proof: the same bytes."""
    _run([tiny, text, shelf / "b", home, stage, count], expected=-signal.SIGKILL)
    assert [path.name for path in shelf.iterdir()] == ["b.building"]

    build_bundle(str(tiny), shelf / "b", replace(options, resume=True), home=home)

    assert contents(shelf / "b") == whole
    assert [path.name for path in shelf.iterdir()] == ["b"]


@pytest.mark.parametrize("after", [0, 7, 16, 25, 36])
def test_a_build_interrupted_anywhere_is_resumed(
    tiny: Path,
    shelf: Path,
    home: Path,
    options: BuildOptions,
    quick: Quick,
    whole: dict[str, bytes],
    after: int,
) -> None:
    """Interrupted again and again, it still ends with the same bytes."""
    resumed = replace(options, resume=True)
    for stop in (after, after // 2 + 1, 10**9):
        progress = Recorder("i", after=stop)  # every stage has an i in its name
        try:
            build_bundle(str(tiny), shelf / "b", resumed, home=home, progress=progress)
        except KeyboardInterrupt:
            continue
        break

    assert contents(shelf / "b") == whole


def test_what_is_finished_is_not_done_again(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Neither a layer nor a matrix; the progress begins where it was."""
    first = Recorder("quantizing", after=3)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(str(tiny), shelf / "b", options, home=home, progress=first)
    made = sorted((shelf / "b.building" / "matrices" / "int4").iterdir())
    stamps = {path: path.stat().st_mtime_ns for path in made}
    assert stamps
    again = Recorder("quantizing", after=1)

    with pytest.raises(KeyboardInterrupt):
        build_bundle(
            str(tiny), shelf / "b", replace(options, resume=True), home=home, progress=again
        )

    assert {path: path.stat().st_mtime_ns for path in made} == stamps
    shutil.rmtree(shelf / "b.building")


def test_without_resume_nothing_is_taken_up(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Nor lost: the user decides."""
    interrupt(tiny, shelf / "b", options, home)

    with pytest.raises(InputError, match="interrupted build: go on with --resume, or remove"):
        build_bundle(str(tiny), shelf / "b", options, home=home)

    assert (shelf / "b.building" / "original" / "streams.npz").exists()


def test_another_build_is_not_resumed(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """And what differs is said, before any work."""
    interrupt(tiny, shelf / "b", options, home)
    other = replace(
        options, transforms={"int4": Quantize(method="gptq", bits=8)}, threads=2, resume=True
    )
    shown = Recorder()

    with pytest.raises(InputError, match=r"differ: recipe \(it was .*threads \(it was 1, now 2\)"):
        build_bundle(str(tiny), shelf / "b", other, home=home, progress=shown)

    assert shown.stages == ["reading the source"]
    assert (shelf / "b.building").exists()


def test_a_limit_may_change(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Limits and what is measured do not decide the bytes."""
    interrupt(tiny, shelf / "b", options, home)

    more = replace(options, resume=True, max_ram=2**33, measure_original=True)
    build_bundle(str(tiny), shelf / "b", more, home=home)

    assert (shelf / "b").is_dir()


def test_nothing_to_resume_is_said(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """The build begins; a script may always give --resume."""
    shown = Recorder()

    build_bundle(str(tiny), shelf / "b", replace(options, resume=True), home=home, progress=shown)

    assert any("nothing to resume" in note for note in shown.notes)


def test_memory_that_runs_out_keeps_what_is_finished(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """The sentence says where, and how to go on."""
    error = ResourceError("no more memory")
    shown = Recorder("quantizing", error=error, after=2)

    with pytest.raises(ResourceError, match=r"no more memory; what is finished is kept in .*--res"):
        build_bundle(str(tiny), shelf / "b", options, home=home, progress=shown)

    assert (shelf / "b.building" / "matrices").exists()


def test_a_source_that_changes_meanwhile_is_noticed(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick, tmp_path: Path
) -> None:
    """A bundle of two halves of two models would be worth nothing."""
    source = tmp_path / "source"
    shutil.copytree(tiny, source)

    class Meddling(Recorder):
        def start(self, what: str, total: float) -> None:  # type: ignore[explicit-override] # 3.11 has no override
            Recorder.start(self, what, total)
            if what.startswith("comparing"):
                config = source / "config.json"
                config.write_text(config.read_text().replace("1e-05", "1e-06"))

    with pytest.raises(SourceError, match="changed while it was built from"):
        build_bundle(str(source), shelf / "b", options, home=home, progress=Meddling())

    assert list(shelf.iterdir()) == []


def test_attack_damaged_work_is_refused(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Cut short, changed or no JSON: one sentence that says what to remove."""
    with pytest.raises(KeyboardInterrupt):
        build_bundle(str(tiny), shelf / "b", options, home=home, progress=Recorder("comparing"))
    work = shelf / "b.building"
    resumed = replace(options, resume=True)
    for place in (
        work / "original" / "streams.npz",
        work / "original" / "layers.0.qkv.npy",
        work / "matrices" / "int4" / "layers.1.down.npz",
    ):
        whole = place.read_bytes()
        place.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ResourceError, match=r"is damaged; remove .*b\.building and build"):
            build_bundle(str(tiny), shelf / "b", resumed, home=home)
        place.write_bytes(whole)
    (work / "fingerprint.json").write_text("{")
    with pytest.raises(InputError, match="is damaged; remove"):
        build_bundle(str(tiny), shelf / "b", resumed, home=home)
    shutil.rmtree(work)


def test_a_place_that_another_build_works_in(tmp_path: Path) -> None:
    """The second one says so at once; the first one is not disturbed."""
    with open_work(tmp_path / "b", {"n": 1}, resume=False) as work:
        with (
            pytest.raises(InputError, match="another build works in"),
            open_work(tmp_path / "b", {"n": 1}, resume=True),
        ):
            pass
        assert work.root.is_dir()

    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    """Nobody's file is removed."""
    (tmp_path / "b.building").write_text("mine")

    with (
        pytest.raises(InputError, match="is in the way"),
        open_work(tmp_path / "b", {}, resume=False),
    ):
        pass

    assert (tmp_path / "b.building").read_text() == "mine"


def test_trained_scales_are_taken_up(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """A build stopped after training does not train again, and ends with the same bytes."""
    pytest.importorskip("torch", reason="trains scales")
    trained = replace(options, transforms={"int4": Quantize(method="awq+gptq", distil=1)})
    once, first, again = Recorder(), Recorder("comparing"), Recorder()

    build_bundle(str(tiny), shelf / "a", trained, home=home, progress=once)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(str(tiny), shelf / "b", trained, home=home, progress=first)
    build_bundle(str(tiny), shelf / "b", replace(trained, resume=True), home=home, progress=again)

    assert "training scales" in once.stages
    assert any("training the scales took the divergence" in note for note in once.notes)
    assert "training scales" not in again.stages
    assert contents(shelf / "b") == contents(shelf / "a")
