"""Encoders of text become graphs that compute what transformers computes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.host.networks.tiny_encoders import (
    WORDS,
    save_encoder,
    save_modules,
    save_tokenizer,
    texts,
)

from onhand.core.errors import InputError, SourceError
from onhand.core.feed import TextFeed
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.observe import GraphRunner
from onhand.host.networks.onnx_files import model_bytes
from onhand.host.networks.sources.encoder import EncoderSource
from onhand.host.networks.sources.onnx import OnnxSource
from onhand.host.networks.sources.text_folder import feed_for_texts

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet")
PAD = {"bert": 0, "distilbert": 0}
TYPED = ("bert",)
# float32 in another order: some ten roundings of numbers around 1.
CLOSE = 1e-5


def feeds_of(family: str, *, length: int = 9) -> dict[str, np.ndarray]:
    """Two texts that fit a family."""
    return texts(length=length, pad_id=PAD.get(family, 1), has_types=family in TYPED)


def reference(model: Any, feeds: dict[str, np.ndarray]) -> Any:
    """What transformers computes."""
    import torch

    with torch.no_grad():
        return model(**{name: torch.from_numpy(array) for name, array in feeds.items()})


def compute(made: NetworkModel, feeds: dict[str, np.ndarray]) -> NDArray[np.float32]:
    """The one output of a graph."""
    (found,) = GraphRunner(made.graph, threads=1).run(dict(feeds)).values()
    return found.astype(np.float32)


def load(folder: Path, task: str) -> NetworkModel:
    """Read a folder."""
    assert EncoderSource().why_not(str(folder)) is None
    return EncoderSource().load(str(folder), task=task)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    """Every family gives the states of every token that is no padding."""
    model = save_encoder(tmp_path, family)
    feeds = feeds_of(family)
    made = load(tmp_path, "features")
    found = compute(made, feeds)

    expected = reference(model, feeds).last_hidden_state.numpy()
    kept = feeds["attention_mask"] == 1
    np.testing.assert_allclose(found[kept], expected[kept], rtol=CLOSE, atol=CLOSE)
    assert [value.name for value in made.graph.inputs] == list(feeds)
    assert made.family == family


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    """The head of each family, and the names of its classes."""
    names = {0: "no", 1: "yes", 2: "per haps"}
    kind = "AutoModelForSequenceClassification"
    model = save_encoder(tmp_path, family, kind=kind, id2label=names)
    feeds = feeds_of(family, length=5)
    made = load(tmp_path, "text-classification")
    found = compute(made, feeds)

    np.testing.assert_allclose(
        found, reference(model, feeds).logits.numpy(), rtol=CLOSE, atol=CLOSE
    )
    assert made.labels == ("no", "yes", "per haps")


@pytest.mark.parametrize("activation", ["gelu_new", "relu", "silu"])
def test_activations_are_those_of_transformers(activation: str, tmp_path: Path) -> None:
    """Not every encoder uses the exact GELU."""
    model = save_encoder(tmp_path, "bert", hidden_act=activation)
    feeds = feeds_of("bert")
    found = compute(load(tmp_path, "features"), feeds)

    expected = reference(model, feeds).last_hidden_state.numpy()
    kept = feeds["attention_mask"] == 1
    np.testing.assert_allclose(found[kept], expected[kept], rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token", "max_tokens"])
@pytest.mark.parametrize("normalize", [True, False])
def test_an_embedding_pools_as_the_source_says(
    pooling: str, normalize: bool, tmp_path: Path
) -> None:
    """Padding has no part in it; the length is 1 only where the source asks for it."""
    model = save_encoder(tmp_path, "bert")
    save_modules(tmp_path, pooling=pooling, normalize=normalize)
    feeds = feeds_of("bert")
    made = load(tmp_path, "text-embedding")
    found = compute(made, feeds)

    states = reference(model, feeds).last_hidden_state.numpy()
    lengths = feeds["attention_mask"].sum(axis=1)
    kept = [row[:n] for row, n in zip(states, lengths, strict=True)]
    by = {
        "mean_tokens": [rows.mean(axis=0) for rows in kept],
        "cls_token": [rows[0] for rows in kept],
        "max_tokens": [rows.max(axis=0) for rows in kept],
    }
    expected = np.stack(by[pooling])
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=CLOSE, atol=CLOSE)


def test_a_dense_layer_follows_the_pooling(tmp_path: Path) -> None:
    """LaBSE and its like bring the mean through one more layer."""
    import torch
    from safetensors.torch import save_file

    model = save_encoder(tmp_path, "bert")
    save_modules(tmp_path, normalize=False)
    (tmp_path / "2_Dense").mkdir()
    layer = torch.nn.Linear(16, 6)
    parts = {"linear.weight": layer.weight.data, "linear.bias": layer.bias.data}
    save_file(parts, tmp_path / "2_Dense" / "model.safetensors")
    options = {"in_features": 16, "out_features": 6, "bias": True,
               "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
    (tmp_path / "2_Dense" / "config.json").write_text(json.dumps(options))
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.append({"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    feeds = feeds_of("bert")
    found = compute(load(tmp_path, "text-embedding"), feeds)

    mask = torch.from_numpy(feeds["attention_mask"])[:, :, None]
    mean = (reference(model, feeds).last_hidden_state * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(
        found, torch.tanh(layer(mean)).detach().numpy(), rtol=CLOSE, atol=CLOSE
    )


def test_a_checkpoint_with_another_head_is_read(tmp_path: Path) -> None:
    """The prefix goes, and the report says what was left out."""
    model = save_encoder(tmp_path, "bert", kind="AutoModelForMaskedLM")
    feeds = feeds_of("bert")
    made = load(tmp_path, "features")
    found = compute(made, feeds)

    expected = reference(model.bert, feeds).last_hidden_state.numpy()
    np.testing.assert_allclose(found[1], expected[1], rtol=CLOSE, atol=CLOSE)
    assert "heads of other tasks are left out: cls" in made.notes


def test_half_precision_and_names_of_old_are_read(tmp_path: Path) -> None:
    """The parts gamma and beta are a norm's weight and bias; float16 is widened."""
    from safetensors.numpy import load_file, save_file

    save_encoder(tmp_path, "bert")
    before = load(tmp_path, "features")
    path = tmp_path / "model.safetensors"
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma")
           .replace("LayerNorm.bias", "LayerNorm.beta"): array.astype(np.float16)
           for name, array in load_file(path).items()}  # fmt: skip
    save_file(old, path)
    after = load(tmp_path, "features")

    assert (before.weight_bits, after.weight_bits) == (32, 16)
    assert before.graph.constants.keys() == after.graph.constants.keys()
    name = "embeddings.LayerNorm.weight"
    half = before.graph.constants[name].astype(np.float16)
    np.testing.assert_array_equal(after.graph.constants[name], half.astype(np.float32))
    assert before.sha256 != after.sha256


