"""Whatever stands in a `config.json`, a model is loaded or one clear sentence refuses it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.damage import damaged
from tests.host.configs import VALID
from tests.models import random_tensors, tokenizer_json, write_tensors

from onhand.core.decoder import Decoder, decoder_from_json
from onhand.core.errors import SourceError
from onhand.host.sources import load_model
from onhand.host.sources.families import FAMILIES, describe

FILE = "folder/config.json"
OTHERS = tuple(VALID.values())


def is_clear(error: SourceError, place: str) -> bool:
    """One line that begins with the place, of a length that a person reads."""
    text = str(error)
    return text.startswith(place) and text.isprintable() and len(text) < len(place) + 600


def check_tables(decoder: Decoder) -> None:
    """Every rotary table that an engine would ask for is made of numbers."""
    for rope, head_dim in decoder.rotary_tables().values():
        for long in (False, True):
            for table in rope.tables(head_dim, 3, long=long):
                assert np.isfinite(table).all()


def test_every_family_has_a_valid_configuration() -> None:
    """What the tests below change is accepted as it stands, without a note."""
    described = {name: describe(config, FILE) for name, config in VALID.items()}

    assert {str(config["model_type"]) for config in VALID.values()} == set(FAMILIES)
    assert {name: found.notes for name, found in described.items() if found.notes} == {}


@pytest.mark.parametrize("kind", VALID)
@given(data=st.data())
@settings(max_examples=50)
def test_attack_any_value_of_any_key(kind: str, data: st.DataObject) -> None:
    """Never another exception, never a warning, nothing that a bundle's reader would refuse."""
    config = data.draw(damaged(VALID[kind], OTHERS))
    try:
        found = describe(config, FILE)
    except SourceError as error:
        assert is_clear(error, f"{FILE}: "), str(error)  # noqa: PT017 - some changes are fine
        return

    table = json.loads(json.dumps(found.decoder.to_json(), allow_nan=False))
    assert decoder_from_json(table) == found.decoder
    assert all(note.startswith(FILE) and note.isprintable() for note in found.notes)
    check_tables(found.decoder)


def write_family(folder: Path, config: Mapping[str, Any]) -> Path:
    """A checkpoint of any family, random weights."""
    described = describe(config, FILE)
    decoder, naming = described.decoder, described.naming
    shapes: dict[str, tuple[int, ...]] = {}
    for name, whole in decoder.tensors().items():
        for part, shape in naming.tensors(name, whole, decoder).items():
            shapes[part] = shape[::-1] if naming.is_transposed(name) else shape
    write_tensors(folder / "model.safetensors", random_tensors(shapes), dtype="F16")
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    return folder


@pytest.mark.parametrize("kind", VALID)
def test_attack_any_value_beside_real_weights(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The whole way from a folder to a model that can be read."""
    folder = write_family(tmp_path_factory.mktemp("family"), VALID[kind])
    config_path = folder / "config.json"
    config_path.write_text(json.dumps(dict(VALID[kind])))

    assert load_model(str(folder)).weights.vector("final_norm").shape == (64,)

    @given(config=damaged(VALID[kind], OTHERS))
    @settings(max_examples=15)
    def attack(config: dict[str, Any]) -> None:
        config_path.write_text(json.dumps(config))
        try:
            load_model(str(folder))
        except SourceError as error:
            assert is_clear(error, str(folder)), str(error)  # noqa: PT017 - some changes are fine

    attack()
