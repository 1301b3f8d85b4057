"""Logit by logit what transformers computes: every family, option and form of checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import CONFIG, VOCAB, checkpoint_shapes, random_tensors, write_checkpoint

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.progress import Quiet
from onhand.device.engines.base import Engine
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.device.probe import current_profile
from onhand.host.calibrate import head_logits, run_original
from onhand.host.model import Model
from onhand.host.pack import ORIGINAL, pack_original
from onhand.host.sources import load_model

torch = pytest.importorskip("torch", reason="compares with transformers")
transformers = pytest.importorskip("transformers", reason="compares with transformers")

# Float32 on both sides: sums of a few hundred terms in another order, through two layers.
CLOSE = 1e-4
QWEN = {**CONFIG, "model_type": "qwen2", "tie_word_embeddings": False}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
FAMILIES: dict[str, Mapping[str, Any]] = {
    "llama 2": {**CONFIG, "num_key_value_heads": 4, "tie_word_embeddings": False},
    "llama 2 of old, few keys": {
        key: value
        for key, value in CONFIG.items()
        if key not in {"num_key_value_heads", "tie_word_embeddings"}
    },
    "llama 3": {**CONFIG, "rope_theta": 500000.0, "rope_scaling": LLAMA3},
    "llama 3 as transformers 5 writes it": {
        **CONFIG,
        "rope_parameters": {**LLAMA3, "rope_theta": 500000.0},
    },
    "linear": {**CONFIG, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "attention bias": {**CONFIG, "attention_bias": True},
    "mlp bias": {**CONFIG, "mlp_bias": True},
    "head_dim given": {**CONFIG, "head_dim": 48, "num_key_value_heads": 1},
    "odd width": {**CONFIG, "hidden_size": 72, "head_dim": 16, "intermediate_size": 100},
    "narrow heads": {**CONFIG, "head_dim": 8},
    "epsilon": {**CONFIG, "rms_norm_eps": 0.01},
    "qwen2": {**QWEN, "rope_theta": 1000000.0},
    "qwen2 tied": {**QWEN, "tie_word_embeddings": True, "use_sliding_window": False},
    "qwen2 yarn": {**QWEN, "rope_scaling": YARN},
}


def tokens(n: int = 40) -> TokenArray:
    """A row of random tokens."""
    return np.random.default_rng(8).integers(0, VOCAB, n)


def theirs(folder: Path, row: TokenArray) -> FloatArray:
    """What transformers computes in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    with torch.no_grad():
        logits: FloatArray = model.eval()(torch.from_numpy(row)[None]).logits[0].numpy()
    return logits


def ours(model: Model, row: TokenArray) -> FloatArray:
    """What the source's own forward pass computes."""
    (hidden,) = run_original(model, calibration=[], heldout=[row], progress=Quiet()).hidden
    return head_logits(model)(hidden)


def error(found: FloatArray, expected: FloatArray) -> float:
    """The largest difference, by the largest logit."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_logits_are_those_of_transformers(tmp_path: Path, config: Mapping[str, Any]) -> None:
    """The source's forward pass, and the unquantised bundle in both engines."""
    folder = write_checkpoint(tmp_path / "source", config)
    row = tokens()
    expected = theirs(folder, row)
    model = load_model(str(folder))
    (tmp_path / "bundle").mkdir()
    bundle = pack_original(model, tmp_path / "bundle")
    engines: list[Engine] = [ReferenceEngine(), OnnxEngine()]

    assert error(ours(model, row), expected) < CLOSE
    profile = current_profile()
    for engine in engines:
        if reason := engine.why_not(bundle, profile, variant=ORIGINAL):
            assert config.get("head_dim") == 8, reason
            continue
        loaded = engine.open(bundle, variant=ORIGINAL, threads=1)
        assert error(loaded.score(loaded.session(), row), expected) < CLOSE, engine.name


def test_options_change_the_answers(tmp_path: Path) -> None:
    """The comparison above would see an option that is ignored."""
    row = tokens()
    llama = ("linear", "llama 3", "epsilon")
    answers = [
        ours(load_model(str(write_checkpoint(tmp_path / name, FAMILIES[name]))), row)
        for name in ("llama 2 of old, few keys", *llama)
    ]
    plain = ours(load_model(str(write_checkpoint(tmp_path / "plain", CONFIG))), row)

    assert all(error(answer, plain) > 10 * CLOSE for answer in answers if answer is not plain)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("n_shards", [1, 3])
def test_every_form_of_checkpoint(tmp_path: Path, dtype: str, n_shards: int) -> None:
    """Half precision of both kinds, float32; one file or several with an index."""
    folder = write_checkpoint(tmp_path, QWEN, dtype=dtype, n_shards=n_shards)
    row = tokens(12)

    model = load_model(str(folder))

    assert error(ours(model, row), theirs(folder, row)) < CLOSE
    assert model.weight_bits == (32 if dtype == "F32" else 16)
    assert model.source_bytes == sum(p.stat().st_size for p in folder.glob("*.safetensors"))


@pytest.mark.parametrize("stored", ["embedding", "head", "both"])
def test_a_tied_pair_under_either_name(tmp_path: Path, stored: str) -> None:
    """Transformers writes the embedding; others write the head, or both."""
    tensors = random_tensors(checkpoint_shapes(CONFIG))
    expected = ours(
        load_model(str(write_checkpoint(tmp_path / "plain", tensors=tensors))), tokens()
    )
    shared = tensors["model.embed_tokens.weight"]
    if stored != "embedding":
        tensors["lm_head.weight"] = shared
    if stored == "head":
        del tensors["model.embed_tokens.weight"]

    model = load_model(str(write_checkpoint(tmp_path / stored, tensors=tensors)))

    np.testing.assert_array_equal(ours(model, tokens()), expected)
    assert len(model.notes) == (stored == "both")


def test_a_checkpoint_that_transformers_wrote(tmp_path: Path) -> None:
    """Its own config.json, with all that it adds, and its own shards."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(**{k: v for k, v in QWEN.items() if k != "model_type"})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    plain = write_checkpoint(tmp_path / "plain")
    (tmp_path / "tokenizer.json").write_bytes((plain / "tokenizer.json").read_bytes())
    row = tokens()

    loaded = load_model(str(tmp_path))

    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert "rope_parameters" in json.loads((tmp_path / "config.json").read_text())
    assert error(ours(loaded, row), theirs(tmp_path, row)) < CLOSE


def test_hidden_states_are_those_of_transformers(tmp_path: Path) -> None:
    """The inputs of the head, for each sequence on its own."""
    folder = write_checkpoint(tmp_path, QWEN)
    model = transformers.AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    rows = [tokens(30), tokens(7)]

    run = run_original(
        load_model(str(folder)), calibration=[tokens(9)], heldout=rows, progress=Quiet()
    )

    assert len(run.hidden) == 2
    for row, hidden in zip(rows, run.hidden, strict=True):
        with torch.no_grad():
            expected = model.eval()(torch.from_numpy(row)[None]).last_hidden_state[0].numpy()
        assert error(hidden, expected) < CLOSE
