"""What a build says of how quick its variants are beside each other and beside the original."""

from collections.abc import Mapping

import pytest

from onhand.core.measurement import summarize
from onhand.device.networks.ranking import RankedVariant
from onhand.host.networks.standing import Standing


def standing(took: Mapping[tuple[str, str], float]) -> Standing:
    """Pairs of variant and engine, with what they took in milliseconds."""
    pairs = [
        RankedVariant(
            variant=variant,
            engine=engine,
            latency_s=summarize("latency_s", [ms / 1e3], unit="s", how="by hand"),
        )
        for (variant, engine), ms in took.items()
    ]
    return Standing(ranked=tuple(sorted(pairs, key=lambda one: one.latency_s.value)), threads=2)


def test_the_report_says_what_is_the_quickest_where() -> None:
    """Of all variants in each engine, and of all pairs; for programs as well."""
    made = standing({
        ("int8", "onnx"): 10.6,
        ("int8", "openvino"): 5.9,
        ("fp32", "onnx"): 5.7,
        ("fp32", "openvino"): 5.8,
    })

    assert made.notes() == [
        "timed in turn on this machine, 2 threads: in onnx: fp32 5.7 ms, int8 10.6 ms; in "
        "openvino: fp32 5.8 ms, int8 5.9 ms; the quickest is fp32 in onnx"
    ]
    first = made.to_json()[0]
    assert (first["variant"], first["engine"]) == ("fp32", "onnx")


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ({"onnx": 10.0, "openvino": 6.0}, "slower than the original in every engine"),
        ({"onnx": 10.0, "openvino": 5.6}, "no faster than the original"),
        ({"onnx": 10.0, "openvino": 5.0}, None),
    ],
)
def test_integers_that_do_not_pay_are_told(ours: Mapping[str, float], said: str | None) -> None:
    """In one sentence, with both times and what to do."""
    took = {("int8", engine): ms for engine, ms in ours.items()}
    took |= {("original", "onnx"): 5.7, ("original", "openvino"): 5.8}
    made = standing(took)

    if said is None:
        assert made.warnings() == []
    else:
        (warning,) = made.warnings()
        assert warning.startswith(f"int8 is {said} on this machine: at best ")
        assert "in openvino, the original 5.7 ms in onnx; with --variants int8,fp32 " in warning
        assert warning in made.notes()


def test_one_variant_alone_has_nothing_beside_it() -> None:
    """Nothing is said where nothing was compared."""
    assert standing({("int8", "onnx"): 1.0, ("int8", "openvino"): 2.0}).notes() == []
    assert standing({}).warnings() == []


def test_what_is_no_variant_by_bits_gets_no_advice() -> None:
    """A recipe's variant cannot be named in --variants."""
    (warning,) = standing({("small", "onnx"): 2.0, ("original", "onnx"): 1.0}).warnings()

    assert warning.endswith("the original 1.0 ms in onnx")
