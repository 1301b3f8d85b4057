"""What llama.cpp would read is what the bundle holds: bit by bit, key by key."""

import errno
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.host.export_models import CONFIGS, INT4, INT8, LLAMA3, UNEVEN, bundle_of, family
from tests.host.test_pack import Third
from tests.models import DECODER

import onhand
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle
from onhand.core.errors import BundleCorrupt, InputError, ResourceError
from onhand.core.progress import Quiet
from onhand.core.weights import open_weights
from onhand.host.export.bundle_export import export_bundle
from onhand.host.export.gguf import export_gguf
from onhand.host.export.gguf_layout import gguf_layout
from onhand.host.passes.quantize import Quantize

gguf = pytest.importorskip("gguf", reason="reads the exported file: needs onhand[host]")


def dequantized(data: np.ndarray, kind: str) -> FloatArray:
    """What the gguf package reads from blocks."""
    values: FloatArray = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    return values


def read(path: Path) -> tuple[dict[str, Any], dict[str, FloatArray], dict[str, str]]:
    """Keys, values of the tensors, and their types."""
    reader = gguf.GGUFReader(path)
    keys = {name: entry.contents() for name, entry in reader.fields.items()}
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    values = {t.name: dequantized(t.data, t.tensor_type.name) for t in reader.tensors}
    return keys, values, types


def export(bundle: Bundle, out: Path, variant: str = "int4") -> Any:
    """The file of one variant."""
    return export_gguf(bundle, variant, out, progress=Quiet())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("transform", [INT4, INT8, UNEVEN], ids=["int4", "int8", "uneven"])
def test_every_tensor_is_in_the_file(tmp_path: Path, name: str, transform: Quantize) -> None:
    """Put together again and back in their order, the rows are the bundle's."""
    decoder = family(name)
    bundle = bundle_of(tmp_path / "b", decoder, {"int4": transform})

    made = export(bundle, tmp_path / "m.gguf")

    _, values, _ = read(tmp_path / "m.gguf")
    weights = open_weights(bundle, "int4")
    found: dict[str, FloatArray] = {}
    for tensor in gguf_layout(decoder).tensors:
        rows = found.setdefault(
            tensor.source, np.full(decoder.tensors()[tensor.source], np.nan, dtype=np.float32)
        )
        rows[tensor.rows()] = values.pop(tensor.name)
    assert set(found) == set(decoder.tensors())
    for source, array in found.items():
        is_matrix = source in decoder.matrices()
        expected = weights.matrix(source) if is_matrix else weights.vector(source)
        bound = made.largest_error * 1.001
        np.testing.assert_allclose(array, expected, rtol=0, atol=bound, err_msg=source)
    assert (made.largest_error > 0) == (transform is UNEVEN)
    assert set(values) <= {f"rope_{n}.weight" for n in ("freqs", "factors_long", "factors_short")}


def test_sizes_are_in_the_keys(tmp_path: Path) -> None:
    """Under the names that the gguf package has for them."""
    bundle = bundle_of(tmp_path / "b", DECODER)
    export(bundle, tmp_path / "m.gguf")

    keys, _, types = read(tmp_path / "m.gguf")

    expected = {
        gguf.Keys.LLM.CONTEXT_LENGTH: 128,
        gguf.Keys.LLM.EMBEDDING_LENGTH: 64,
        gguf.Keys.LLM.BLOCK_COUNT: 2,
        gguf.Keys.LLM.FEED_FORWARD_LENGTH: 96,
        gguf.Keys.LLM.VOCAB_SIZE: 320,
        gguf.Keys.Attention.HEAD_COUNT: 4,
        gguf.Keys.Attention.HEAD_COUNT_KV: 2,
        gguf.Keys.Attention.KEY_LENGTH: 16,
        gguf.Keys.Attention.VALUE_LENGTH: 16,
        gguf.Keys.Attention.LAYERNORM_RMS_EPS: pytest.approx(1e-5),
        gguf.Keys.Rope.DIMENSION_COUNT: 16,
        gguf.Keys.Rope.FREQ_BASE: 10000.0,
    }
    assert {key: keys[key.format(arch="llama")] for key in expected} == expected
    assert keys[gguf.Keys.General.ARCHITECTURE] == "llama"
    assert keys[gguf.Keys.General.NAME] == "tiny"
    assert keys[gguf.Keys.General.FILE_TYPE] == gguf.LlamaFileType.MOSTLY_Q4_0
    assert keys[gguf.Keys.General.QUANTIZATION_VERSION] == gguf.GGML_QUANT_VERSION
    assert {types["token_embd.weight"], types["blk.1.ffn_down.weight"]} == {"Q4_0"}
    assert types["output_norm.weight"] == "F32"


def test_the_factors_of_llama_3(tmp_path: Path) -> None:
    """As llama.cpp's converter computes them."""
    bundle = bundle_of(tmp_path / "b", family("llama 3"))
    export(bundle, tmp_path / "m.gguf")

    _, values, _ = read(tmp_path / "m.gguf")

    low = LLAMA3["original_max_position_embeddings"] / LLAMA3["low_freq_factor"]
    high = LLAMA3["original_max_position_embeddings"] / LLAMA3["high_freq_factor"]
    expected = []
    for wave in 2 * math.pi * 10000.0 ** (np.arange(0, 16, 2) / 16):
        if wave < high:
            expected.append(1.0)
        elif wave > low:
            expected.append(LLAMA3["factor"])
        else:
            smooth = (32 / wave - 1.0) / (4.0 - 1.0)
            expected.append(1 / ((1 - smooth) / LLAMA3["factor"] + smooth))
    assert 1.0 < expected[1] < LLAMA3["factor"]
    np.testing.assert_allclose(values["rope_freqs.weight"], expected, rtol=1e-5)


