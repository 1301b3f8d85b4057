"""Whatever a manifest says of its decoder, it is a decoder or one clear sentence."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.damage import damaged

from onhand.core.decoder import Decoder, DecoderLayer, Rope, decoder_from_json
from onhand.core.errors import InputError

LAYER = DecoderLayer(n_heads=4, n_kv_heads=2, head_dim=8, mlp_width=12)
PLAIN = Decoder(
    vocab_size=11,
    width=8,
    context=16,
    norm_epsilon=1e-5,
    layers=(replace(LAYER, window=4), LAYER),
    attention_softcap=50.0,
    logit_softcap=30.0,
)
STRETCHED = {
    "linear": Rope(scaling="linear", factor=2.0),
    "llama3": Rope(scaling="llama3", factor=8.0, original_context=64),
    "yarn": Rope(scaling="yarn", factor=4.0, original_context=32, attention_factor=1.1),
    "longrope": Rope(
        scaling="longrope",
        factor=4.0,
        original_context=32,
        short_factors=(1.0, 1.5),
        long_factors=(2.0, 4.0),
        share=0.5,
    ),
}


@pytest.mark.parametrize("scaling", STRETCHED)
@given(data=st.data())
@settings(max_examples=60)
def test_attack_any_value_of_any_key(scaling: str, data: st.DataObject) -> None:
    """Never another exception, never a warning, never a table that is no number."""
    made = replace(PLAIN, rope=STRETCHED[scaling], local_rope=Rope(theta=50.0))
    table: dict[str, Any] = json.loads(json.dumps(made.to_json()))
    try:
        found = decoder_from_json(data.draw(damaged(table)))
    except InputError as error:
        text = str(error)
        assert text.startswith("decoder: ")
        assert text.isprintable()
        assert len(text) < 600
        return

    assert decoder_from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    assert found.n_parameters > 0
    for rope, head_dim in found.rotary_tables().values():
        for long in (False, True):
            for values in rope.tables(head_dim, 3, long=long):
                assert np.isfinite(values).all()


@pytest.mark.parametrize("value", ["x" * 10_000, [1] * 10_000, 10**4000, {"x" * 999: 1}])
def test_attack_long_values_make_no_long_messages(value: object) -> None:
    """Nobody reads ten thousand numbers in an error."""
    with pytest.raises(InputError) as caught:
        decoder_from_json(PLAIN.to_json() | {"width": value})

    assert len(str(caught.value)) < 300
    with pytest.raises(InputError) as caught:
        decoder_from_json(PLAIN.to_json() | {"y" * 10_000: 1})
    assert len(str(caught.value)) < 300
