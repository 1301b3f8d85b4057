"""Whatever is wrong with a source, it is one clear sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from tests.models import CONFIG, checkpoint_shapes, random_tensors, write_checkpoint

from onhand.core.arrays import FloatArray
from onhand.core.bundle import sha256_of
from onhand.core.errors import OnhandError, ResourceError, SourceError
from onhand.host.sources import load_model
from onhand.host.sources.huggingface import HuggingFaceSource

Tensors = dict[str, FloatArray]
NORM = "model.norm.weight"
QUERY = "model.layers.1.self_attn.q_proj.weight"
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4}


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to be damaged."""
    return Path(shutil.copytree(tiny, tmp_path / "damaged"))


def refused(location: Path | str) -> str:
    """The sentence that refuses a source: one line, no full stop."""
    with pytest.raises(SourceError) as caught:
        load_model(str(location))

    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "mamba"}, "model family 'mamba' is not known; known: llama, mistral"),
        ({"model_type": ["llama"]}, "model family ['llama'] is not known"),
        ({"model_type": "qwen3", "layer_types": ["full_attention"]}, "must be a list of 2 names"),
        (
            {"model_type": "qwen3", "layer_types": ["full_attention", "x"]},
            "known are full_attention and sliding_attention",
        ),
        ({"model_type": "gemma2", "use_bidirectional_attention": True}, "use_bidirectional"),
        (
            {"model_type": "gemma2", "query_pre_attn_scalar": "big"},
            "query_pre_attn_scalar is 'big'",
        ),
        ({"model_type": "gemma2", "final_logit_softcapping": -1}, "final_logit_softcapping is -1"),
        (
            {"model_type": "gemma3_text", "rope_parameters": {"full_attention": 3}},
            "full_attention is 3",
        ),
        ({**GPT2, "scale_attn_weights": False}, "scale_attn_weights is False"),
        ({"model_type": "gpt2"}, "n_embd is None"),
        ({"model_type": "mistral", "sliding_window": "wide"}, "sliding_window is 'wide'"),
        (
            {
                "model_type": "phi3",
                "rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.0]},
            },
            "short_factor is [1.0], must be a list of 8 numbers",
        ),
        ({"model_type": None}, "model family None is not known"),
        ({"model_type": ["llama"]}, "is not known"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', must be one of silu"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        (
            {"quantization_config": {"bits": 4}},
            "quantization_config is of method None; known: gptq, awq",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rope_type is 'dynamic', must be one of default, linear",
        ),
        ({"rope_scaling": {"type": "longrope"}}, "short_factor is None, must be a list"),
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn', must be a JSON object"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_scaling: factor is '2'"),
        ({"rope_scaling": {"type": "linear", "factor": 0.0}}, "factor is 0.0"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "mscale": 1.0}}, "mscale"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0, "truncate": False}}, "truncate"),
        (
            {"rope_scaling": {"type": "llama3", "low_freq_factor": 4.0, "high_freq_factor": 4.0}},
            "low_freq_factor",
        ),
        ({"rope_theta": 1.0}, "theta is 1.0"),
        ({"rope_theta": "10000"}, "rope_theta is '10000', must be a number from"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"num_hidden_layers": 2.0}, "num_hidden_layers is 2.0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000"),
        ({"num_key_value_heads": 3}, "num_attention_heads is 4, must be a multiple of"),
        ({"head_dim": 15}, "head_dim is 15, a head's width is 15, must be even"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
    ],
    ids=repr,
)
def test_a_config_that_is_not_understood_is_refused(
    folder: Path, change: dict[str, Any], reason: str
) -> None:
    """Nothing is guessed: an option that would change the computation is named."""
    (folder / "config.json").write_text(json.dumps({**CONFIG, **change}))

    text = refused(folder)

    assert reason in text
    assert "config.json" in text


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe{}", b"[" * 100_000, b'{"vocab_size": ' + b"1" * 5000 + b"}"],
    ids=["empty", "cut", "list", "not text", "deep", "endless number"],
)
def test_a_config_that_is_no_json_is_refused(folder: Path, content: bytes) -> None:
    """The file is named."""
    (folder / "config.json").write_bytes(content)

    assert str(folder / "config.json") in refused(folder)


