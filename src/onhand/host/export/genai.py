"""A bundle as a folder for onnxruntime-genai: the same codes, one graph, its configuration."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onhand.core.bundle import Bundle, stage_bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import InputError
from onhand.core.manifest import Variant
from onhand.core.progress import Progress
from onhand.core.quantized import QuantTensor
from onhand.core.safetensors import SafetensorsWriter, TensorSpec
from onhand.core.weights import BundleWeights, matrix_tensors, open_weights
from onhand.device.text_files import TextFiles, read_text_files
from onhand.host.export.genai_graph import genai_graph, rotary_constants
from onhand.host.export.result import ExportResult
from onhand.host.export.tokenizer_kind import is_byte_level, text_table

__all__ = ["export_genai"]

_GRAPH, _WEIGHTS, _CONFIG = "model.onnx", "weights.safetensors", "genai_config.json"
_TEXTS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_BITS = (2, 4, 8)
_OTHER_TOKENIZER = (
    "onnxruntime-genai reads tokenizer.json itself, and cuts texts in another way where it is no "
    "byte-level BPE: give it token ids"
)


def export_genai(bundle: Bundle, variant: str, out: Path, *, progress: Progress) -> ExportResult:
    """Write one variant as a folder that onnxruntime-genai opens.

    Args:
        bundle: a verified bundle.
        variant: a key of its manifest's variants.
        out: the folder; must not exist.
        progress: told of every tensor.

    Returns:
        What was written.

    Raises:
        InputError: if onnxruntime-genai cannot run the model, or `out` exists.
        BundleCorrupt: if the bundle's files are not what they should be.
        ResourceError: if the disk is full.
    """
    decoder, chosen = bundle.manifest.decoder, bundle.manifest.variants[variant]
    _check(decoder, chosen)
    weights = open_weights(bundle, variant)
    texts = read_text_files(bundle)
    with stage_bundle(out) as staged:
        places = _write_weights(weights, chosen, staged / _WEIGHTS, progress)
        graph = genai_graph(
            decoder,
            chosen.matrices,
            lambda name: (_WEIGHTS, places[name]),
            accuracy_level=chosen.accuracy_level,
        )
        (staged / _GRAPH).write_bytes(graph)
        text = json.dumps(_config(decoder, texts), sort_keys=True, indent=1)
        (staged / _CONFIG).write_text(text + "\n", encoding="utf-8")
        for name in _TEXTS:
            if name in bundle.manifest.files:
                (staged / name).write_bytes(bundle.path(name).read_bytes())
        if not (staged / _TEXTS[1]).exists():  # its tokenizer does not open without one
            (staged / _TEXTS[1]).write_text("{}\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in staged.iterdir())
    is_known = is_byte_level(text_table(bundle, _TEXTS[0]))
    notes: tuple[str, ...] = () if is_known else (_OTHER_TOKENIZER,)
    for note in notes:
        progress.note(note)
    return ExportResult(
        path=out,
        format="genai",
        variant=variant,
        size_bytes=size,
        tensors=_kinds(decoder, chosen),
        largest_error=0.0,
        largest_error_steps=0.0,
        has_tokenizer=not notes,
        notes=notes,
    )


def _check(decoder: Decoder, chosen: Variant) -> None:
    """Refuse what onnxruntime-genai has no setting or no kernel for.

    Raises:
        InputError: with the reason.
    """
    if len({(layer.n_kv_heads, layer.head_dim) for layer in decoder.layers}) > 1:
        raise InputError(
            "onnxruntime-genai keeps the same key heads in every layer, those of this model differ"
        )
    for name, form in chosen.matrices.items():
        if form is not None and form.bits not in _BITS:
            raise InputError(
                f"{name} is stored with {form.bits} bits, ONNX Runtime has kernels for 2, 4 and 8; "
                "build the bundle with one of those"
            )


def _kinds(decoder: Decoder, chosen: Variant) -> dict[str, int]:
    """Count the tensors by their type in ONNX Runtime's words."""
    named = (
        "float32" if form is None else f"MatMulNBits {form.bits}"
        for form in chosen.matrices.values()
    )
    kinds = Counter(named)
    kinds["float32"] += len(decoder.vectors())
    return dict(kinds)


def _write_weights(
    weights: BundleWeights, chosen: Variant, path: Path, progress: Progress
) -> Mapping[str, TensorSpec]:
    """Copy one variant's tensors and compute the rotary tables; return their places."""
    decoder = weights.decoder
    declared: dict[str, TensorSpec] = {}
    for name, shape in decoder.tensors().items():
        if name in chosen.matrices:
            declared |= matrix_tensors(name, (shape[0], shape[1]), chosen.matrices[name])
        else:
            declared[name] = TensorSpec(dtype="F32", shape=shape)
    for name, sizes in rotary_constants(decoder).items():
        declared[name] = TensorSpec(dtype="F32", shape=sizes)
    with SafetensorsWriter(path, declared) as writer:
        progress.start("exporting", sum(spec.size for spec in writer.tensors.values()))

        def write(name: str, array: np.ndarray) -> None:
            writer.write(name, array)
            progress.advance(array.nbytes)

        for name in decoder.tensors():
            stored = weights.stored(name) if name in chosen.matrices else weights.vector(name)
            if not isinstance(stored, QuantTensor):
                write(name, stored)
                continue
            write(f"{name}.codes", stored.codes)
            write(f"{name}.scales", stored.scales)
            if stored.zeros is not None:
                write(f"{name}.zeros", stored.zeros)
        for name, table in _rotary_tables(decoder).items():
            write(name, table)
        writer.close()
    return writer.tensors


def _rotary_tables(decoder: Decoder) -> dict[str, np.ndarray]:
    """Return the contents of `rotary_constants`, in its order."""
    found: dict[str, np.ndarray] = {}
    for name in rotary_constants(decoder):
        kind, _, table = name.removesuffix(".long").partition(".")
        rope, head_dim = decoder.rotary_tables()[table]
        both = rope.tables(head_dim, decoder.context, long=name.endswith(".long"))
        found[name] = both[("cosines", "sines").index(kind)]
    return found


def _config(decoder: Decoder, texts: TextFiles) -> dict[str, object]:
    layer = decoder.layers[0]
    inputs = {
        "attention_mask": "attention_mask",
        "input_ids": "input_ids",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    if decoder.positions == "learned":
        inputs["position_ids"] = "position_ids"
    model: dict[str, object] = {
        "context_length": decoder.context,
        "decoder": {
            "filename": _GRAPH,
            "head_size": layer.head_dim,
            "hidden_size": decoder.width,
            "inputs": inputs,
            "num_attention_heads": layer.n_heads,
            "num_hidden_layers": len(decoder.layers),
            "num_key_value_heads": layer.n_kv_heads,
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        },
        # The kind that takes its inputs as they are named above, whatever the family.
        "type": "decoder",
        "vocab_size": decoder.vocab_size,
    }
    if texts.tokenizer.bos_id is not None:
        model["bos_token_id"] = texts.tokenizer.bos_id
    if ends := sorted(texts.stop_ids):
        model |= {"eos_token_id": ends, "pad_token_id": ends[0]}
    # Greedy, as onhand is unless asked; memory is reserved once and grows in place.
    search = {
        "do_sample": False,
        "max_length": decoder.context,
        "min_length": 0,
        "past_present_share_buffer": True,
    }
    return {"model": model, "search": search}
