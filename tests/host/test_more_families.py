"""Logit by logit what transformers computes, on checkpoints that transformers wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.host.test_families import CLOSE, error, ours, theirs, tokens
from tests.models import VOCAB, tokenizer_json

from onhand.core.safetensors import SafetensorsWriter, TensorSpec, open_safetensors
from onhand.device.engines.base import Engine
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.host.pack import ORIGINAL, pack_original
from onhand.host.sources import load_model

torch = pytest.importorskip("torch", reason="compares with transformers")
transformers = pytest.importorskip("transformers", reason="compares with transformers")

BASE: Mapping[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
PHI = {key: value for key, value in BASE.items() if key != "head_dim"}
FIRST_CONTEXT = 32
LONG: Mapping[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": FIRST_CONTEXT,
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + 0.3 * i for i in range(8)],
}
GPT2 = {"vocab_size": VOCAB, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128}
FAMILIES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "mistral with a window": ("mistral", {**BASE, "sliding_window": 16}),
    "mistral": ("mistral", {**BASE, "sliding_window": None}),
    "qwen3": ("qwen3", {**BASE, "tie_word_embeddings": True}),
    "qwen3 with bias": ("qwen3", {**BASE, "attention_bias": True}),
    "qwen3 with late windows": (
        "qwen3",
        {**BASE, "use_sliding_window": True, "sliding_window": 12, "max_window_layers": 2},
    ),
    "qwen2 with late windows": (
        "qwen2",
        {**PHI, "use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1},
    ),
    "phi3 with a window": ("phi3", {**PHI, "num_key_value_heads": 4, "sliding_window": 20}),
    "phi3 with a long context": (
        "phi3",
        {**PHI, "original_max_position_embeddings": 32, "rope_parameters": LONG},
    ),
    "phi3 that turns half a head": (
        "phi3",
        {**PHI, "hidden_size": 128, "partial_rotary_factor": 0.5},
    ),
    "gemma2": ("gemma2", {**BASE, "sliding_window": 16, "query_pre_attn_scalar": 20}),
    "gemma2 without caps": (
        "gemma2",
        {
            **BASE,
            "sliding_window": 16,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
    ),
    "gemma3": (
        "gemma3_text",
        {**BASE, "num_hidden_layers": 7, "sliding_window": 16, "query_pre_attn_scalar": 20},
    ),
    "gpt2": ("gpt2", {**GPT2, "bos_token_id": 0, "eos_token_id": 1}),
    "llama with gelu": ("llama", {**BASE, "hidden_act": "gelu"}),
}
# The tables change when the conversation outgrows the first context: no answer of a row at once.
CROSSING = "phi3 with a long context"


def write_with_transformers(folder: Path, kind: str, options: Mapping[str, Any]) -> Path:
    """A random model as transformers saves it."""
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **options)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn_like(weight) * weight.shape[-1] ** -0.5)
            else:
                norm = name.endswith("weight") and "gemma" not in kind
                weight.copy_(torch.randn_like(weight) * 0.2 + float(norm))
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    """Of a row at once, in the source's own pass and in both engines; and token by token."""
    folder = write_with_transformers(tmp_path / "source", *FAMILIES[name])
    model = load_model(str(folder))
    (tmp_path / "bundle").mkdir()
    bundle = pack_original(model, tmp_path / "bundle")
    engines: list[Engine] = [ReferenceEngine(), OnnxEngine()]

    assert model.notes == ()
    for n in (24, 60):
        row = tokens(n)
        expected = theirs(folder, row)
        assert error(ours(model, row), expected) < CLOSE
        for engine in engines:
            loaded = engine.open(bundle, variant=ORIGINAL, threads=1)
            assert error(loaded.score(loaded.session(), row), expected) < CLOSE, engine.name
            if name == CROSSING and n > FIRST_CONTEXT:
                continue
            session = loaded.session()
            loaded.step([(session, row[:10])])
            for token in row[10:-1]:
                loaded.step([(session, np.array([token]))])
            last = loaded.step([(session, row[-1:])])[0]
            assert error(last, expected[-1]) < CLOSE, engine.name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mistral", {"sliding_window": 5}),
        ("qwen3 with late windows", {"max_window_layers": 1}),
        ("gemma2", {"final_logit_softcapping": None}),
        ("gemma2", {"attn_logit_softcapping": 1.0}),
        ("gemma2", {"query_pre_attn_scalar": 40}),
        ("gemma3", {"sliding_window": 5}),
        ("llama with gelu", {"hidden_act": "gelu_new"}),
        ("phi3 with a window", {"sliding_window": None}),
    ],
)
def test_options_change_the_answers(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    """The comparison above would see an option that is ignored."""
    kind, given = FAMILIES[name]
    plain = write_with_transformers(tmp_path / "plain", kind, given)
    before = ours(load_model(str(plain)), tokens(40))
    config = plain / "config.json"
    changed = {**json.loads(config.read_text()), **options}
    if "max_window_layers" in options:
        del changed["layer_types"]
    config.write_text(json.dumps(changed))

    least = CLOSE if "gelu" in name else 10 * CLOSE
    assert error(ours(load_model(str(plain)), tokens(40)), before) > least


OLD_GEMMA3 = {
    "sliding_window_pattern": 3,
    "rope_theta": 50000.0,
    "rope_local_base_freq": 5000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 4.0},
}
OLD_PHI3 = {
    "rope_scaling": {
        "type": "su",
        "short_factor": LONG["short_factor"],
        "long_factor": LONG["long_factor"],
    },
    "original_max_position_embeddings": 32,
}


