"""onnxruntime-genai's folder answers as the engine that ships: the same kernels, the same bytes."""

import errno
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from tests.host.export_models import CONFIGS, INT4, INT8, UNEVEN, bundle_of, family
from tests.host.tiny_bundle import PLACE
from tests.models import DECODER, LAYER, tokenizer_json

from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError, ResourceError
from onhand.core.onnxfile import check_external_data
from onhand.core.progress import Quiet
from onhand.core.safetensors import SafetensorsWriter, open_safetensors
from onhand.device.engines.onnx import OnnxEngine
from onhand.host.export.genai import export_genai
from onhand.host.export.result import ExportResult
from onhand.host.passes.quantize import Quantize

# The same kernels; only how the key/value memory lies differs.
CLOSE = 1e-5
PROMPT, REST = 20, 20
CROSSING = "phi3 with a long context"


def export(bundle: Bundle, out: Path, variant: str = "int4") -> ExportResult:
    """The folder of one variant."""
    return export_genai(bundle, variant, out, progress=Quiet())


class Fed:
    """A graph fed as onnxruntime-genai feeds it; the memory grows with each step."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "genai_config.json").read_text())["model"]
        self.inputs, self.outputs = config["decoder"]["inputs"], config["decoder"]["outputs"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        graph = folder / config["decoder"]["filename"]
        self.session = ort.InferenceSession(str(graph), options, ["CPUExecutionProvider"])
        shape = (1, config["decoder"]["num_key_value_heads"], 0, config["decoder"]["head_size"])
        n_layers = config["decoder"]["num_hidden_layers"]
        self.length = 0
        self.memory = {
            (kind, i): np.zeros(shape, dtype=np.float32)
            for i in range(n_layers)
            for kind in ("key", "value")
        }

    def step(self, tokens: TokenArray) -> FloatArray:
        """Logits after the last token: (V,)."""
        end = self.length + tokens.size
        given: dict[str, np.ndarray] = {
            self.inputs["input_ids"]: tokens[None, :],
            self.inputs["attention_mask"]: np.ones((1, end), dtype=np.int64),
        }
        if "position_ids" in self.inputs:
            given[self.inputs["position_ids"]] = np.arange(self.length, end)[None, :]
        for (kind, i), part in self.memory.items():
            given[self.inputs[f"past_{kind}_names"] % i] = part
        names = [self.outputs[f"present_{kind}_names"] % i for kind, i in self.memory]
        logits, *grown = self.session.run([self.outputs["logits"], *names], given)
        self.memory = dict(zip(self.memory, grown, strict=True))
        self.length = end
        assert logits.shape[:2] == (1, 1)
        last: FloatArray = logits[0, 0]
        return last


def both(
    bundle: Bundle, folder: Path, variant: str = "int4"
) -> list[tuple[FloatArray, FloatArray]]:
    """Answers of the folder and of the bundle: after a prompt, and after each token."""
    export(bundle, folder, variant)
    theirs = Fed(folder)
    loaded = OnnxEngine().open(bundle, variant=variant, threads=1)
    session = loaded.session()
    row = np.random.default_rng(3).integers(0, loaded.vocab_size, PROMPT + REST)
    pieces = [row[:PROMPT], *(row[i : i + 1] for i in range(PROMPT, row.size))]
    return [(theirs.step(piece), loaded.step([(session, piece)])[0]) for piece in pieces]


@pytest.mark.parametrize("name", CONFIGS)
def test_answers_are_the_bundles(tmp_path: Path, name: str) -> None:
    """After a prompt and token by token, windows and longer rotary tables crossed."""
    bundle = bundle_of(tmp_path / "b", family(name))

    answers = both(bundle, tmp_path / "genai")

    for theirs, ours in answers:
        np.testing.assert_allclose(theirs, ours, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize(
    "transform",
    [INT8, UNEVEN, Quantize(method="rtn", bits=2, group_size=64), replace(INT4, embed_bits=8)],
    ids=["int8", "uneven", "int2", "mixed"],
)
def test_every_way_to_store_a_matrix(tmp_path: Path, transform: Quantize) -> None:
    """Zero points, large groups, two widths; rows that groups do not fill."""
    bundle = bundle_of(tmp_path / "b", replace(DECODER, width=80), {"int4": transform})

    for theirs, ours in both(bundle, tmp_path / "genai"):
        np.testing.assert_allclose(theirs, ours, rtol=CLOSE, atol=CLOSE)


def test_layers_may_differ_in_what_the_configuration_does_not_say(tmp_path: Path) -> None:
    """Query heads and the MLP's width are the graph's own."""
    layers = (LAYER, replace(LAYER, n_heads=2, mlp_width=48))
    bundle = bundle_of(tmp_path / "b", replace(DECODER, layers=layers))

    for theirs, ours in both(bundle, tmp_path / "genai"):
        np.testing.assert_allclose(theirs, ours, rtol=CLOSE, atol=CLOSE)


def test_the_longer_tables_are_used(tmp_path: Path) -> None:
    """The comparison above would see tables that do not change: with them the answers differ."""
    decoder = family(CROSSING)
    rope = replace(decoder.rope, long_factors=decoder.rope.short_factors)
    changing = bundle_of(tmp_path / "a", decoder)
    same = bundle_of(tmp_path / "b", replace(decoder, rope=rope))

    first, *_, last = zip(
        both(changing, tmp_path / "one"), both(same, tmp_path / "two"), strict=True
    )

    np.testing.assert_array_equal(first[0][0], first[1][0])
    assert np.abs(last[0][0] - last[1][0]).max() > 100 * CLOSE


def test_the_folder_holds_one_variant(tmp_path: Path) -> None:
    """No tensor of another one, and only tensors that the graph reads."""
    bundle = bundle_of(tmp_path / "b", DECODER, {"int8": INT8, "int4": INT4})

    made = export(bundle, tmp_path / "genai")

    files = {path.name for path in (tmp_path / "genai").iterdir()}
    assert files == {
        "genai_config.json",
        "model.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
        "weights.safetensors",
    }
    check_external_data(
        tmp_path / "genai" / "model.onnx", tmp_path / "genai", allowed=["weights.safetensors"]
    )
    tensors = open_safetensors(tmp_path / "genai" / "weights.safetensors").tensors
    assert tensors["embed.codes"].shape == (320, 2, 16)
    assert tensors["cosines.16"].shape == (128, 8)
    assert made.tensors == {"MatMulNBits 4": 9, "float32": 5}
    assert made.size_bytes == sum(p.stat().st_size for p in (tmp_path / "genai").iterdir())
    assert (made.largest_error, made.has_tokenizer, made.notes) == (0.0, True, ())


def test_the_same_bundle_gives_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of the moment or the machine is in the folder."""
    bundle = bundle_of(tmp_path / "b", family("gemma3"))
    export(bundle, tmp_path / "one")
    export(bundle, tmp_path / "two")

    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_texts_and_their_ends_come_along(tmp_path: Path) -> None:
    """The tokenizer's files as they are, and the tokens that end an answer."""
    bundle = read_bundle(PLACE)

    export(bundle, tmp_path / "genai")

    config = json.loads((tmp_path / "genai" / "genai_config.json").read_text())["model"]
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, [1])
    assert (config["context_length"], config["vocab_size"]) == (256, 320)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "genai" / name).read_bytes() == bundle.path(name).read_bytes()