def test_without_windows_the_context_is_cut(tmp_path: Path) -> None:
    """Within the window nothing is hidden; the note says so."""
    bundle = bundle_of(tmp_path / "b", family("mistral"))

    made = export(bundle, tmp_path / "m.gguf")

    keys, _, _ = read(tmp_path / "m.gguf")
    assert keys["llama.context_length"] == 24
    assert any("cut from 128 to 24 tokens" in note for note in made.notes)


def test_the_result_counts_what_was_written(tmp_path: Path) -> None:
    """Sizes and types, ready for JSON."""
    mixed = {"int4": replace(INT4, embed_bits=8), "int8": INT8}
    bundle = bundle_of(tmp_path / "b", DECODER, mixed)

    made = export(bundle, tmp_path / "m.gguf")

    assert made.tensors == {"Q8_0": 1, "Q4_0": 14, "F32": 5}
    assert made.size_bytes == (tmp_path / "m.gguf").stat().st_size
    assert made.to_json() == json.loads(json.dumps(made.to_json()))
    assert export(bundle, tmp_path / "m8.gguf", "int8").tensors == {"Q8_0": 15, "F32": 5}


@pytest.mark.parametrize("to", ["gguf", "genai"])
def test_the_front_door_exports(tmp_path: Path, to: str) -> None:
    """The default variant, from places given as text."""
    bundle = bundle_of(tmp_path / "b", DECODER, {"int8": INT8, "int4": INT4})

    made = onhand.export_bundle(str(bundle.root), str(tmp_path / "out"), to=to)

    assert (made.path, made.format, made.variant) == (tmp_path / "out", to, "int8")
    assert made.path.exists()


def test_float_matrices_stay_float(tmp_path: Path) -> None:
    """A matrix that the bundle holds in float32 is F32."""
    bundle = bundle_of(tmp_path / "b", DECODER, {"third": Third()})

    export(bundle, tmp_path / "m.gguf", "third")

    _, values, types = read(tmp_path / "m.gguf")
    embed = "token_embd.weight"
    weights = open_weights(bundle, "third")
    assert types[embed] == "F32"
    np.testing.assert_array_equal(values[embed], weights.matrix("embed"))


def test_the_same_bundle_gives_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of the moment is in the file."""
    bundle = bundle_of(tmp_path / "b", DECODER)
    export(bundle, tmp_path / "one.gguf")
    export(bundle, tmp_path / "two.gguf")

    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


@pytest.mark.parametrize(
    ("transform", "width", "reason"),
    [
        (Quantize(method="rtn", bits=3), 64, "3 bits, symmetric, which GGUF has no"),
        (Quantize(method="rtn", bits=2), 64, "2 bits, symmetric"),
        (Quantize(method="rtn", bits=8, symmetric=False), 64, "8 bits, asymmetric"),
        (INT4, 80, "rows of 80 weights"),
    ],
)
def test_what_gguf_has_no_type_for_is_refused(
    tmp_path: Path, shelf: Path, transform: Quantize, width: int, reason: str
) -> None:
    """Before a byte is written."""
    bundle = bundle_of(tmp_path / "b", replace(DECODER, width=width), {"v": transform})

    with pytest.raises(InputError) as caught:
        export(bundle, shelf / "m.gguf", "v")

    assert reason in str(caught.value)
    assert list(shelf.iterdir()) == []


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file, half or hidden, and one sentence."""
    bundle = bundle_of(tmp_path / "b", DECODER)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)

    with pytest.raises(ResourceError, match="No space left on device"):
        export(bundle, shelf / "m.gguf")
    assert list(shelf.iterdir()) == []


def test_an_existing_file_stays(tmp_path: Path) -> None:
    """It may be the only copy of something."""
    bundle = bundle_of(tmp_path / "b", DECODER)
    (tmp_path / "m.gguf").write_text("mine")

    with pytest.raises(InputError, match="exists already"):
        export(bundle, tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_text() == "mine"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """It is named."""
    bundle = bundle_of(tmp_path / "b", DECODER)

    with pytest.raises(InputError, match="nowhere is not a folder"):
        export(bundle, tmp_path / "nowhere" / "m.gguf")


def test_a_format_that_nobody_knows(tmp_path: Path) -> None:
    """The known ones are named."""
    with pytest.raises(InputError, match="must be one of gguf, genai"):
        export_bundle(tmp_path, tmp_path / "out", to="ggml")


def test_a_variant_that_is_not_there(tmp_path: Path) -> None:
    """The bundle's own are named."""
    bundle = bundle_of(tmp_path / "b", DECODER)

    with pytest.raises(InputError, match="no variant 'int2'; it has int4"):
        export_bundle(bundle.root, tmp_path / "out", to="gguf", variant="int2")


@pytest.mark.parametrize("to", ["gguf", "genai"])
def test_attack_changed_weights(tmp_path: Path, shelf: Path, to: str) -> None:
    """A bundle is checked before anything is made of it."""
    bundle = bundle_of(tmp_path / "b", DECODER)
    weights = bundle.path("weights.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    with pytest.raises(BundleCorrupt, match="SHA-256"):
        export_bundle(bundle.root, shelf / "out", to=to)
    assert list(shelf.iterdir()) == []
