"""Builds without one technique each: which there are, what is kept, what follows from them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.host.recorder import Recorder

from onhand.core.errors import InputError, ResourceError
from onhand.core.measurement import Measurement, Unit
from onhand.core.recipe import Guard
from onhand.device.report_data import parse_report
from onhand.host.ablation import (
    Ablation,
    LeaveOut,
    ablate,
    ablation_waterfalls,
    decoder_leave_outs,
    numbered,
)
from onhand.host.build import build_bundle
from onhand.host.networks.build import network_leave_outs
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.passes.quantize import QuantizeNetwork
from onhand.host.networks.passes.smooth import Smooth
from onhand.host.networks.steps import Step
from onhand.host.options import BuildOptions
from onhand.host.passes.base import ShapingStep
from onhand.host.passes.distil import Distil
from onhand.host.passes.prune import Prune
from onhand.host.passes.quantize import Quantize

EXAMPLE = Path(__file__).parents[1] / "device" / "report_example.json"
Quick = dict[str, tuple[float, Unit]]


def figure(name: str, value: float, unit: Unit) -> Measurement:
    """A measurement without spread."""
    return Measurement(name=name, value=value, unit=unit, samples=3, spread=0.0, how="x")


def test_every_step_and_every_choice_can_be_left_out() -> None:
    """Two shaping steps; trained scales, method, embedding; and the quantiser as a whole."""
    steps = (ShapingStep(transform=Prune(mlp=0.4)), ShapingStep(transform=Distil()))
    best = Quantize(method="gptq", embed_bits=8, distil=8)
    options = BuildOptions(transforms={"int4": best, "int8": Quantize(bits=8)}, shaping=steps)
    found = decoder_leave_outs(options)

    assert [one.label for one in found] == [
        "prune",
        "distil",
        "trained scales",
        "method gptq instead of rtn",
        "8 bits of the embedding",
        "4 bits instead of float32",
    ]
    assert all(len(one.options.transforms) == 1 for one in found)
    assert not any(one.options.ablate or one.options.measure_original for one in found)
    without_distil = found[1].options.shaping
    # Alone it would be refused: much is taken out, and nothing trains the rest.
    assert without_distil == (replace(steps[0], guard=Guard(most_loss=1e9)),)


def test_a_plain_quantiser_can_only_be_left_out_as_a_whole() -> None:
    """There is nothing plainer than rtn of one width."""
    options = BuildOptions(transforms={"int3": Quantize(bits=3, method="rtn")})

    assert [one.label for one in decoder_leave_outs(options)] == ["3 bits instead of float32"]


def test_every_step_of_a_network_can_be_left_out() -> None:
    """Of its default variant; a step that comes twice is numbered."""
    steps = (Step(Smooth()), Step(QuantizeNetwork()), Step(Smooth()))
    found = network_leave_outs(NetworkOptions(task="features", variants={"a": steps, "b": ()}))

    assert [one.label for one in found] == ["smooth 1", "quantize", "smooth 2"]
    assert found[1].options.variants == {"a": (steps[0], steps[2])}
    assert numbered(["a", "b"]) == ["a", "b"]


class Builder:
    """Builds nothing, and remembers what it was asked for."""

    def __init__(self, *errors: Exception | None) -> None:
        self.asked: list[tuple[str, str, bool]] = []
        self.errors = list(errors)

    def __call__(self, options: str, place: Path, resume: bool) -> Mapping[str, object]:
        """Return the example's report, or fail as told."""
        self.asked.append((options, place.name, resume))
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        place.mkdir()
        table: dict[str, object] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
        return table


LEAVING = [LeaveOut(label="one", options="without one"), LeaveOut(label="two", options="w/o two")]


