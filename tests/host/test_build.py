"""From a checkpoint to a proven bundle, and what a failure leaves: nothing."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.host.recorder import Recorder
from tests.host.test_pack import Third
from tests.models import CONFIG, checkpoint_shapes, random_tensors, write_checkpoint

from onhand import native
from onhand.core.bundle import read_bundle
from onhand.core.errors import InputError, OnhandError, ResourceError, SourceError
from onhand.core.measurement import Unit
from onhand.core.safetensors import SafetensorsWriter
from onhand.device.opening import open as open_bundle
from onhand.host.build import build_bundle, plan_build
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize

Quick = dict[str, tuple[float, Unit]]
INT4 = {"int4": Quantize(method="rtn")}


def test_a_bundle_is_built_proven_and_speaks(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick_bench: Quick
) -> None:
    """The whole way, with every stage shown from beginning to end."""
    shown = Recorder()

    result = build_bundle(str(tiny), shelf / "b", options, home=home, progress=shown)

    bundle = read_bundle(shelf / "b")
    assert result.root == shelf / "b"
    assert json.loads((shelf / "b" / "report.json").read_text()) == result.report
    assert (shelf / "b" / "report.html").read_text().startswith("<!doctype html>")
    assert bundle.manifest.provenance["onhand"]
    assert result.report["manifest_sha256"] == bundle.manifest_sha256
    assert shown.unfinished == []
    assert "quantizing" in shown.stages
    with open_bundle(shelf / "b", threads=1) as session:
        expected = "onnx" if native.module is None else "native"
        assert session.engine_name == expected


def test_the_plan_says_what_the_build_then_takes(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Size from shapes alone; the plan itself reads no weight and writes nothing."""
    many = replace(options, transforms={"int8": Quantize(bits=8, method="rtn"), **INT4})

    plan = plan_build(str(tiny), many)

    assert list(shelf.iterdir()) == []
    build_bundle(str(tiny), shelf / "b", many, home=home)
    bundle = read_bundle(shelf / "b")
    for name in many.transforms:
        assert abs(plan.size_bytes[name] - bundle.size_bytes(name)) <= 4096 + 64
    assert plan.minutes > 0
    assert json.dumps(plan.to_json())