def test_the_tokenizer_cuts_nothing_by_itself(tmp_path: Path) -> None:
    """What a file asks for is replaced: the feed says how much is read."""
    save_encoder(tmp_path, "bert")
    limits = {"max_seq_length": 12, "do_lower_case": True}
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(limits))
    made = load(tmp_path, "features")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(made.files["tokenizer.json"].decode())
    assert tokenizer.truncation is None
    assert tokenizer.padding
    assert tokenizer.padding["length"] is None
    assert tokenizer.encode("THE cats sat on the mat").ids == [2, 5, 6, 12, 8, 10, 5, 11, 3]
    assert made.feed == TextFeed(max_tokens=12)


@pytest.mark.parametrize(
    ("limits", "most", "expected"),
    [({}, None, 512), ({"model_max_length": 1e30}, 24, 24), ({"model_max_length": 9}, 24, 9)],
)
def test_the_least_limit_counts(
    limits: dict[str, Any], most: int | None, expected: int, tmp_path: Path
) -> None:
    """An ONNX file beside a tokenizer has no other description; a guess is told."""
    save_tokenizer(tmp_path, **limits)
    found = feed_for_texts(tmp_path, inputs=["input_ids", "attention_mask"], most_tokens=most)

    assert found.feed == TextFeed(max_tokens=expected, types="")
    assert bool(found.notes) is (expected == 512)


