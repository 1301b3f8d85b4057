"""Adapters merged at build: logit by logit what transformers computes with the merged weights."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.adapters import Factors, lora_factors, write_adapter
from tests.host.test_families import CLOSE, error, ours
from tests.models import CONFIG, VOCAB, checkpoint_shapes, memory_model, write_checkpoint

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import read_bundle
from onhand.core.errors import InputError, SourceError
from onhand.device.engines.base import Engine
from onhand.device.engines.onnx import OnnxEngine
from onhand.device.engines.reference import ReferenceEngine
from onhand.host.adapters import merge_adapter
from onhand.host.build import build_bundle
from onhand.host.evaluate import evaluate_bundle
from onhand.host.model import Model
from onhand.host.options import BuildOptions
from onhand.host.pack import ORIGINAL, pack_original
from onhand.host.passes.quantize import Quantize
from onhand.host.sources import load_model

torch = pytest.importorskip("torch", reason="compares with transformers")
transformers = pytest.importorskip("transformers", reason="compares with transformers")

LLAMA = {**CONFIG, "tie_word_embeddings": False}
QWEN = {**LLAMA, "model_type": "qwen2"}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": VOCAB,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
RANKS = {"r": 4, "rank_pattern": {r"0\.self_attn\.q_proj": 2}, "alpha_pattern": {"o_proj": 3}}
CASES: dict[str, tuple[Mapping[str, Any], tuple[str, ...], Mapping[str, Any], str]] = {
    "llama, query and value": (LLAMA, ("q_proj", "v_proj"), {"r": 8}, "F32"),
    "llama, everything": (LLAMA, ("_proj", "lm_head"), {"r": 4}, "BF16"),
    "llama, ranks and alphas": (LLAMA, ("q_proj", "o_proj"), RANKS, "F16"),
    "llama, one layer": (LLAMA, ("1.mlp.up_proj",), {"r": 1, "layers_to_transform": [1]}, "F32"),
    "qwen2, with biases": (QWEN, ("k_proj", "gate_proj", "down_proj"), {"r": 4}, "BF16"),
    "qwen2, rank stabilised": (QWEN, ("q_proj",), {"r": 9, "use_rslora": True}, "F32"),
    "gpt2, Conv1D": (
        GPT2,
        ("c_attn", "c_proj", "c_fc"),
        {"r": 4, "fan_in_fan_out": True},
        "F32",
    ),
}


def tokens(n: int = 30) -> TokenArray:
    """A row of random tokens."""
    return np.random.default_rng(8).integers(0, VOCAB, n)


def write_source(folder: Path, config: Mapping[str, Any]) -> Path:
    """A random checkpoint; GPT-2's as transformers saves it."""
    if config["model_type"] != "gpt2":
        return write_checkpoint(folder, config)
    torch.manual_seed(1)
    write_checkpoint(folder, CONFIG)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.GPT2Config(**{k: v for k, v in config.items() if k != "model_type"})
    )
    for weight in model.parameters():
        weight.data = torch.randn_like(weight) * weight.shape[-1] ** -0.5
    model.save_pretrained(folder)
    return folder


def open_theirs(folder: Path) -> Any:
    """The source in transformers, float32."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()


def logits_of(model: Any, row: TokenArray) -> FloatArray:
    """What transformers computes."""
    with torch.no_grad():
        logits: FloatArray = model(torch.from_numpy(row)[None]).logits[0].numpy()
    return logits


def make_adapter(
    folder: Path, model: Any, ends: tuple[str, ...], options: Mapping[str, Any], dtype: str
) -> Factors:
    """An adapter for the modules whose names end so."""
    shapes: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        if name.endswith(ends) and hasattr(module, "weight"):
            n, k = module.weight.shape
            shapes[name] = (k, n) if "Conv1D" in type(module).__name__ else (n, k)
    factors = lora_factors(shapes, rank=options["r"])
    if "rank_pattern" in options:
        special = {m: shape for m, shape in shapes.items() if m.endswith("0.self_attn.q_proj")}
        factors |= lora_factors(special, rank=2, seed=6)
    write_adapter(folder, factors, options, dtype=dtype)
    return factors


def merge_theirs(model: Any, factors: Factors, options: Mapping[str, Any]) -> None:
    """Add alpha / r B A to the weights, by the formula."""
    for name, module in model.named_modules():
        if name in factors:
            first, second = (torch.from_numpy(np.array(half)) for half in factors[name])
            rank = first.shape[0]
            alpha = 3 if "alpha_pattern" in options and name.endswith("o_proj") else 16
            scale = alpha / (rank**0.5 if options.get("use_rslora") else rank)
            delta = scale * second @ first
            module.weight.data += delta.T if "Conv1D" in type(module).__name__ else delta


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_merged_model(tmp_path: Path, case: str) -> None:
    """The source's own pass, and the unquantised bundle in both engines."""
    config, ends, options, dtype = CASES[case]
    folder = write_source(tmp_path / "source", config)
    model, row = open_theirs(folder), tokens()
    plain = logits_of(model, row)
    factors = make_adapter(tmp_path / "adapter", model, ends, options, dtype)
    merge_theirs(model, factors, options)
    expected = logits_of(model, row)

    merged = merge_adapter(load_model(str(folder)), tmp_path / "adapter")

    assert error(plain, expected) > 100 * CLOSE
    assert error(ours(merged, row), expected) < CLOSE
    (tmp_path / "bundle").mkdir()
    bundle = pack_original(merged, tmp_path / "bundle")
    engines: list[Engine] = [ReferenceEngine(), OnnxEngine()]
    for engine in engines:
        loaded = engine.open(bundle, variant=ORIGINAL, threads=1)
        assert error(loaded.score(loaded.session(), row), expected) < CLOSE, engine.name


