"""`onhand build` on a source that is quantised already: as it is, unless rounding is asked for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.host.coded_checkpoints import (
    DOWN,
    V2,
    coded,
    codes_of,
    gptq_tensors,
    write_coded,
)
from tests.host.test_pack import Third
from tests.models import memory_model

import onhand
from onhand.cli.main import main
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat
from onhand.core.weights import open_weights
from onhand.host.build import plan_build
from onhand.host.options import BuildOptions
from onhand.host.passes.as_is import AsIs, choose_transforms
from onhand.host.passes.quantize import Quantize
from onhand.host.sources import load_model

pytestmark = pytest.mark.usefixtures("quick")
KNOWN = coded()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPTQ checkpoint."""
    return write_coded(tmp_path_factory.mktemp("source") / "tiny-gptq", KNOWN, gptq_tensors, V2)


def build(source: Path, out: Path, text: Path, *options: str) -> tuple[Bundle, Any]:
    """Build through the command line; the bundle and its report."""
    line = ["build", str(source), "-o", str(out), "--calibrate", str(text)]
    assert main([*line, "--no-original", *options]) == 0
    return read_bundle(out), json.loads((out / "report.json").read_text())


def test_a_quantised_source_is_stored_as_it_is(
    source: Path, shelf: Path, text: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One variant of the source's own codes; a note says so, and the report that nothing is lost.

    Python builds the same bytes.
    """
    bundle, report = build(source, shelf / "b", text)
    again = onhand.build(source, shelf / "again", calibrate=text, home=home)

    told = capsys.readouterr().err
    assert "already (gptq): its codes, scales and zero points are kept as they are" in told
    assert any("kept as they are" in note for note in report["notes"])
    assert again.report["manifest_sha256"] == bundle.manifest_sha256
    variant = report["variants"]["as-is"]
    rows = {row["name"]: row for row in variant["matrices"]}
    assert rows.keys() == bundle.manifest.variants["as-is"].matrices.keys()
    assert [name for name, row in rows.items() if row["relative_error"]] == ["embed"]
    assert rows["embed"]["bits"] == 8
    stored = sum(array.nbytes for array in gptq_tensors(DOWN, KNOWN[DOWN]).values())
    assert rows["layers.0.down"]["original_bytes"] == stored
    assert "as they came (gptq)" in variant["kept"]["layers.0.down"]
    recipe = bundle.manifest.provenance["recipe"]
    assert isinstance(recipe, dict)
    assert (recipe["as-is"]["pass"], recipe["as-is"]["how"]) == ("as-is", "gptq")
    found = open_weights(bundle, "as-is").matrix("layers.0.down")
    np.testing.assert_array_equal(found, KNOWN[DOWN].weights())


def test_the_bits_of_what_is_plain_can_be_chosen(source: Path, shelf: Path, text: Path) -> None:
    """`--embed-bits` alone is no wish to round the rest."""
    bundle, _ = build(source, shelf / "b", text, "--embed-bits", "4")

    forms = bundle.manifest.variants["as-is"].matrices
    assert forms["embed"] == GroupFormat(bits=4)
    assert forms["layers.0.down"] == GroupFormat(bits=4, symmetric=False)


def test_rounding_again_is_said_to_be_a_second_loss(
    source: Path, shelf: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for, it is done; what was 4 bits with zero points loses more."""
    bundle, report = build(source, shelf / "b", text, "--bits", "4", "--method", "rtn")

    assert "already (gptq): rounding its weights again is a second loss" in capsys.readouterr().err
    assert any("second loss" in note for note in report["notes"])
    assert list(bundle.manifest.variants) == ["int4"]
    assert all(row["relative_error"] > 0 for row in report["variants"]["int4"]["matrices"])


def test_what_cannot_be_kept_ends_with_its_own_sentence(
    tmp_path: Path, shelf: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Groups of act-order: refused before any work; rounded anew if asked for."""
    order = np.random.default_rng(5).permutation(KNOWN[DOWN].group.size)
    known = {**KNOWN, DOWN: replace(KNOWN[DOWN], group=KNOWN[DOWN].group[order])}
    folder = write_coded(tmp_path / "m", known, gptq_tensors, {**V2, "desc_act": True})

    assert main(["build", str(folder), "-o", str(shelf / "b"), "--calibrate", str(text)]) == 2

    told = capsys.readouterr().err
    assert f"{DOWN} cannot be kept as it is" in told
    assert "give --bits" in told
    assert list(shelf.iterdir()) == []
    plan = ["build", str(folder), "--plan", "--bits", "8", "--calibrate", str(text), "--json"]
    assert main(plan) == 0


def test_a_plan_says_what_will_be_kept(source: Path, text: Path) -> None:
    """Sizes of the source's own format, and the note; codes and scales are not read for it."""
    asked = BuildOptions(
        transforms={"int4": Quantize()}, keep_codes=True, calibrate=text, threads=1
    )

    plan = plan_build(str(source), asked)

    assert list(plan.size_bytes) == ["as-is"]
    assert plan.minutes > 0
    assert any("kept as they are" in note for note in plan.notes)


def test_a_plain_source_is_quantised_as_asked() -> None:
    """There is nothing to keep, and nothing to say."""
    asked = {"int4": Quantize()}

    assert choose_transforms(memory_model(), asked, keep_codes=True) == (asked, ())


def test_a_pass_of_a_third_party_leaves_the_defaults(source: Path) -> None:
    """Its options say nothing of the embedding."""
    model = load_model(str(source))

    made, _ = choose_transforms(model, {"third": Third()}, keep_codes=True)

    assert made == {"as-is": AsIs(how="gptq", formats=codes_of(model).formats())}


def test_nothing_is_calibrated_where_nothing_is_rounded() -> None:
    """A text is read only for rounding to the errors that count."""
    forms = dict.fromkeys(memory_model().decoder.matrices(), GroupFormat())
    in_part = {"layers.0.down": GroupFormat()}
    decoder = memory_model().decoder

    needs = [
        made.plan(decoder).needs_calibration
        for made in (
            AsIs(how="gptq", formats=forms),
            AsIs(how="gptq", formats=in_part, bits=0),
            AsIs(how="gptq", formats=in_part, method="rtn"),
            AsIs(how="gptq", formats=in_part),
        )
    ]

    assert needs == [False, False, False, True]


def test_an_adapter_is_not_merged_into_codes(
    source: Path, shelf: Path, text: Path, home: Path, tmp_path: Path
) -> None:
    """The codes would have to be rounded again, or the adapter be left out in silence."""
    with pytest.raises(InputError, match="give it at run time"):
        onhand.build(source, shelf / "b", calibrate=text, home=home, adapter=tmp_path)
