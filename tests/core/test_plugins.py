"""Passes, engines and sources of others are found by name."""

from dataclasses import is_dataclass
from pathlib import Path

import pytest

from onhand.core.bundle import Bundle
from onhand.core.errors import EngineUnavailable, InputError
from onhand.core.plugins import ENGINES, PASSES, SOURCES, load_plugin, plugin_names
from onhand.core.recipe import parse_recipe

EXAMPLE = Path(__file__).parents[1] / "plugin_example"


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example package, as if installed, and a module that is not Python."""
    (tmp_path / "onhand_example_syntax.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(tmp_path))


def test_our_own_engines_are_registered() -> None:
    """Through the same door as those of others."""
    assert {"onnx", "reference"} <= set(plugin_names(ENGINES))
    assert "quantize" in plugin_names(PASSES)
    assert "huggingface" in plugin_names(SOURCES)


@pytest.mark.usefixtures("_installed")
def test_an_example_of_each_kind_is_found() -> None:
    """Names are listed without loading anything; loading gives what the entry point names."""
    assert "echo" in plugin_names(ENGINES)
    assert "negate" in plugin_names(PASSES)

    read = load_plugin(SOURCES, "echo")

    assert callable(read)
    assert read("a place") == "a place"
    assert is_dataclass(load_plugin(PASSES, "negate"))


@pytest.mark.usefixtures("_installed")
def test_an_engine_of_another_package_answers(bundle: Bundle) -> None:
    """It is a class that follows the protocol; here it says why it cannot open a bundle."""
    kind = load_plugin(ENGINES, "echo")
    assert isinstance(kind, type)

    with pytest.raises(EngineUnavailable, match="tiny: echo is an example"):
        kind().open(bundle, variant="int4", threads=1)


@pytest.mark.usefixtures("_installed")
def test_a_recipe_names_a_pass_of_another_package() -> None:
    """With its options, as for our own."""
    text = '[[step]]\npass = "negate"\nshare = 0.5'

    (step,) = parse_recipe(text, passes=lambda name: load_plugin(PASSES, name)).steps

    assert repr(step) == "Negate(share=0.5)"


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent-module", "'absent-module' (onhand_example_absent:Pass) cannot be loaded: No mod"),
        ("absent-name", "'absent-name' (onhand_example:Absent) cannot be loaded: module"),
        ("raises", "'raises' (onhand_example_raises:Pass) cannot be loaded: no licence found"),
        ("syntax", "'syntax' (onhand_example_syntax:Pass) cannot be loaded: invalid syntax"),
        ("negat", "unknown pass 'negat'; did you mean 'negate'?"),
        ("zzz", "unknown pass 'zzz'; known: absent-module, absent-name, distil, factorize, negate"),
    ],
)
def test_a_broken_plugin_is_one_sentence(name: str, message: str) -> None:
    """It says which name, where it points, and what went wrong there."""
    with pytest.raises(InputError) as caught:
        load_plugin(PASSES, name)

    assert message in str(caught.value)


@pytest.mark.usefixtures("_installed")
def test_two_packages_may_not_claim_one_name() -> None:
    """Which of them would run is not left to chance."""
    with pytest.raises(InputError, match=r"pass 'quantize' is claimed by onhand\..* and onhand_ex"):
        load_plugin(PASSES, "quantize")


def test_an_unknown_name_without_any_plugin() -> None:
    """A group that nobody fills still gives a sentence."""
    with pytest.raises(InputError, match=r"unknown onhand\.nothing 'x'; known: none"):
        load_plugin("onhand.nothing", "x")