def merged_beside_peft(folder: Path, options: Any, adapter: Path) -> tuple[Model, FloatArray]:
    """An adapter that PEFT made and saved: merged by us, and the logits that PEFT computes."""
    import peft

    torch.manual_seed(3)
    model = peft.get_peft_model(open_theirs(folder), options).eval()
    model.save_pretrained(str(adapter))
    return merge_adapter(load_model(str(folder)), adapter), logits_of(model, tokens())


# PEFT is not yet as new as transformers.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("rooted", [False, True])
def test_logits_are_those_of_peft(tmp_path: Path, kind: str, rooted: bool) -> None:
    """PEFT makes, saves and runs the adapter; we read what it saved."""
    import peft

    folder = write_source(tmp_path / "source", LLAMA if kind == "llama" else GPT2)
    targets = ["q_proj", "down_proj"] if kind == "llama" else ["c_attn", "mlp.c_proj"]
    options = peft.LoraConfig(
        r=4,
        lora_alpha=12,
        target_modules=targets,
        use_rslora=rooted,
        rank_pattern={targets[1]: 2},
        alpha_pattern={targets[0]: 5},
        fan_in_fan_out=kind == "gpt2",
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    merged, expected = merged_beside_peft(folder, options, tmp_path / "adapter")

    assert error(ours(load_model(str(folder)), tokens()), expected) > 100 * CLOSE
    assert error(ours(merged, tokens()), expected) < CLOSE


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize("tied", [False, True])
def test_a_head_adapted_by_peft(tmp_path: Path, tied: bool) -> None:
    """PEFT keeps the head beside its factors, and adapts a tied one without the embedding."""
    import peft

    folder = write_source(tmp_path / "source", {**CONFIG, "tie_word_embeddings": tied})
    options = peft.LoraConfig(
        r=4, target_modules=["v_proj", "lm_head"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    merged, expected = merged_beside_peft(folder, options, tmp_path / "adapter")

    assert error(ours(load_model(str(folder)), tokens()), expected) > 100 * CLOSE
    assert error(ours(merged, tokens()), expected) < CLOSE
    assert not merged.decoder.tied
    assert any("no longer tied" in note for note in merged.notes) == tied
    (tmp_path / "bundle").mkdir()
    bundle = pack_original(merged, tmp_path / "bundle")
    loaded = OnnxEngine().open(bundle, variant=ORIGINAL, threads=1)
    assert error(loaded.score(loaded.session(), tokens()), expected) < CLOSE

    other = write_source(tmp_path / "other", {**CONFIG, "tie_word_embeddings": not tied})
    with pytest.raises(InputError, match="is not this model's: give the model that it was trained"):
        merge_adapter(load_model(str(other)), tmp_path / "adapter")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of the tiny checkpoint that changes its answers."""
    shapes = {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in checkpoint_shapes(CONFIG).items()
        if name.endswith(("q_proj.weight", "up_proj.weight"))
    }
    return write_adapter(tmp_path / "adapter", lora_factors(shapes), {"lora_alpha": 8})


def test_the_rest_is_the_source(tiny: Path, adapter: Path) -> None:
    """Blocks are rows of the merged matrix; rows, vectors and other matrices pass through."""
    source = load_model(str(tiny))

    merged = merge_adapter(source, adapter)

    weights, before = merged.weights, source.weights
    whole = weights.matrix("layers.0.qkv")
    np.testing.assert_allclose(weights.block("layers.0.qkv", 5, 70), whole[5:70], rtol=1e-6)
    assert (whole[:64] != before.matrix("layers.0.qkv")[:64]).mean() > 0.9
    np.testing.assert_array_equal(whole[64:], before.matrix("layers.0.qkv")[64:])
    np.testing.assert_array_equal(weights.matrix("layers.0.out"), before.matrix("layers.0.out"))
    ids = np.array([5, 3])
    np.testing.assert_array_equal(weights.rows("embed", ids), before.rows("embed", ids))
    np.testing.assert_array_equal(weights.vector("final_norm"), before.vector("final_norm"))
    assert merged.sha256 not in {source.sha256, merged.adapter_sha256}
    assert merged.notes[-1] == "the adapter adapter is merged: 4 matrices, rank 4"
    assert merged.decoder == source.decoder


def test_a_sum_beyond_float32_is_refused(tmp_path: Path) -> None:
    """Both are finite, their sum is not."""
    model = memory_model()
    name = "model.layers.0.mlp.down_proj"
    first, second = np.full((1, 96), 1e19, np.float32), np.full((64, 1), 5e19, np.float32)
    place = write_adapter(tmp_path / "a", {name: (first, second)}, {"r": 1, "lora_alpha": 1})

    with pytest.raises(SourceError, match=r"layers\.0\.down with its adapter holds a NaN"):
        merge_adapter(model, place).weights.matrix("layers.0.down")


def test_a_build_with_an_adapter(
    tiny: Path, adapter: Path, tmp_path: Path, home: Path, text: Path, quick: object
) -> None:
    """The bundle is that of the merged model, says so, and is judged beside it."""
    plain = BuildOptions(
        transforms={"int8": Quantize(bits=8, method="rtn")}, calibrate=text, threads=1
    )
    options = BuildOptions(
        transforms={"int8": Quantize(bits=8, method="rtn")},
        calibrate=text,
        threads=1,
        adapter=adapter,
    )

    made = build_bundle(str(tiny), tmp_path / "bundle", options, home=home)
    build_bundle(str(tiny), tmp_path / "plain", plain, home=home)

    bundle = read_bundle(tmp_path / "bundle")
    merged = merge_adapter(load_model(str(tiny)), adapter)
    assert bundle.manifest.provenance["adapter_sha256"] == merged.adapter_sha256
    assert bundle.manifest.provenance["source_sha256"] == merged.sha256
    assert "adapter_sha256" not in read_bundle(tmp_path / "plain").manifest.provenance
    assert any("adapter is merged" in str(note) for note in made.report["notes"])  # type: ignore[attr-defined] # a list
    found = evaluate_bundle(tmp_path / "bundle", text, home=home, threads=1)
    assert 0 < found["kl_divergence"].value < 1e-2


def test_the_original_needs_its_adapter(
    tiny: Path, adapter: Path, tmp_path: Path, home: Path, text: Path, quick: object
) -> None:
    """Recorded or given; another one, none, or one too many is an error."""
    options = BuildOptions(transforms={"a": Quantize(method="rtn")}, calibrate=text, threads=1)
    build_bundle(str(tiny), tmp_path / "plain", options, home=home)
    with_adapter = BuildOptions(
        transforms={"a": Quantize(method="rtn")}, calibrate=text, threads=1, adapter=adapter
    )
    build_bundle(str(tiny), tmp_path / "bundle", with_adapter, home=home)
    moved = Path(shutil.move(adapter, tmp_path / "moved"))
    elsewhere = tmp_path / "another home"

    with pytest.raises(InputError, match="there is no such adapter"):
        evaluate_bundle(tmp_path / "bundle", text, home=home, threads=1)
    with pytest.raises(InputError, match="no record of its adapter; give --original-adapter DIR"):
        evaluate_bundle(tmp_path / "bundle", text, original=tiny, home=elsewhere, threads=1)
    with pytest.raises(InputError, match="no adapter was merged into its original"):
        evaluate_bundle(tmp_path / "plain", text, original_adapter=moved, home=home, threads=1)
    found = evaluate_bundle(
        tmp_path / "bundle", text, original=tiny, original_adapter=moved, home=elsewhere, threads=1
    )
    assert found["kl_divergence"].value > 0