def without_new_keys(folder: Path, old: Mapping[str, Any]) -> None:
    """Write the configuration as older versions did."""
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "layer_types"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps({**config, **old}))


def test_an_old_gemma3(tmp_path: Path) -> None:
    """Before `rope_parameters` and `layer_types`, a pattern and two bases said the same."""
    folder = write_with_transformers(tmp_path, *FAMILIES["gemma3"])
    without_new_keys(folder, OLD_GEMMA3)
    row = tokens(60)

    assert error(ours(load_model(str(folder)), row), theirs(folder, row)) < CLOSE


def test_an_old_phi3(tmp_path: Path) -> None:
    """Before `rope_parameters`, the scaling was called "su" and the first context stood outside."""
    folder = write_with_transformers(tmp_path, *FAMILIES[CROSSING])
    rows = [tokens(24), tokens(60)]
    expected = [theirs(folder, row) for row in rows]
    without_new_keys(folder, OLD_PHI3)

    for row, answer in zip(rows, expected, strict=True):
        assert error(ours(load_model(str(folder)), row), answer) < CLOSE


def rename(folder: Path, change: Mapping[str, str]) -> None:
    """Write the weights again with another beginning of their names."""
    path = folder / "model.safetensors"
    opened = open_safetensors(path)
    ((old, new),) = change.items()
    content = {name: np.array(opened.view(name)) for name in opened.tensors}
    named = {name.replace(old, new, 1): value for name, value in content.items()}
    specs = {
        name: TensorSpec(dtype="F32", shape=value.shape) for name, value in sorted(named.items())
    }
    fresh = folder / "fresh"
    writer = SafetensorsWriter(fresh, specs)
    for name in specs:
        writer.write(name, named[name])
    writer.close()
    fresh.replace(path)


def test_a_gpt2_without_its_prefix(tmp_path: Path) -> None:
    """The first checkpoints of GPT-2 name their tensors without "transformer."."""
    folder = write_with_transformers(tmp_path, *FAMILIES["gpt2"])
    row = tokens(20)
    expected = theirs(folder, row)

    rename(folder, {"transformer.": ""})

    assert "wte.weight" in open_safetensors(folder / "model.safetensors").tensors
    assert error(ours(load_model(str(folder)), row), expected) < CLOSE