def test_a_plan_does_not_read_the_weights(
    tmp_path: Path, options: BuildOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are no numbers are found by the build, not by the plan."""
    tensors = random_tensors(checkpoint_shapes(CONFIG))
    for array in tensors.values():
        array[...] = np.nan
    folder = write_checkpoint(tmp_path / "nan", tensors=tensors)

    plan_build(str(folder), options)

    with pytest.raises(SourceError, match="holds a NaN"):
        build_bundle(str(folder), tmp_path / "b", options, home=tmp_path / "home")
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_two_builds_give_the_same_bytes(
    tiny: Path, shelf: Path, home: Path, text: Path, quick: Quick
) -> None:
    """Calibrated and clipped; manifest and weights, whatever the name of the folder."""
    options = BuildOptions(
        transforms={"int4": Quantize(), "int8": Quantize(bits=8, method="rtn")},
        calibrate=text,
        threads=2,
    )

    for name in ("a", "b"):
        build_bundle(str(tiny), shelf / name, options, home=home)

    files = {path.name for path in (shelf / "a").iterdir()} - {"report.json", "report.html"}
    assert {"manifest.json", "model.onnx", "weights.safetensors"} < files
    for name in files:
        assert (shelf / "a" / name).read_bytes() == (shelf / "b" / name).read_bytes(), name


def test_a_bundle_holds_no_path(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick_bench: Quick
) -> None:
    """Neither the source's, nor the text's, nor its own: it may travel."""
    build_bundle(str(tiny), shelf / "b", options, home=home)

    for path in (shelf / "b").iterdir():
        content = path.read_bytes()
        for place in (tiny.parent, shelf, home, options.calibrate):
            assert str(place).encode() not in content, path.name


STAGES = ["reading", "running the original", "quantizing", "comparing", "measuring", "float32"]
STOPS: list[tuple[str, BaseException]] = [
    *((stage, KeyboardInterrupt()) for stage in STAGES),
    ("quantizing", MemoryError("no more")),
    ("quantizing", OSError(errno.EIO, "input/output error")),
    ("float32", OSError(errno.EIO, "input/output error")),
]


@pytest.mark.parametrize(("stage", "error"), STOPS)
def test_an_interrupted_build_leaves_what_it_can_go_on_from(
    tiny: Path,
    shelf: Path,
    home: Path,
    options: BuildOptions,
    quick: Quick,
    stage: str,
    error: BaseException,
) -> None:
    """Wherever it is stopped: no bundle, and before anything is finished no work either."""
    with pytest.raises(ResourceError if isinstance(error, OSError) else type(error)):
        build_bundle(
            str(tiny), shelf / "b", options, home=home, progress=Recorder(stage, error=error)
        )

    expected = [] if stage in {"reading", "running the original"} else ["b.building"]
    assert [path.name for path in shelf.iterdir()] == expected


@pytest.mark.parametrize("after", [0, 3])
def test_a_full_disk_is_one_sentence(
    tiny: Path,
    shelf: Path,
    home: Path,
    options: BuildOptions,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    """What is finished stays, for when there is room; nothing half-written beside it."""
    plain, left = SafetensorsWriter.write, [after]

    def write(self: SafetensorsWriter, name: str, array: np.ndarray) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        plain(self, name, array)

    monkeypatch.setattr(SafetensorsWriter, "write", write)

    with pytest.raises(ResourceError, match=r"No space left on device; what is .* --resume"):
        build_bundle(str(tiny), shelf / "b", options, home=home)

    assert [path.name for path in shelf.iterdir()] == ["b.building"]
    assert [path.name for path in (shelf / "b.building").glob(".*")] == []


def test_a_place_that_is_taken_is_left_alone(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions
) -> None:
    """Before any work."""
    (shelf / "b").mkdir()
    (shelf / "b" / "mine").write_text("precious")
    shown = Recorder()

    with pytest.raises(InputError, match="exists already"):
        build_bundle(str(tiny), shelf / "b", options, home=home, progress=shown)

    assert shown.stages == ["reading the source"]
    assert (shelf / "b" / "mine").read_text() == "precious"


def test_a_parent_that_is_missing_is_said(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions
) -> None:
    """Nobody guesses folders."""
    with pytest.raises(InputError, match="deep is not a folder; create it first"):
        build_bundle(str(tiny), shelf / "deep" / "b", options, home=home)


def test_two_builds_into_one_place(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """The first one wins, the second one says so at once; the place holds one whole bundle."""
    refused: list[str] = []

    class Meeting(Recorder):
        def start(self, what: str, total: float) -> None:  # type: ignore[explicit-override] # 3.11 has no override
            Recorder.start(self, what, total)
            if what == "quantizing":
                with pytest.raises(InputError) as caught:
                    build_bundle(str(tiny), shelf / "b", options, home=home)
                refused.append(str(caught.value))

    build_bundle(str(tiny), shelf / "b", options, home=home, progress=Meeting())

    assert refused == [
        f"another build works in {shelf / 'b.building'}; wait for it, or choose another name"
    ]
    assert [path.name for path in shelf.iterdir()] == ["b"]
    read_bundle(shelf / "b")


def test_a_third_partys_pass_is_built(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """Through the same door, its reasons in the report."""
    third = replace(options, transforms={"third": Third()})

    result = build_bundle(str(tiny), shelf / "b", third, home=home)

    assert "not in the MLP" in json.dumps(result.report)


@pytest.mark.parametrize("wrong", [Third(order=-1), Third(count=1), Third(bits=8)])
def test_a_third_partys_wrong_pass_leaves_nothing(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, wrong: Third
) -> None:
    """One of our errors."""
    with pytest.raises(OnhandError):
        build_bundle(
            str(tiny), shelf / "b", replace(options, transforms={"third": wrong}), home=home
        )

    assert list(shelf.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), SourceError),
        (lambda folder: (folder / "tokenizer_config.json").write_text("["), SourceError),
    ],
    ids=["tokenizer", "settings"],
)
def test_a_broken_tokenizer_is_the_sources_fault(
    tmp_path: Path, options: BuildOptions, damage: Callable[[Path], object], error: type[Exception]
) -> None:
    """Not a damaged bundle: there is none yet."""
    folder = write_checkpoint(tmp_path / "source")
    damage(folder)

    with pytest.raises(error):
        plan_build(str(folder), options)


@pytest.mark.slow
def test_the_real_benchmark_proves_a_bundle(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions
) -> None:
    """Processes of their own, every figure, the original beside it."""
    result = build_bundle(str(tiny), shelf / "b", options, home=home)

    text = json.dumps(result.report)
    for name in ("cold_start_s", "decode_tokens_per_s", "peak_memory_bytes", "kl_divergence"):
        assert text.count(f'"{name}"') >= 1