def test_what_was_built_is_measured_and_removed(tmp_path: Path) -> None:
    """The default variant's figures are kept, the bundle is not."""
    build, shown = Builder(), Recorder()
    found = ablate(LEAVING, build, folder=tmp_path / "a", progress=shown)

    assert found.figures["one"]["size_bytes"].value == 4341760
    assert found.missing == {}
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["1.json", "2.json"]
    assert build.asked == [("without one", "1", False), ("w/o two", "2", False)]


def test_what_is_finished_is_not_built_again(tmp_path: Path) -> None:
    """An interrupted build goes on: with what was begun as a resumed one."""
    stopped = Builder(None, ResourceError("the disk is full"))
    with pytest.raises(ResourceError):
        ablate(LEAVING, stopped, folder=tmp_path, progress=Recorder())
    (tmp_path / "2.building").mkdir()

    build = Builder()
    found = ablate(LEAVING, build, folder=tmp_path, progress=Recorder())

    assert build.asked == [("w/o two", "2", True)]
    assert set(found.figures) == {"one", "two"}


@pytest.mark.parametrize("content", ["{", '{"label": "other", "figures": {}}', "[]"])
def test_what_is_damaged_or_of_another_technique_is_built_again(
    content: str, tmp_path: Path
) -> None:
    """It is not believed."""
    (tmp_path / "1.json").write_text(content)
    build = Builder()
    ablate(LEAVING[:1], build, folder=tmp_path, progress=Recorder())

    assert len(build.asked) == 1


def test_what_cannot_be_left_out_is_said(tmp_path: Path) -> None:
    """The others go on; no folder of this machine is in the sentence."""
    build = Builder(InputError("/a/b/prune takes out 40 % and nothing trains the rest"))
    found = ablate(LEAVING, build, folder=tmp_path, progress=Recorder())

    assert found.missing == {"one": "prune takes out 40 % and nothing trains the rest"}
    assert set(found.figures) == {"two"}


def test_rates_become_times_that_add_up() -> None:
    """Size, loss and the time of a token, where the original has them."""
    whole = {
        "size_bytes": figure("size_bytes", 2e6, "byte"),
        "perplexity_increase": figure("perplexity_increase", 0.02, "fraction"),
        "decode_tokens_per_s": figure("decode_tokens_per_s", 100.0, "1/s"),
    }
    original = {
        "size_bytes": figure("size_bytes", 8e6, "byte"),
        "decode_tokens_per_s": figure("decode_tokens_per_s", 25.0, "1/s"),
    }
    without = {**whole, "decode_tokens_per_s": figure("decode_tokens_per_s", 50.0, "1/s")}
    found = Ablation(figures={"prune": without}, missing={"distil": "no"})
    falls = ablation_waterfalls(found, figures=whole, original=original, loss="perplexity_increase")

    assert [fall.measurement for fall in falls] == ["size_bytes", "perplexity_increase", "token_s"]
    assert falls[1].before.value == 0
    assert falls[2].brought() == pytest.approx((-0.01,))
    assert falls[2].rest() == pytest.approx(-0.02)
    assert falls[0].missing == {"distil": "no"}
    still = {"size_bytes": original["size_bytes"]}
    assert len(ablation_waterfalls(found, figures=whole, original=still, loss="l")) == 1


def test_a_build_says_what_each_technique_brought(
    tiny: Path, shelf: Path, home: Path, options: BuildOptions, quick: Quick
) -> None:
    """For real: without 4 bits the bundle is larger and loses nothing; nothing is left over."""
    asked = replace(options, ablate=True)
    made = build_bundle(str(tiny), shelf / "b", asked, home=home)
    falls = {fall.measurement: fall for fall in parse_report(made.report).evidence.waterfalls}

    (part,) = falls["size_bytes"].parts
    assert part.label == "4 bits instead of float32"
    assert part.without.value > falls["size_bytes"].after.value
    assert abs(falls["perplexity_increase"].parts[0].without.value) < 1e-4
    assert "answer_s" in falls
    assert [path.name for path in shelf.iterdir()] == ["b"]
