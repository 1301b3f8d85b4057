"""What was learned is merged into a new bundle: other matrices keep their codes."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.adapters import ATTENTION, lora_factors, write_adapter

pytest.importorskip("torch", reason="builds a bundle that learns")

from onhand.cli.main import main
from onhand.core.adapter import read_adapter
from onhand.core.bundle import read_bundle
from onhand.core.errors import InputError
from onhand.core.measurement import Unit
from onhand.core.trusting import trusting
from onhand.core.weights import BundleWeights, open_weights
from onhand.device.learning.importing import Judges, import_learned
from onhand.device.learning.in_use import open_versions
from onhand.device.learning.lesson_files import read_lesson
from onhand.device.trust.checking import DeviceTrust
from onhand.device.trust.store import TrustStore
from onhand.host.build import build_bundle
from onhand.host.evaluate import find_original
from onhand.host.learning.wanted import parse_learnable
from onhand.host.merging import MergeOptions, merge_bundle
from onhand.host.options import BuildOptions
from onhand.host.passes.quantize import Quantize

Quick = dict[str, tuple[float, Unit]]
LORA = parse_learnable("lora,rank=4,targets=qkv")


@pytest.fixture
def built(tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick) -> Path:
    """A bundle of the tiny model that can learn."""
    build_bundle(str(tiny), shelf / "b", replace(options, learnable=LORA), home=home)
    return shelf / "b"


@pytest.fixture
def adapter(built: Path, tmp_path: Path) -> Path:
    """An adapter of the query matrix of the first layer."""
    decoder = read_bundle(built).manifest.decoder
    shape = (decoder.layers[0].query_width, decoder.width)
    factors = lora_factors({ATTENTION.format(0, "q"): shape})
    return write_adapter(tmp_path / "adapter", factors, {"lora_alpha": 2})


def weights(root: Path) -> BundleWeights:
    bundle = read_bundle(root)
    return open_weights(bundle, bundle.variant(None)[0])


def test_a_version_is_merged_without_the_original(
    built: Path, adapter: Path, shelf: Path, home: Path
) -> None:
    """What it changes is rounded anew in its own format, all else keeps its codes."""
    import_learned(built, adapter, Judges(is_waived=True), home=home)
    old = read_bundle(built)

    # Its original is measured as an earlier release of the same name, which nobody else may open.
    with trusting(DeviceTrust(TrustStore(home), now=time.time, allows_unsigned=True)):
        made = merge_bundle(built, shelf / "new", MergeOptions(threads=1), home=home)
        read_bundle(shelf / "new")

    before, after = weights(built), weights(shelf / "new")
    pairs = read_adapter(adapter, old.manifest.decoder).pairs
    for name in old.manifest.decoder.matrices():
        assert after.format(name) == before.format(name)
        if name not in pairs:
            np.testing.assert_array_equal(after.matrix(name), before.matrix(name))
    wanted = before.matrix("layers.0.qkv") + pairs["layers.0.qkv"][1] @ pairs["layers.0.qkv"][0]
    away = np.linalg.norm(after.matrix("layers.0.qkv") - wanted) / np.linalg.norm(wanted)
    assert away < 0.15  # 4 bits
    new = read_bundle(shelf / "new")
    assert new.manifest.version == old.manifest.version + 1
    assert new.manifest.provenance["merged"] == {
        "bundle_sha256": old.manifest_sha256,
        "bundle_version": old.manifest.version,
        "learned_version": 1,
    }
    assert made.report["manifest_sha256"] == new.manifest_sha256
    assert read_lesson(new).trainables == read_lesson(old).trainables
    assert open_versions(shelf / "new", home).current().number == 0
    # What it is compared with can be found again.
    assert find_original(home, new, None, None).adapter_sha256


def test_an_adapter_is_merged_into_the_original(
    tiny: Path, built: Path, adapter: Path, shelf: Path, home: Path, options: BuildOptions
) -> None:
    """As a build of the original with the adapter does, in the bundle's formats."""
    made = MergeOptions(adapter=adapter, source=str(tiny), threads=1, measure_original=False)

    merge_bundle(built, shelf / "new", made, home=home)

    build_bundle(str(tiny), shelf / "built", replace(options, adapter=adapter), home=home)
    expected, found = weights(shelf / "built"), weights(shelf / "new")
    for name in read_bundle(built).manifest.decoder.matrices():
        np.testing.assert_array_equal(found.matrix(name), expected.matrix(name))


def test_scales_of_8_bits_stay_so(
    tiny: Path, adapter: Path, shelf: Path, home: Path, options: BuildOptions
) -> None:
    """Also those of what is rounded anew."""
    few = replace(options, transforms={"int4": Quantize(method="rtn", scale_bits=8)})
    build_bundle(str(tiny), shelf / "few", few, home=home)
    asked = MergeOptions(adapter=adapter, threads=1, measure_original=False)

    merge_bundle(shelf / "few", shelf / "new", asked, home=home)

    old, new = read_bundle(shelf / "few").manifest, read_bundle(shelf / "new").manifest
    variant = new.variants[new.default_variant]
    assert variant.sparse.keys() == old.variants[old.default_variant].sparse.keys()
    assert variant.sparse
    recipe = new.provenance["recipe"]
    assert isinstance(recipe, dict)
    assert recipe[new.default_variant]["scale_bits"] == 8


def test_nothing_learned_is_refused(
    built: Path, shelf: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to give; no folder is left."""
    assert main(["merge", str(built), "-o", str(shelf / "new")]) == 2
    assert "nothing learned to merge" in capsys.readouterr().err
    assert not (shelf / "new").exists()


def test_one_thing_is_merged(tmp_path: Path) -> None:
    """A version and an adapter exclude each other."""
    with pytest.raises(InputError, match="one of the two"):
        MergeOptions(adapter=tmp_path, version=1)


def test_the_command_shows_the_report(
    built: Path, adapter: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says that some matrices were rounded twice."""
    given = ["merge", str(built), "-o", str(shelf / "new"), "--adapter", str(adapter)]

    assert main([*given, "--threads", "1", "--no-original", "--json"]) == 0

    said = capsys.readouterr()
    assert json.loads(said.out)["manifest_sha256"] == read_bundle(shelf / "new").manifest_sha256
    assert "rounded a second time" in said.err
