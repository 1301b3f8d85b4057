"""Steps that make networks smaller, as recipes write them."""

import pytest

from onhand.core.errors import RecipeError
from onhand.core.recipe import parse_recipe
from onhand.host.networks.passes.factorize import Factorize
from onhand.host.networks.passes.prune_channels import PruneChannels
from onhand.host.networks.passes.prune_weights import PruneWeights
from onhand.host.passes.base import pass_options

PASSES = {kind.name: kind for kind in (Factorize, PruneChannels, PruneWeights)}
TEXT = """
name = "small"
[[step]]
pass = "prune-channels"
ratio = 0.25
global_ = false
keep = ["stem.*", "head"]
layers = 1
[[step]]
pass = "prune-weights"
pattern = "2:4"
keep = ["head"]
[[step]]
pass = "factorize"
kinds = ["svd"]
of = "parameters"
"""


def test_a_recipe_gives_the_options() -> None:
    """Lists and all, and they are told in the same words."""
    channels, weights, factors = parse_recipe(TEXT, passes=PASSES.__getitem__).steps

    assert channels == PruneChannels(ratio=0.25, global_=False, keep=("stem.*", "head"), layers=1)
    assert weights == PruneWeights(pattern="2:4", keep=("head",))
    assert factors == Factorize(kinds=("svd",), of="parameters")
    assert isinstance(channels, PruneChannels)
    assert pass_options(channels)["keep"] == ["stem.*", "head"]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ('["svd"]', '"svd"', "kinds is 'svd'"),
        ('["head"]', '"head"', "keep is 'head'"),
        ("ratio = 0.25", "ration = 0.25", "did you mean 'ratio'"),
        ("ratio = 0.25", "ratio = 1", "must be from 0 to below 1"),
    ],
)
def test_a_slip_is_named(old: str, new: str, found: str) -> None:
    """With the step that it is in."""
    with pytest.raises(RecipeError, match=found):
        parse_recipe(TEXT.replace(old, new), passes=PASSES.__getitem__)
