"""Recipes as `onhand build` reads them: steps that shape the model, and one that stores it."""

from pathlib import Path

import pytest

from onhand.cli.transforms import QuantizeOptions, read_shaping, read_transforms
from onhand.core.errors import InputError, RecipeError
from onhand.core.recipe import Guard
from onhand.host.passes.base import ShapingStep
from onhand.host.passes.distil import Distil
from onhand.host.passes.prune import Prune
from onhand.host.passes.quantize import Quantize


def test_a_recipe_is_one_variant_of_its_name(tmp_path: Path) -> None:
    """Its one step is the pass."""
    recipe = tmp_path / "phone.toml"
    recipe.write_text('name = "phone-4bit"\n[[step]]\npass = "quantize"\ngroup_size = 128\n')

    found = read_transforms(recipe, QuantizeOptions())

    assert found == {"phone-4bit": Quantize(group_size=128)}


SHAPING = '[[step]]\npass = "prune"\nmlp = 0.5\n[[step]]\npass = "distil"\nmost_loss = 0.02\n'
LAST = '[[step]]\npass = "quantize"\n'


def test_a_recipe_may_shape_the_model_first(tmp_path: Path) -> None:
    """All steps but the last change the model; a step says what it may lose."""
    recipe = tmp_path / "slim.toml"
    recipe.write_text(f'name = "slim"\n{SHAPING}{LAST}bits = 8\n')

    assert read_transforms(recipe, QuantizeOptions()) == {"slim": Quantize(bits=8)}
    assert read_shaping(recipe) == (
        ShapingStep(transform=Prune(mlp=0.5)),
        ShapingStep(transform=Distil(), guard=Guard(most_loss=0.02)),
    )
    assert read_shaping(None) == ()


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        (LAST * 2, "step 1 stores the weights, and 1 more follow"),
        (LAST + SHAPING, "step 1 stores the weights, and 2 more follow"),
        (SHAPING, "step 2, the last, does not store the weights; end with"),
        (f"{LAST}most_loss = 0.1\n", "most_loss and undo are for steps before the last"),
        ('[[step]]\npass = "prune"\n' + LAST, "nothing would go: give mlp, heads, width or layers"),
        (f'[[step]]\npass = "distil"\nsteps = 0\n{LAST}', "steps is 0, must be at least 1"),
    ],
)
def test_a_recipe_ends_with_the_one_step_that_stores_the_weights(
    steps: str, sentence: str, tmp_path: Path
) -> None:
    """It does not run the first steps and forget the others."""
    recipe = tmp_path / "odd.toml"
    recipe.write_text(f'name = "odd"\n{steps}')

    for read in (read_shaping, lambda place: read_transforms(place, QuantizeOptions())):
        with pytest.raises(RecipeError, match=sentence):
            read(recipe)


def test_a_slip_in_a_recipe_says_what_was_meant(tmp_path: Path) -> None:
    """The file, the step and the option are named."""
    recipe = tmp_path / "slip.toml"
    recipe.write_text('name = "slip"\n[[step]]\npass = "quantize"\nbit = 4\n')

    with pytest.raises(InputError, match=r"slip.toml: step 1 .*did you mean 'bits'\?"):
        read_transforms(recipe, QuantizeOptions())
