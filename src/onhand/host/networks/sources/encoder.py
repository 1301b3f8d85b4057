"""Hugging Face encoders of text, and sentence-transformers: a folder -> a graph, without torch."""

import hashlib
import re
from pathlib import Path
from typing import ClassVar

from onhand.core.arrays import FloatArray
from onhand.core.bundle import sha256_of
from onhand.core.errors import SourceError
from onhand.core.safetensors import SafetensorsFile
from onhand.host.networks.model import NetworkModel
from onhand.host.networks.sources.encoder_config import FAMILIES, read_config
from onhand.host.networks.sources.encoder_graph import Encoder, build_encoder
from onhand.host.networks.sources.identity import name_of
from onhand.host.networks.sources.sentence import (
    open_weights,
    read_object,
    read_sentence,
    read_tensor,
)
from onhand.host.networks.sources.text_folder import feed_for_texts

__all__ = ["EncoderSource"]

_TASKS = ("text-embedding", "text-classification", "features")
_TOKENIZER = "tokenizer.json"
_BITS = {"F16": 16, "BF16": 16, "F32": 32}
# Tensors of heads that other tasks use, and a table of numbers from 0 on.
_OTHERS = re.compile(
    r"cls\.|lm_head\.|vocab_(transform|layer_norm|projector)\.|qa_outputs\.|pooler\.|"
    r"(pre_)?classifier\.|embeddings\.position_ids$"
)


class EncoderSource:
    """See `NetworkSource`."""

    name: ClassVar[str] = "encoder"

    def why_not(self, location: str) -> str | None:
        """Return None for a folder whose config.json names a known encoder, else a reason."""
        path = Path(location) / "config.json"
        if not path.is_file():
            return f"{location} is no folder with a config.json"
        try:
            named = read_object(path).get("model_type")
        except SourceError as error:
            return str(error)
        if isinstance(named, str) and named in FAMILIES:
            return None
        return f"{path}: model_type is {named!r}, known encoders are {', '.join(FAMILIES)}"

    def load(self, location: str, *, task: str) -> NetworkModel:
        """Read a folder with config.json, model.safetensors and tokenizer.json.

        Raises:
            SourceError: if the family or an option is unknown, a file is missing or damaged, or
                the model has no head for the task.
            InputError: if a key of the configuration is missing, of the wrong type or out of
                bounds.
        """
        folder = Path(location)
        where = folder / "config.json"
        described = read_config(read_object(where), str(where))
        encoder = described.encoder
        if task not in _TASKS:
            raise SourceError(
                f"{folder}: an encoder of texts does not do {task!r}: {', '.join(_TASKS)}"
            )
        if task == "text-classification" and not encoder.head:
            raise SourceError(
                f"{where}: architectures names no ...ForSequenceClassification: the model has no "
                "head for classes; use text-embedding or features"
            )
        is_embedding = task == "text-embedding"
        beside = read_sentence(folder, encoder.width) if is_embedding else None
        weights = _Weights(open_weights(folder), encoder)
        graph = build_encoder(
            encoder, weights.read, task=task, sentence=beside.sentence if beside else None
        )
        texts = feed_for_texts(
            folder,
            inputs=[value.name for value in graph.inputs],
            most_tokens=encoder.most_tokens,
            pad_id=encoder.pad_id,
            vocab_size=encoder.vocab_size,
        )
        read = [where, folder / "model.safetensors", folder / _TOKENIZER]
        read += beside.paths if beside else ()
        digest = hashlib.sha256()
        for path in read:
            digest.update(bytes.fromhex(sha256_of(path)))
        return NetworkModel(
            name=name_of(folder),
            family=encoder.family,
            graph=graph,
            sha256=digest.hexdigest(),
            source_bytes=(folder / "model.safetensors").stat().st_size,
            weight_bits=weights.bits,
            feed=texts.feed,
            labels=described.labels if task == "text-classification" else (),
            files={_TOKENIZER: texts.tokenizer},
            notes=(
                *described.notes,
                *(beside.notes if beside else ()),
                *weights.notes(),
                *texts.notes,
            ),
        )


class _Weights:
    """The tensors of a checkpoint, by the names that they have without a head; used in one load."""

    def __init__(self, file: SafetensorsFile, encoder: Encoder) -> None:
        self._file, self._encoder = file, encoder
        prefix = encoder.naming.prefix
        # Checkpoints of old call a norm's parts gamma and beta.
        self._names = {
            re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name.removeprefix(prefix))): name
            for name in file.tensors
        }
        self._used: set[str] = set()
        self.bits = 32

    def read(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Return a tensor as float32.

        Raises:
            SourceError: if it is missing, of another shape or dtype, or not finite.
        """
        stored = self._names.get(name, name)
        self._used.add(stored)
        array = read_tensor(self._file, stored, shape)
        self.bits = min(self.bits, _BITS[self._file.tensors[stored].dtype])
        return array

    def notes(self) -> tuple[str, ...]:
        """Return notes on what was not read.

        Raises:
            SourceError: if a tensor has no place in the family.
        """
        left = {name: stored for name, stored in self._names.items() if stored not in self._used}
        for name, stored in sorted(left.items()):
            if not _OTHERS.match(name):
                raise SourceError(
                    f"{self._file.path}: tensor {stored!r} has no place in an encoder of the "
                    f"family {self._encoder.family}"
                )
        heads = sorted({name.split(".")[0] for name in left if "position_ids" not in name})
        return (f"heads of other tasks are left out: {', '.join(heads)}",) if heads else ()
