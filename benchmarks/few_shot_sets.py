"""What `benchmarks.few_shot` learns from: intents with an encoder, digits with a small network."""

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.encoder_texts import read_intents
from benchmarks.tiny_data import ASSETS, HEARS
from onhand.core.arrays import FloatArray
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.feed import TextFeed
from onhand.core.network import ArrayInfo
from onhand.device.learning.base import Feeds, Teachable
from onhand.device.learning.graph import open_lesson
from onhand.device.networks.sounds import feed_sound, read_sound
from onhand.device.networks.texts import open_texts
from onhand.device.threads import usable_threads
from onhand.host.learning.network_files import add_network_lesson
from onhand.host.learning.wanted import parse_learnable
from onhand.host.networks.build import build_network
from onhand.host.networks.options import NetworkOptions
from onhand.host.networks.samples import Samples

__all__ = ["FewShotSet", "LatentSource", "digits", "intents"]

_AT_ONCE = 32
_SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
_SEEN_DIGITS = 5
DSCNN = "mlperf-tiny/keyword_spotting/trained_models/kws_ref_model_float32.tflite"


class LatentSource:
    """What the trunk gave of examples, and their classes. See `LabelledSource`."""

    def __init__(self, latents: Sequence[FloatArray], labels: np.ndarray) -> None:
        """Hold them; those of texts have a row for each of their tokens, and differ in length."""
        self._latents, self.labels = latents, labels

    def __len__(self) -> int:
        """Examples."""
        return len(self.labels)

    def weight(self, number: int) -> float:
        """Each counts the same."""
        return 1.0

    def feeds(self, numbers: Sequence[int], *, scale: float) -> Feeds:
        """Return one batch, padded with zeros, which are no tokens to the mask either."""
        rows = [self._latents[number] for number in numbers]
        longest = max(row.shape[0] for row in rows)
        padded = [
            np.pad(row, [(0, longest - len(row)), *[(0, 0)] * (row.ndim - 1)]) for row in rows
        ]
        return {
            "latent": np.stack(padded),
            "labels": self.labels[list(numbers)],
            "weights": np.full(len(numbers), scale, np.float32),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShotSet:
    """Examples for meta-learning, and others of classes that it never sees.

    Attributes:
        name: of the set.
        teachable: a lesson of the last block.
        seen: examples to meta-learn from.
        held: examples of the classes held out.
        vectors: (N, D) of `held`, as the network without any learning gives them, of length 1.
        label_vectors: class of `held` -> (D,) of its name, of length 1; empty where it has none.
        head_rate: that suits the size of the vectors.
        steps: gradient steps of a task: more where vectors point much alike.
        outer_rate: of AdamW on the starting values: low for a trunk that was trained on much,
            which a higher one makes worse.
    """

    name: str
    teachable: Teachable
    seen: LatentSource
    held: LatentSource
    vectors: FloatArray
    label_vectors: dict[int, FloatArray]
    head_rate: float
    steps: int
    outer_rate: float


def intents(model: Path, place: Path, *, each: int) -> FewShotSet:
    """Read CLINC150: two thirds of the classes to meta-learn from, a third held out.

    Args:
        model: folder of a sentence encoder.
        place: an empty folder, for the bundles.
        each: texts of each class.
    """
    read = read_intents("CLINC150", "train")
    names = sorted(set(read.names))
    mixed = np.random.default_rng(0).permutation(len(names))
    chosen = {name: [i for i, n in enumerate(read.names) if n == name][:each] for name in names}
    options = NetworkOptions(task="text-embedding", variants={"fp32": ()}, measure_original=False)
    block, head = _bundles(str(model), place, options)
    teachable = _opened(block)
    parts: list[LatentSource] = []
    for classes in (mixed[: 2 * len(names) // 3], mixed[2 * len(names) // 3 :]):
        places = [i for c in classes for i in chosen[names[c]]]
        labels = np.array([c for c in classes for _ in chosen[names[c]]])
        latents = _text_latents(block, teachable, [read.texts[i] for i in places])
        parts.append(LatentSource(latents, labels))
    held = mixed[2 * len(names) // 3 :]
    with closing(_opened(head)) as plain:
        texts = [read.texts[i] for c in held for i in chosen[names[c]]]
        vectors = np.stack(_text_latents(head, plain, texts))
        spoken = [names[c].replace("_", " ") for c in held]
        named = _units(np.stack(_text_latents(head, plain, spoken)))
    return FewShotSet(
        name="intents",
        teachable=teachable,
        seen=parts[0],
        held=parts[1],
        vectors=_units(vectors),
        label_vectors={int(c): named[i] for i, c in enumerate(held)},
        head_rate=10.0,
        steps=3,
        outer_rate=1e-4,
    )


def digits(place: Path, *, each: int) -> FewShotSet:
    """Read spoken digits, with a network for other words; 0 to 4 by whom are 30 classes to learn.

    Args:
        place: an empty folder, for the bundles.
        each: recordings of each digit by each speaker.
    """
    info = ArrayInfo(name="x", dtype="float32", shape=(None, 49, 10, 1))
    options = NetworkOptions(
        task="audio-classification", variants={"fp32": ()}, measure_original=False
    )
    block, head = _bundles(str(ASSETS / DSCNN), place, options)
    teachable = _opened(block)
    parts: list[LatentSource] = []
    arrays: list[FloatArray] = []
    for low in (0, _SEEN_DIGITS):
        heard, labels = [], []
        for digit in range(low, low + _SEEN_DIGITS):
            for who, speaker in enumerate(_SPEAKERS):
                for take in range(each):
                    file = ASSETS / "fsdd" / "recordings" / f"{digit}_{speaker}_{take}.wav"
                    heard.append(feed_sound(*read_sound(file), HEARS, info))
                    labels.append(digit * len(_SPEAKERS) + who if low == 0 else digit)
        arrays = heard
        parts.append(LatentSource(_array_latents(block, teachable, heard), np.array(labels)))
    with closing(_opened(head)) as plain:
        found = np.stack(_array_latents(head, plain, arrays))
        flat = found.reshape(len(found), -1)
    # Beyond four times this a step of plain gradient overshoots: such vectors point much alike.
    head_rate = float(1 / np.square(flat).sum(axis=1).mean())
    return FewShotSet(
        name="digits",
        teachable=teachable,
        seen=parts[0],
        held=parts[1],
        vectors=_units(flat),
        label_vectors={},
        head_rate=2 * head_rate,
        steps=20,
        outer_rate=1e-3,
    )


def _bundles(source: str, place: Path, options: NetworkOptions) -> tuple[Bundle, Bundle]:
    """Build a network to learn its last block, and a head alone, whose trunk gives vectors."""
    plain = place / "plain"
    build_network(source, plain, options, home=place / "home")
    found: list[Bundle] = []
    for kind in ("last-block", "head"):
        shutil.copytree(plain, place / kind)
        added = add_network_lesson(
            read_bundle(place / kind),
            parse_learnable(kind),
            samples=Samples(feeds=[]),
            threads=usable_threads(),
        )
        found.append(added.bundle)
    return found[0], found[1]


def _opened(bundle: Bundle) -> Teachable:
    return open_lesson(bundle, threads=usable_threads(), memory="fast")


def _text_latents(bundle: Bundle, teachable: Teachable, texts: Sequence[str]) -> list[FloatArray]:
    """Run the trunk over texts, those of like length together; without the padding."""
    reader = open_texts(bundle)
    feed = bundle.manifest.network.feed
    if not isinstance(feed, TextFeed):
        raise TypeError(f"{bundle.root} reads no texts")
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: dict[int, FloatArray] = {}
    for low in range(0, len(order), _AT_ONCE):
        chosen = order[low : low + _AT_ONCE]
        feeds = reader.batch([texts[i] for i in chosen]).feeds
        latents = teachable.latent(feeds)
        lengths = feeds[feed.mask].sum(axis=1)
        for i, row, length in zip(chosen, latents, lengths, strict=True):
            found[i] = (row[: int(length)] if row.ndim > 1 else row).copy()
    return [found[i] for i in range(len(texts))]


def _array_latents(
    bundle: Bundle, teachable: Teachable, arrays: Sequence[FloatArray]
) -> list[FloatArray]:
    name = bundle.manifest.network.inputs[0].name
    found: list[FloatArray] = []
    for low in range(0, len(arrays), _AT_ONCE):
        batch = np.concatenate(arrays[low : low + _AT_ONCE]).astype(np.float32)
        found += list(teachable.latent({name: batch}))
    return found


def _units(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: FloatArray = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return result