def rewrite(folder: Path, change: Callable[[Tensors], object], *, dtype: str = "F16") -> Path:
    """Write the weights again, changed."""
    tensors = random_tensors(checkpoint_shapes(CONFIG))
    change(tensors)
    return write_checkpoint(folder, tensors=tensors, dtype=dtype)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop(QUERY), f"tensor '{QUERY}' is missing"),
        (lambda t: t.pop(NORM), f"tensor '{NORM}' is missing"),
        (lambda t: t.pop("model.embed_tokens.weight"), "'lm_head.weight' is missing"),
        (lambda t: t.update({QUERY: t[QUERY][:-1]}), f"tensor '{QUERY}' is F16 (63, 64), expected"),
        (lambda t: t.update({QUERY: t[QUERY].reshape(-1)}), "is F16 (4096,), expected (64, 64)"),
        (lambda t: t.update({"extra": t[NORM]}), "tensor 'extra' has no place in this family"),
        (
            lambda t: t.update({"model.layers.0.mlp.up_proj.bias": np.zeros(96, np.float32)}),
            "'model.layers.0.mlp.up_proj.bias' has no place",
        ),
    ],
    ids=["query", "norm", "embedding", "shape", "flat", "extra", "bias"],
)
def test_weights_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[Tensors], object], reason: str
) -> None:
    """Missing, of another shape, or unknown: the tensor is named."""
    assert reason in refused(rewrite(folder, change))