def test_padding_is_what_the_tokenizer_says(tmp_path: Path) -> None:
    """The bundle's tokenizer names the id and the token."""
    save_tokenizer(tmp_path, pad_token="[UNK]")  # noqa: S106
    table = json.loads((tmp_path / "tokenizer.json").read_text())
    table["padding"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(table))
    found = json.loads(feed_for_texts(tmp_path, inputs=["input_ids"]).tokenizer)["padding"]

    assert (found["pad_id"], found["pad_token"]) == (WORDS.index("[UNK]"), "[UNK]")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "known encoders are bert"),
        ({"position_embedding_type": "relative_key"}, "known is only 'absolute'"),
        ({"is_decoder": True}, "must be false"),
        ({"num_attention_heads": 3}, "must divide hidden_size, 16"),
        ({"hidden_act": "mish"}, "must be one of gelu"),
        ({"hidden_size": 0}, "whole number"),
        ({"scale_emb": 2.0}, "this family knows only"),
        ({"num_hidden_layers": 1}, "'encoder.layer.1."),
        ({"num_hidden_layers": 3}, "is missing"),
        ({"vocab_size": 41}, "expected \\(41, 16\\)"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Every key of the configuration is judged."""
    save_encoder(tmp_path, "bert")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    with pytest.raises(InputError, match=message):
        EncoderSource().load(str(tmp_path), task="features")


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "pools by"),
        ({"pooling_mode": "lasttoken"}, "pools by"),
        ({"word_embedding_dimension": 8}, "must be the width of the encoder, 16"),
        ({"stride": 3}, "stride is 3"),
    ],
)
def test_an_unknown_pooling_is_refused(pool: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A pooling that would be another embedding is never taken for a known one."""
    save_encoder(tmp_path, "bert")
    save_modules(tmp_path, **pool)

    with pytest.raises(InputError, match=message):
        EncoderSource().load(str(tmp_path), task="text-embedding")


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([], "must begin with a Transformer"),
        ([{"type": "models.Transformer", "path": ""}, {"type": "models.CNN", "path": "1"}], "CNN"),
        ([{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "../x"}], "beside"),
        ([{"type": "a.Transformer", "path": ""}, {"type": "a.Dense", "path": "x"}], "of place"),
        ({}, "a list of modules"),
    ],
)
def test_attack_modules(modules: object, message: str, tmp_path: Path) -> None:
    """Modules lie in the folder, are known, and come in a known order."""
    save_encoder(tmp_path, "bert")
    (tmp_path / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(SourceError, match=message):
        EncoderSource().load(str(tmp_path), task="text-embedding")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """Each refusal says what to do."""
    source = EncoderSource()
    assert "no folder with a config.json" in str(source.why_not(str(tmp_path)))
    save_encoder(tmp_path, "bert")
    with pytest.raises(SourceError, match="no head for classes; use text-embedding"):
        source.load(str(tmp_path), task="text-classification")
    with pytest.raises(SourceError, match="does not do 'detection'"):
        source.load(str(tmp_path), task="detection")
    (tmp_path / "tokenizer.json").rename(tmp_path / "hidden")
    with pytest.raises(SourceError, match=r"has no tokenizer\.json; save"):
        source.load(str(tmp_path), task="features")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(SourceError, match=r"found pytorch_model\.bin\); pickled"):
        source.load(str(tmp_path), task="features")


def test_strange_tensors_are_refused(tmp_path: Path) -> None:
    """A tensor without a place, or one that is not finite, is an error."""
    from safetensors.numpy import load_file, save_file

    save_encoder(tmp_path, "bert")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"encoder.layer.0.adapter.weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(SourceError, match=r"'encoder.layer.0.adapter.weight' has no place"):
        EncoderSource().load(str(tmp_path), task="features")
    tensors["embeddings.LayerNorm.weight"][0] = np.nan
    save_file(tensors, path)
    with pytest.raises(SourceError, match="holds a NaN"):
        EncoderSource().load(str(tmp_path), task="features")


def test_a_tokenizer_fits_the_model(tmp_path: Path) -> None:
    """Ids beyond the table, and inputs that no text fills, are refused on the host."""
    save_tokenizer(tmp_path)
    with pytest.raises(SourceError, match="makes ids up to 12, the model knows 9"):
        feed_for_texts(tmp_path, inputs=["input_ids"], vocab_size=9)
    with pytest.raises(SourceError, match="'pixels'"):
        feed_for_texts(tmp_path, inputs=["input_ids", "pixels"])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SourceError, match="is not a tokenizer"):
        feed_for_texts(tmp_path, inputs=["input_ids"])


def test_an_onnx_file_beside_a_tokenizer_takes_texts(tmp_path: Path) -> None:
    """Exports for browsers hold both; without the tokenizer it takes arrays."""
    save_encoder(tmp_path / "source", "bert")
    made = load(tmp_path / "source", "features")
    path = tmp_path / "model.onnx"
    path.write_bytes(model_bytes(made.graph))
    assert OnnxSource().load(str(path), task="features").feed is None
    save_tokenizer(tmp_path, model_max_length=20)
    found = OnnxSource().load(str(path), task="features")

    assert found.feed == TextFeed(max_tokens=20)
    assert json.loads(found.files["tokenizer.json"])["truncation"] is None
    fixed = tuple(replace(value, shape=(1, 9)) for value in made.graph.inputs)
    path.with_name("fixed.onnx").write_bytes(model_bytes(replace(made.graph, inputs=fixed)))
    assert OnnxSource().load(str(path.with_name("fixed.onnx")), task="features").feed is None
    feeds = feeds_of("bert")
    np.testing.assert_allclose(compute(found, feeds), compute(made, feeds), rtol=CLOSE, atol=CLOSE)
