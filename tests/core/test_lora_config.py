"""Options of an adapter: each is followed, or refused by name."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.adapters import ATTENTION, MLP, Factors, some, write_adapter

from onhand.core.adapter import read_adapter
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.lora_config import parse_lora_config


def test_what_the_configuration_asks_for_must_be_there(tmp_path: Path, decoder: Decoder) -> None:
    """A layer that was cut off, a module that nobody asked for."""
    factors = some(decoder, "down_proj", "q_proj")
    cut = {module: pair for module, pair in factors.items() if ".1." not in module}
    targets = ["q_proj", "mlp.down_proj"]

    def read(options: Mapping[str, Any], given: Factors) -> set[str]:
        place = write_adapter(tmp_path / "a", given, {"target_modules": targets, **options})
        return set(read_adapter(place, decoder).pairs)

    assert len(read({}, factors)) == 4
    assert len(read({"layers_to_transform": [0]}, cut)) == 2
    assert len(read({"layers_to_transform": 0}, cut)) == 2
    assert (
        len(
            read(
                {"exclude_modules": ["model.layers.1.mlp.down_proj", "1.x"]},
                {name: pair for name, pair in factors.items() if name != MLP.format(1, "down")},
            )
        )
        == 3
    )
    # Expressions are not followed: then the tensors alone say.
    assert len(read({"target_modules": ".*proj"}, cut)) == 2
    assert len(read({"exclude_modules": r".*\.1\..*"}, cut)) == 2
    assert len(read({"target_modules": None}, cut)) == 2
    with pytest.raises(InputError, match=r"layers.1.self_attn.q_proj.lora_A.weight' is missing"):
        read({}, cut)
    with pytest.raises(InputError, match=r"layers.0.self_attn.q_proj' is adapted, .* not ask"):
        read({"target_modules": ["down_proj"]}, factors)
    with pytest.raises(InputError, match=r"layers.1.* is adapted, adapter_config.json does not"):
        read({"layers_to_transform": [0]}, factors)
    with pytest.raises(InputError, match="'lm_head' is adapted"):
        read(
            {"layers_to_transform": [0, 1], "target_modules": [*targets, "lm_head"]},
            {**factors, **some(decoder, "lm_head")},
        )


def test_a_rank_and_an_alpha_for_each_module(tmp_path: Path, decoder: Decoder) -> None:
    """The first pattern that matches the end of a module's name counts; rsLoRA takes the root."""
    factors = {
        **some(decoder, "q_proj", rank=4),
        **some(decoder, "down_proj", rank=2),
        **some(decoder, "1.mlp.down_proj", rank=3),
    }
    options = {
        "lora_alpha": 8,
        "rank_pattern": {r"layers\.1\.mlp\.down_proj": 3, "down_proj": 2},
        "alpha_pattern": {r"^model.layers.\d+.self_attn.q_proj": 5, r"0\.mlp.down_proj$": 7.5},
    }
    scales = {
        ATTENTION.format(0, "q"): (5, 4),
        ATTENTION.format(1, "q"): (5, 4),
        MLP.format(0, "down"): (7.5, 2),
        MLP.format(1, "down"): (8, 3),
    }

    for rooted in (False, True):
        place = write_adapter(tmp_path / "a", factors, {**options, "use_rslora": rooted})
        pairs = read_adapter(place, decoder).pairs

        for module, (alpha, rank) in scales.items():
            first, second = factors[module]
            delta = alpha / (math.sqrt(rank) if rooted else rank) * (second @ first)
            i = module.split(".")[2]
            name = f"layers.{i}.qkv" if "q_proj" in module else f"layers.{i}.down"
            a, b = pairs[name]
            np.testing.assert_allclose((b @ a)[: delta.shape[0]], delta, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA', must be 'LORA'"),
        ({"peft_type": ...}, "peft_type is None"),
        ({"use_dora": True}, "use_dora is True, which is not supported; merge the adapter"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
        ({"bias": "all"}, "bias is 'all', must be 'none'"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"bias": None}, "bias is None"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is"),
        ({"target_parameters": ["a"]}, "target_parameters is"),
        ({"use_qalora": True}, "use_qalora is True"),
        ({"megatron_config": {"a": 1}}, "megatron_config is"),
        ({"a_later_option": "on"}, "a_later_option is 'on', which is not supported"),
        ({"a_later_option": "x" * 999}, r"a_later_option is 'x{56}\.\.\., which"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights is 'pissa_niter_16', which"),
        ({"init_lora_weights": "loftq"}, "changes the model beside the adapter"),
        ({"init_lora_weights": None}, "init_lora_weights is None"),
        ({"init_lora_weights": [1]}, "init_lora_weights is"),
        ({"fan_in_fan_out": "yes"}, "fan_in_fan_out is 'yes', must be true or false"),
        ({"use_rslora": 1}, "use_rslora is 1, must be true or false"),
        ({"r": 0}, "r is 0, must be a whole number"),
        ({"r": 4.0}, "r is 4.0"),
        ({"r": 10**9}, "r is 1000000000"),
        ({"r": ...}, "rank 8 need"),
        ({"r": 3}, "rank 3 need"),
        ({"lora_alpha": 0}, "lora_alpha is 0, must be a number from"),
        ({"lora_alpha": -1}, "lora_alpha is -1"),
        ({"lora_alpha": 1e300}, "lora_alpha is"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern must be an object"),
        ({"rank_pattern": {"down_proj": 0}}, "rank_pattern: down_proj is 0"),
        ({"rank_pattern": {"down_proj": 3}}, "rank 3 need"),
        ({"rank_pattern": {str(i): 1 for i in range(4097)}}, "at most 4096 patterns"),
        ({"alpha_pattern": {"down_proj": "1"}}, "alpha_pattern: down_proj is '1'"),
        ({"alpha_pattern": {"(a+)+": 1}}, r"alpha_pattern has the pattern '\(a\+\)\+'"),
        ({"alpha_pattern": {".*": 1}}, "alpha_pattern has the pattern"),
        ({"alpha_pattern": {"(|.)" * 40: 1}}, "alpha_pattern has the pattern"),
        ({"alpha_pattern": {"a" * 201: 1}}, "alpha_pattern has the pattern"),
        ({"alpha_pattern": {"": 1}}, "alpha_pattern has the pattern ''"),
        ({"alpha_pattern": {"a\n": 1}}, "alpha_pattern has the pattern"),
        ({"target_modules": []}, r"target_modules is \[\], must be a text or a list of names"),
        ({"target_modules": [1]}, "target_modules is"),
        ({"target_modules": 5}, "target_modules is 5"),
        ({"target_modules": ["down_proj"], "exclude_modules": [""]}, "exclude_modules is"),
        ({"layers_to_transform": "0"}, "layers_to_transform is '0'"),
        ({"layers_to_transform": [True]}, "layers_to_transform is"),
        ({"layers_to_transform": -1}, "layers_to_transform is -1"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_attack_options(
    tmp_path: Path, decoder: Decoder, options: Mapping[str, Any], message: str
) -> None:
    """Whatever changes the answers is followed or refused by name."""
    place = write_adapter(tmp_path / "a", some(decoder, "down_proj"), options)

    with pytest.raises(InputError, match=message):
        read_adapter(place, decoder)


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal"])
def test_how_the_training_began_does_not_matter(
    tmp_path: Path, decoder: Decoder, start: object
) -> None:
    """As long as the model itself was left as it is; PEFT's own remarks do not either."""
    options = {"init_lora_weights": start, "alpha_pattern": None, "revision": "main"}
    place = write_adapter(tmp_path / "a", some(decoder, "down_proj"), options)

    assert len(read_adapter(place, decoder).pairs) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "must be a JSON object, found list"),
        (b'{"r": 4, "r": 8}', "'r' is given twice"),
        (b'{"lora_alpha": NaN}', "NaN is not a number"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (2**20 + 1), "over 1048576 bytes"),
    ],
    ids=["empty", "list", "twice", "nan", "bytes", "deep", "long"],
)
def test_attack_configurations(
    tmp_path: Path, decoder: Decoder, content: bytes, message: str
) -> None:
    """Bounded and read strictly; the message names the file."""
    place = write_adapter(tmp_path / "a", some(decoder, "down_proj"))
    (place / "adapter_config.json").write_bytes(content)

    with pytest.raises(InputError, match=rf"adapter_config\.json: .*{message}"):
        read_adapter(place, decoder)


def test_modules_may_be_trained_whole_where_somebody_reads_them() -> None:
    """A classifier's head goes along so; elsewhere it stays refused."""
    content = json.dumps({"peft_type": "LORA", "modules_to_save": ["classifier"]}).encode()

    found = parse_lora_config(content, where="here", may_replace=True)

    assert found.wholes == ("classifier",)
    plain = json.dumps({"peft_type": "LORA", "modules_to_save": None}).encode()
    assert parse_lora_config(plain, where="here", may_replace=True).wholes == ()
    with pytest.raises(InputError, match="modules_to_save"):
        parse_lora_config(content, where="here")
