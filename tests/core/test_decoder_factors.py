"""Matrices stored as two factors: names, shapes, and what outsiders may write."""

import json
from dataclasses import replace

import pytest

from onhand.core.decoder import Decoder, DecoderLayer, decoder_from_json
from onhand.core.errors import InputError


def test_factors_take_the_place_of_their_matrix(decoder: Decoder) -> None:
    """W of 8 outputs and 12 inputs at rank 3: the right factor is applied first."""
    factored = replace(decoder, ranks={"layers.0.down": 3})

    names = list(factored.tensors())
    at = names.index("layers.0.down.right")
    assert names[at : at + 3] == ["layers.0.down.right", "layers.0.down.left", "layers.0.down_bias"]
    assert factored.matrices()["layers.0.down.right"] == (3, 12)
    assert factored.matrices()["layers.0.down.left"] == (8, 3)
    assert "layers.0.down" not in factored.matrices()
    assert factored.factors("layers.0.down") == ("layers.0.down.right", "layers.0.down.left")
    assert factored.factors("layers.1.down") == ("layers.1.down",)
    assert factored.whole_tensors() == decoder.tensors()
    assert factored.vectors() == decoder.vectors()
    assert decoder.n_parameters - factored.n_parameters == 8 * 12 - 3 * (8 + 12)


def test_json_keeps_ranks(decoder: Decoder) -> None:
    """Of every kind of matrix; and without factors the key is not written at all."""
    ranks = {"head": 8, "layers.0.qkv": 1, "layers.1.gate_up": 5, "layers.1.out": 7}
    made = replace(decoder, ranks=ranks)

    again = decoder_from_json(json.loads(json.dumps(made.to_json(), sort_keys=True)))

    assert again == made
    assert hash(again) == hash(made)
    assert again != decoder
    assert "ranks" not in decoder.to_json()
    assert decoder_from_json(decoder.to_json()).ranks == {}


@pytest.mark.parametrize(
    "value", [0, -1, 9, 2**40, 10**400, 2.0, True, "3", None, [3], {}], ids=repr
)
def test_attack_ranks(decoder: Decoder, value: object) -> None:
    """A rank is a whole number from 1 to the smaller side of its matrix, here 8."""
    table = decoder.to_json() | {"ranks": {"layers.0.down": value}}

    with pytest.raises(InputError, match=r"ranks: layers.0.down is .* from 1 to 8"):
        decoder_from_json(table)


@pytest.mark.parametrize(
    "name",
    [
        "layers.2.down",
        "layers.00.down",
        "layers.0.down.left",
        "layers.0.down_bias",
        "layers.0.mlp_norm",
        "final_norm",
        "down",
        "",
        "layers",
    ],
)
def test_attack_names_of_ranks(decoder: Decoder, name: str) -> None:
    """Only a matrix of the description can be factors."""
    with pytest.raises(InputError, match=f"decoder: ranks: unknown key {name!r}"):
        decoder_from_json(decoder.to_json() | {"ranks": {name: 2}})


@pytest.mark.parametrize("name", ["embed", "positions"])
def test_what_is_looked_up_cannot_be_factors(name: str) -> None:
    """Said by name: its rows are read, not its products alone."""
    layer = DecoderLayer(n_heads=2, n_kv_heads=2, head_dim=2, mlp_width=7)
    gpt2 = Decoder(
        vocab_size=10,
        width=4,
        context=6,
        norm_epsilon=1e-5,
        layers=(layer,),
        tied=True,
        positions="learned",
    )

    with pytest.raises(InputError, match=f"ranks: {name} is looked up by rows"):
        decoder_from_json(gpt2.to_json() | {"ranks": {name: 2}})


def test_a_tied_head_cannot_be_factors(decoder: Decoder) -> None:
    """It is the embedding."""
    with pytest.raises(InputError, match="unknown key 'head'"):
        decoder_from_json(replace(decoder, tied=True).to_json() | {"ranks": {"head": 2}})


@pytest.mark.parametrize("value", [None, [], "layers.0.down", 3, [["layers.0.down", 3]]], ids=repr)
def test_attack_another_kind_of_ranks(decoder: Decoder, value: object) -> None:
    """Names and numbers come in an object."""
    with pytest.raises(InputError, match="ranks: must be a JSON object"):
        decoder_from_json(decoder.to_json() | {"ranks": value})
