"""The cheapest repair: where a byte helps most, as a recipe that builds."""

import pytest
from tests.host.test_pack import Third

from onhand.core.recipe import parse_recipe
from onhand.host.passes.base import MatrixLoss
from onhand.host.passes.quantize import Quantize
from onhand.host.repair import propose_repair

SHAPES = {
    "embed": (320, 64),
    "layers.0.qkv": (128, 64),
    "layers.0.down": (64, 96),
    "layers.1.qkv": (128, 64),
    "layers.1.down": (64, 96),
}


def losses(bits: int = 4, **errors: float) -> list[MatrixLoss]:
    """What each matrix lost: 1 % unless said otherwise."""
    return [
        MatrixLoss(
            name=name,
            bits=bits,
            group_size=32,
            size_bytes=n * k // 2,
            relative_error=0.1,
            output_error=errors.get(name.replace("layers.", "l").replace(".", "_"), 0.01),
        )
        for name, (n, k) in SHAPES.items()
    ]


def test_the_worst_matrix_is_named_and_repaired() -> None:
    """One that loses a hundred times as much: it alone gets 8 bits."""
    found = propose_repair("int4", Quantize(method="gptq"), losses(l1_down=0.1), SHAPES)

    assert found is not None
    assert found.worst[0] == "layers.1.down"
    assert found.stands_out
    assert found.share > 0.96
    assert found.added_bytes == 64 * 96 // 2
    assert 0.03 < found.remaining < 0.05
    (step,) = parse_recipe(found.recipe, passes=lambda _: Quantize).steps
    assert step == Quantize(method="gptq", layers={"layers.1.down": {"bits": 8}})


def test_a_byte_goes_where_it_helps_most() -> None:
    """Equal losses: small matrices first, until half is gone."""
    found = propose_repair("int4", Quantize(), losses(), SHAPES)

    assert found is not None
    assert not found.stands_out
    (step,) = parse_recipe(found.recipe, passes=lambda _: Quantize).steps
    assert isinstance(step, Quantize)
    assert set(step.layers) == {"layers.0.down", "layers.1.down", "layers.0.qkv"}
    assert 0.3 < found.remaining <= 0.5


def test_other_bits_that_were_asked_for_stay() -> None:
    """A pattern of the user's comes after the repair, so that the repair counts."""
    used = Quantize(bits=3, layers={"*.down": {"bits": 4, "group_size": 64}}, symmetric=False)

    found = propose_repair("mixed", used, losses(l0_qkv=0.2), SHAPES)

    assert found is not None
    (step,) = parse_recipe(found.recipe, passes=lambda _: Quantize).steps
    assert isinstance(step, Quantize)
    assert list(step.layers.items()) == [
        ("layers.0.qkv", {"bits": 8}),
        ("*.down", {"bits": 4, "group_size": 64}),
    ]
    assert step.bits == 3
    assert not step.symmetric


@pytest.mark.parametrize(
    ("transform", "given"),
    [
        (Quantize(bits=8), losses(bits=8)),
        (Third(), losses()),
        (Quantize(), [loss for loss in losses(embed=0.0) if loss.name == "embed"]),
    ],
)
def test_nothing_to_repair(transform: Quantize, given: list[MatrixLoss]) -> None:
    """Eight bits everywhere, somebody else's pass, or no loss at all."""
    assert propose_repair("v", transform, given, SHAPES) is None
