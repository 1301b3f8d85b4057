"""What the process does that tries providers, with fakes for them."""

import io
import json
from dataclasses import dataclass

import numpy as np
import pytest
from typing_extensions import override

from onhand.core.arrays import FloatArray
from onhand.core.profile_parts import Provider
from onhand.device.hardware.provider_child import try_provider, try_source
from onhand.device.hardware.reach import (
    LeftToProcessor,
    Reached,
    compute_on_processor,
    reached_by,
    sources,
)
from onhand.device.hardware.trials import Trial, trials

FAKE = Provider(name="FAKE", package="fake", note="Fake 9000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made(Reached):
    """A made provider that computes as the processor does."""

    @override
    def run(self, trial: Trial) -> FloatArray:
        """See `Reached`."""
        return compute_on_processor(trial)


def test_every_trial_runs_on_the_processor() -> None:
    """Its numbers are finite, and not all the same; no operator is tried twice."""
    operators = [trial.operator for trial in trials()]
    assert len(set(operators)) == len(operators)

    for trial in trials():
        answer = compute_on_processor(trial)
        assert np.isfinite(answer).all(), trial.operator
        assert answer.std() > 0, trial.operator


def test_one_that_computes_everything_is_usable() -> None:
    """A little rounding is allowed: half precision is what many have."""
    told: list[str] = []
    found = try_provider(FAKE, lambda t: compute_on_processor(t) * 1.001, told=told.append)

    assert found == Provider(name="FAKE", package="fake", is_usable=True, note="Fake 9000")
    assert told == [trial.operator for trial in trials()]


def test_what_it_does_not_have_is_listed() -> None:
    """Operators that its partition left, by their own names, and those that failed."""

    def run(trial: Trial) -> FloatArray:
        if trial.operator == "QuantizeLinear":
            raise LeftToProcessor(("QuantizeLinear", "DequantizeLinear"))
        if trial.operator in {"Conv", "MatMulNBits"}:
            raise RuntimeError("no kernel")
        return compute_on_processor(trial)

    found = try_provider(FAKE, run)

    assert found.is_usable
    assert found.falls_back == ("MatMulNBits", "Conv", "QuantizeLinear", "DequantizeLinear")


@pytest.mark.parametrize(
    ("said", "note"),
    [
        ("libcuda.so.1: cannot open it\nand much more", "libcuda.so.1: cannot open it"),
        ("[ONNXRuntimeError] : 11 : EP_FAIL : /a.cc:1 F() x was false. No adapter", "No adapter"),
        ("", "OSError"),
    ],
)
def test_one_that_can_do_nothing_says_why(said: str, note: str) -> None:
    """In the words of its first line, without where in some source it was raised."""

    def run(trial: Trial) -> FloatArray:
        raise OSError(said)

    found = try_provider(FAKE, run)

    assert not found.is_usable
    assert found.note == note


@pytest.mark.parametrize("wrong", [2.0, float("nan")])
def test_one_that_computes_wrongly_is_not_used(wrong: float) -> None:
    """A fast wrong answer is worse than none."""
    found = try_provider(FAKE, lambda trial: compute_on_processor(trial) * wrong)

    assert not found.is_usable
    assert found.note == "computes MatMul wrongly"


def test_one_that_is_slow_is_judged_by_what_was_tried() -> None:
    """Some compile each graph for seconds; what was left out is named, and is no fall-back."""
    told: list[str] = []
    found = try_provider(
        FAKE, compute_on_processor, told=told.append, is_late=lambda: len(told) == 2
    )

    assert found.is_usable
    assert found.falls_back == ()
    assert found.note.startswith("Fake 9000; not tried in time: Conv, QuantizeLinear, ")


def test_each_device_of_a_source_has_its_share_of_the_time() -> None:
    """None is left: nothing is tried, and nothing is said to be usable."""
    output = io.StringIO()
    made = [Made(name="A", package="fake"), Made(name="B", package="fake")]
    try_source("made", limit_s=-1, output=output, reach=lambda _: made)
    found = [one["provider"] for one in events(output) if "provider" in one]

    assert [(one["name"], one["is_usable"]) for one in found] == [("A", False), ("B", False)]  # type: ignore[index] # JSON objects
    assert [one["note"] for one in found] == ["no operator could be tried in time"] * 2  # type: ignore[index] # JSON objects


def events(output: io.StringIO) -> list[dict[str, object]]:
    """What was printed, each line as an object."""
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_each_step_is_printed_before_it_is_taken() -> None:
    """So that whoever listens knows at what it broke; names to skip are skipped."""
    output = io.StringIO()
    made = [Made(name="A", package="fake"), Made(name="B", package="fake")]
    try_source("made", skip=["A"], output=output, reach=lambda _: made)
    found = events(output)

    assert found[:3] == [
        {"trying": ["", "finding its devices"]},
        {"trying": ["B", "opening it"]},
        {"trying": ["B", "MatMul"]},
    ]
    assert [one["provider"]["name"] for one in found if "provider" in one] == ["B"]  # type: ignore[index] # a JSON object
    assert sum("trying" in one for one in found) == 2 + len(trials())


def test_a_source_that_raises_is_told() -> None:
    """Whatever it raises."""
    output = io.StringIO()

    def reach(source: str) -> list[Reached]:
        raise ImportError(f"{source} needs another library")

    try_source("made", output=output, reach=reach)

    assert events(output)[-1] == {"broken": "made needs another library"}


def test_the_partition_is_asked() -> None:
    """A session on the processor leaves all nodes to it, by name."""
    trial = next(one for one in trials() if one.operator == "QuantizeLinear")

    with pytest.raises(LeftToProcessor) as caught:
        Reached(name="CPUExecutionProvider", package="onnxruntime").run(trial)

    assert caught.value.operators == ("QuantizeLinear", "DequantizeLinear", "MatMul")


def test_a_device_of_openvino_is_really_tried() -> None:
    """On its processor, the one device that every installation has."""
    pytest.importorskip("openvino")
    device = Reached(name="CPU", package="openvino", kind="openvino")
    chosen = [one for one in trials() if one.operator in {"MatMul", "Conv"}]
    found = try_provider(FAKE, device.run, tried=chosen)

    assert found.is_usable
    assert found.falls_back == ()


def test_a_provider_that_is_not_built_in_is_an_error() -> None:
    """ONNX Runtime would compute on the processor in its place."""
    with pytest.raises(Exception, match="CUDAExecutionProvider"):
        Reached(name="CUDAExecutionProvider", package="onnxruntime").run(trials()[0])


def test_sources_here_are_known_kinds() -> None:
    """And the processor's own provider is none of them."""
    kinds = {one.partition(" ")[0] for one in sources()}

    assert kinds <= {"built-in", "plug-in", "openvino"}
    assert "built-in CPUExecutionProvider" not in sources()
    assert [one.name for one in reached_by("built-in X")] == ["X"]
