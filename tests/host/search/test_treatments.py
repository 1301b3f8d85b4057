"""Tests of `onhand.host.search.treatments` and of what a pass makes of its words."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.core.quantized import GroupFormat
from onhand.host.passes.quantize import LAYER_METHODS, Quantize
from onhand.host.search.choices import SearchSpace, usual_space
from onhand.host.search.treatments import (
    Treatment,
    as_quantize,
    named_treatment,
    ranks_of,
    stored_names,
    treatment_name,
)
from onhand.host.search.widening import hull_damage

FORMS = st.builds(
    GroupFormat,
    bits=st.sampled_from(GroupFormat.BITS),
    group_size=st.sampled_from(GroupFormat.GROUP_SIZES),
    symmetric=st.booleans(),
)


@given(
    st.builds(
        Treatment,
        form=st.none() | FORMS,
        method=st.sampled_from(("", *LAYER_METHODS)),
        zeros=st.integers(0, 99).map(lambda share: share / 100),
        rank=st.integers(0, 4096),
    )
)
def test_words_say_a_treatment_whole(treatment: Treatment) -> None:
    """They are kept in files and reports, and read back."""
    assert named_treatment(treatment_name(treatment)) == treatment


def test_words_are_for_people() -> None:
    """As they stand in a report."""
    form = GroupFormat(bits=4, group_size=32)

    assert treatment_name(Treatment(form=form, rank=64)) == "int4 g32 rank 64"
    assert treatment_name(Treatment(form=form, zeros=0.25)) == "int4 g32 25% zeros"
    assert treatment_name(Treatment(form=form, method="clip")) == "int4 g32 by clip"
    with pytest.raises(InputError, match="expected one like"):
        named_treatment("four bits")


def test_a_recipe_says_what_was_chosen() -> None:
    """Each factor of a product has its own row; method and zeros stand where they differ."""
    choices = {
        "layers.0.up": "int4 g32 rank 64",
        "layers.0.down": "int8 g128 50% zeros by clip",
        "embed": "float32",
    }

    table = as_quantize(choices, method="gptq").layers

    four = {"bits": 4, "group_size": 32, "symmetric": True}
    eight = {"bits": 8, "group_size": 128, "symmetric": True}
    assert table == {
        "layers.0.up.left": four,
        "layers.0.up.right": four,
        "layers.0.down": {**eight, "method": "clip", "zeros": 0.5},
        "embed": {"bits": 32},
    }
    assert ranks_of(choices) == {"layers.0.up": 64}
    assert stored_names("layers.0.down", choices["layers.0.down"]) == ("layers.0.down",)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"zeros": 1.0}, "zeros of 'embed' is 1.0"),
        ({"zeros": "half"}, "zeros of 'embed' is 'half'"),
        ({"method": "awq"}, "method of 'embed' is 'awq'"),
    ],
)
def test_a_matrix_cannot_be_treated_in_every_way(own: dict[str, float | str], said: str) -> None:
    """Scaling of inputs is no matter of one matrix; and some weights must stay."""
    with pytest.raises(InputError, match=said):
        Quantize(layers={"embed": own})


@pytest.mark.parametrize(
    "odd", [{"zeros": (0.255,)}, {"zeros": (1.0,)}, {"ranks": (1.0,)}, {"methods": ("awq",)}]
)
def test_a_space_takes_only_what_can_be(odd: dict[str, tuple[object, ...]]) -> None:
    """Words of a treatment are exact, so shares are hundredths."""
    with pytest.raises(InputError, match="search"):
        SearchSpace(**odd)  # type: ignore[arg-type]


def test_a_space_that_names_formats_is_tried_as_it_is() -> None:
    """And one that names none has everything."""
    named = SearchSpace(forms=(GroupFormat(),))
    usual = usual_space(SearchSpace(method="clip"))

    assert usual_space(named) == replace(named, scale_bits=16)
    assert usual.scale_bits == 8
    assert usual.method == "clip"
    assert usual.zeros
    assert usual.ranks
    assert usual.methods


def test_between_two_formats_one_may_mix() -> None:
    """The hull is what a treatment must beat; a point above it is no help."""
    points = [(10.0, 4.0), (20.0, 3.9), (30.0, 0.0)]

    assert hull_damage(points, 20.0) == pytest.approx(2.0)
    assert hull_damage(points, 40.0) == 0.0
    assert np.isinf(hull_damage(points, 5.0))