def test_weights_of_another_dtype_are_refused(folder: Path) -> None:
    """Integers are somebody's quantisation."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F16"', b'"I16"'))

    assert "I16 (320, 64), expected (320, 64) of F16, BF16, F32" in refused(folder)


def test_buffers_of_old_checkpoints_are_passed_over(folder: Path) -> None:
    """The description computes them."""
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"

    model = load_model(str(rewrite(folder, lambda t: t.update({name: np.ones(8, np.float32)}))))

    assert model.notes == ()


@pytest.mark.parametrize("keep", [0, 5, 8, 200, -1])
def test_a_file_that_is_cut_short_is_refused(folder: Path, keep: int) -> None:
    """Wherever it ends."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])

    assert str(path) in refused(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_a_weight_that_is_no_number_is_found_when_it_is_read(
    folder: Path, value: float, dtype: str
) -> None:
    """In a matrix and in a norm; the tensor is named."""

    def spoil(tensors: Tensors) -> None:
        for name in (QUERY, NORM, "model.embed_tokens.weight"):
            tensors[name].reshape(-1)[-1] = value

    weights = load_model(str(rewrite(folder, spoil, dtype=dtype))).weights

    reads: list[tuple[str, Callable[[], FloatArray]]] = [
        (QUERY, lambda: weights.matrix("layers.1.qkv")),
        (QUERY, lambda: weights.block("layers.1.qkv", 60, 70)),
        (NORM, lambda: weights.vector("final_norm")),
        ("model.embed_tokens.weight", lambda: weights.rows("embed", np.array([1, 319]))),
    ]

    for name, read in reads:
        with pytest.raises(SourceError, match=f"{name}' holds a NaN or an infinity"):
            read()
    assert np.isfinite(weights.block("layers.1.qkv", 64, 128)).all()


def test_rows_of_a_joined_matrix(tiny: Path) -> None:
    """Blocks that lie in one part, across borders, and in all three."""
    weights = load_model(str(tiny)).weights
    whole = weights.matrix("layers.0.qkv")

    for low, high in ((0, 1), (0, 64), (63, 65), (64, 96), (10, 128), (127, 128)):
        np.testing.assert_array_equal(weights.block("layers.0.qkv", low, high), whole[low:high])


def test_pickled_weights_are_not_read(folder: Path) -> None:
    """They could run any code."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    assert "found pytorch_model.bin); pickled weights are not read" in refused(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    """A sentence, not an empty model."""
    (folder / "model.safetensors").unlink()

    assert "found no weights at all" in refused(folder)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"weight_map": {NORM: "absent.safetensors"}}, "absent.safetensors is missing"),
        ({"weight_map": {NORM: "../outside.safetensors"}}, "which is outside the folder"),
        ({"weight_map": {NORM: "/etc/passwd"}}, "which is outside the folder"),
        ({"weight_map": {NORM: ".."}}, ".."),
        ({"weight_map": {}}, "has no weight_map"),
        ({"weight_map": ["model.safetensors"]}, "has no weight_map"),
        ({}, "has no weight_map"),
        ([], "is not a JSON object"),
    ],
)
def test_an_index_that_lies_is_refused(folder: Path, index: object, reason: str) -> None:
    """Files that are not there, or in another folder."""
    (folder.parent / "outside.safetensors").write_bytes(b"secret")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert reason in refused(folder)


def test_a_missing_config_is_refused(folder: Path) -> None:
    """A folder of something else."""
    (folder / "config.json").unlink()

    assert "has no config.json" in refused(folder)


def test_a_missing_tokenizer_is_refused(folder: Path) -> None:
    """With what to do."""
    (folder / "tokenizer.json").unlink()

    assert "has no tokenizer.json; save the tokenizer" in refused(folder)


@pytest.mark.parametrize("location", ["", "nowhere", "/nowhere/at/all", "a/b/c", "file"])
def test_a_place_that_is_no_model_is_refused(location: str, folder: Path) -> None:
    """Neither a folder nor a hub id."""
    place = str(folder / "config.json") if location == "file" else location

    assert "no source understands it" in refused(place)


@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("offline"), OSError("no route"), TimeoutError("slow")]
)
def test_a_hub_that_cannot_be_reached_is_a_lack_of_resources(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Nothing is wrong with the source."""

    def download(hub_id: str, **options: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    with pytest.raises(ResourceError, match=r"Qwen2.* cannot be fetched from the hub"):
        load_model("Qwen/Qwen2.5-0.5B")


@pytest.mark.parametrize("hub_id", ["a/b--c", "a/b..c", "a/" + "b" * 200, "a/b.git", "a/-b"])
def test_a_name_that_no_hub_knows_is_refused(hub_id: str) -> None:
    """The hub's own rules of names are a sentence too."""
    with pytest.raises(OnhandError) as caught:
        load_model(hub_id)

    assert "\n" not in str(caught.value)


def test_a_hub_id_is_fetched_without_code(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    """Only weights and texts; the model bears the id's name."""
    asked: list[str] = []

    def download(hub_id: str, *, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(tiny)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    model = load_model("somebody/tiny-model")

    assert model.name == "tiny-model"
    assert not [pattern for pattern in asked if pattern.endswith((".py", ".bin", "*"))]


def test_a_folder_goes_before_a_hub_id(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is asked for what lies here."""
    (folder.parent / "qwen").mkdir()
    folder.rename(folder.parent / "qwen" / "tiny")
    monkeypatch.chdir(folder.parent)

    def download(hub_id: str, **options: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    assert load_model("qwen/tiny").name == "tiny"


def test_the_identity_covers_every_weight(folder: Path, tiny: Path) -> None:
    """One bit of one weight, or of the config, is another model."""
    path = folder / "model.safetensors"
    first = load_model(str(tiny)).sha256

    assert load_model(str(folder)).sha256 == first
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert load_model(str(folder)).sha256 != first
    assert sha256_of(path) != sha256_of(tiny / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "expected"), [("a b/ü!", "a-b---"), ("...", "model"), ("x" * 200, "x" * 100)]
)
def test_a_name_fits_the_manifest(tiny: Path, name: str, expected: str) -> None:
    """Odd characters become dashes."""
    from onhand.host.sources.huggingface import read_folder

    assert read_folder(tiny, name=name).name.startswith(expected.strip("-"))
    assert HuggingFaceSource().why_not(str(tiny)) is None