def without_bytes(bundle: Bundle) -> Bundle:
    """The same bundle with a tokenizer of another kind; its manifest does not know."""
    table = json.loads(tokenizer_json())
    table["model"]["byte_fallback"] = True
    bundle.path("tokenizer.json").write_text(json.dumps(table))
    return bundle


def test_a_tokenizer_that_genai_reads_in_its_own_way_is_told(tmp_path: Path) -> None:
    """Token ids are safe."""
    made = export(without_bytes(bundle_of(tmp_path / "b", DECODER)), tmp_path / "genai")

    assert not made.has_tokenizer
    assert "give it token ids" in made.notes[0]


@pytest.mark.parametrize(
    ("changes", "transform", "reason"),
    [
        ({}, Quantize(method="rtn", bits=3), "stored with 3 bits"),
        ({"layers": (LAYER, replace(LAYER, n_kv_heads=1))}, INT4, "the same key heads"),
    ],
)
def test_what_genai_cannot_run_is_refused(
    tmp_path: Path, shelf: Path, changes: Mapping[str, Any], transform: Quantize, reason: str
) -> None:
    """Before a byte is written."""
    bundle = bundle_of(tmp_path / "b", replace(DECODER, **changes), {"v": transform})

    with pytest.raises(InputError, match=reason):
        export(bundle, shelf / "genai", "v")
    assert list(shelf.iterdir()) == []


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder, half or hidden, and one sentence."""
    bundle = bundle_of(tmp_path / "b", DECODER)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SafetensorsWriter, "write", full)

    with pytest.raises(ResourceError, match="No space left on device"):
        export(bundle, shelf / "genai")
    assert list(shelf.iterdir()) == []


def test_an_existing_folder_stays(tmp_path: Path) -> None:
    """Nothing is written into it."""
    bundle = bundle_of(tmp_path / "b", DECODER)
    (tmp_path / "genai").mkdir()

    with pytest.raises(InputError, match="exists already"):
        export(bundle, tmp_path / "genai")
    assert list((tmp_path / "genai").iterdir()) == []


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt2", CROSSING])
def test_onnxruntime_genai_itself_answers_the_same(tmp_path: Path, name: str) -> None:
    """With its own memory, which it reserves once."""
    og = pytest.importorskip("onnxruntime_genai", reason="opens the folder: needs onhand[bench]")
    bundle = bundle_of(tmp_path / "b", family(name))
    export(bundle, tmp_path / "genai")
    model = og.Model(str(tmp_path / "genai"))
    options = og.GeneratorParams(model)
    options.set_search_options(max_length=64, min_length=64)
    generator = og.Generator(model, options)
    loaded = OnnxEngine().open(bundle, variant="int4", threads=1)
    session = loaded.session()
    row = np.random.default_rng(3).integers(0, loaded.vocab_size, 24)

    for piece in (row[:20], *(row[i : i + 1] for i in range(20, 24))):
        generator.append_tokens(piece[None].astype(np.int32))
        expected = loaded.step([(session, piece)])[0]
        np.testing.assert_allclose(generator.get_logits()[0, -1], expected, rtol=CLOSE, atol=CLOSE)
    tokenizer = og.Tokenizer(model)
    assert tokenizer.encode("turn on the light").size
