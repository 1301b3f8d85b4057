"""Every engine adds what an adapter adds, and leaves the bundle as it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from tests.adapters import llama_modules, lora_factors, write_adapter
from tests.contract.conftest import Pack
from tests.contract.oracle import Wide, oracle_logits, whole
from tests.contract.test_engine_answers import level, limit, relative
from tests.models import DECODER, VOCAB, varied_decoder

from onhand.core.adapter import Adapter, read_adapter
from onhand.core.bundle import Bundle, read_bundle
from onhand.core.decoder import Decoder
from onhand.core.errors import BundleCorrupt, InputError
from onhand.core.weights import BundleWeights, open_weights
from onhand.device.engines.adapted_graph import adapted_graph
from onhand.device.engines.base import Engine
from onhand.device.opening import open as open_session
from onhand.device.probe import current_profile
from onhand.host.passes.quantize import Quantize

FORMS = {
    "float32": None,
    "int4": Quantize(method="rtn"),
    "int8 zero points": Quantize(bits=8, method="rtn", symmetric=False),
}
DECODERS = {
    "tied": DECODER,
    "layers that differ, biases": varied_decoder(),
    "factors": replace(varied_decoder(), ranks={"layers.0.down": 20, "layers.1.qkv": 31}),
    "a head of two factors": replace(varied_decoder(), ranks={"head": 40}),
}
ROW = np.random.default_rng(3).integers(0, VOCAB, 24)


@dataclass(frozen=True, slots=True)
class Merged:
    """A bundle's weights with an adapter merged, in float64."""

    inner: BundleWeights
    adapter: Adapter

    @property
    def decoder(self) -> Decoder:
        """The description, its matrices whole; an adapter of a tied head unties it."""
        tied = self.inner.decoder.tied and "head" not in self.adapter.pairs
        return replace(self.inner.decoder, ranks={}, tied=tied)

    def matrix(self, name: str) -> Wide:
        """W + B A."""
        weight = whole(self.inner, self.inner.decoder.head if name == "head" else name)
        if name in self.adapter.pairs:
            first, second = self.adapter.pairs[name]
            weight = weight + second.astype(np.float64) @ first
        return weight

    def vector(self, name: str) -> np.ndarray:
        """A norm or bias."""
        return self.inner.vector(name)


def make_adapter(
    folder: Path, decoder: Decoder, ends: Sequence[str] = ("",), *, seed: int = 5
) -> Adapter:
    """An adapter of the modules whose names end so."""
    shapes = {
        name: shape for name, shape in llama_modules(decoder).items() if name.endswith(tuple(ends))
    }
    place = write_adapter(folder, lora_factors(shapes, seed=seed), {"lora_alpha": 4})
    return read_adapter(place, decoder)


def expected(bundle: Bundle, adapter: Adapter, row: np.ndarray = ROW) -> Wide:
    """Logits of the merged weights, by the textbook."""
    weights = open_weights(bundle, bundle.manifest.default_variant)
    return oracle_logits(cast(Any, Merged(weights, adapter)), row)


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_matrix_is_adapted(
    engine: Engine, pack: Pack, tmp_path: Path, decoder: Decoder, form: Quantize | None
) -> None:
    """A prompt at once and in pieces; W itself is stored as it was."""
    bundle = pack(decoder, form, accuracy_level=level(engine))
    adapter = make_adapter(tmp_path / "a", decoder)
    if reason := engine.why_not(bundle, current_profile(), variant=bundle.manifest.default_variant):
        pytest.skip(reason)
    variant = bundle.manifest.default_variant
    merged = expected(bundle, adapter)

    loaded = engine.open(bundle, variant=variant, threads=1, adapter=adapter)

    session = loaded.session()
    pieces = [loaded.step([(session, part)])[0] for part in np.split(ROW, [10, 23])]
    plain = engine.open(bundle, variant=variant, threads=1)
    assert relative(loaded.score(loaded.session(), ROW), merged) < limit(engine)
    assert relative(np.stack(pieces), merged[[9, 22, 23]]) < limit(engine)
    assert relative(plain.score(plain.session(), ROW), merged) > max(0.01, 3 * limit(engine))


@pytest.mark.parametrize("ends", [("k_proj",), ("0.mlp.up_proj", "1.self_attn.v_proj")], ids=repr)
def test_some_matrices_are_adapted(
    engine: Engine, pack: Pack, tmp_path: Path, ends: tuple[str, ...]
) -> None:
    """Parts of joined matrices, in some of the layers."""
    bundle = pack(varied_decoder())
    adapter = make_adapter(tmp_path / "a", varied_decoder(), ends)

    loaded = engine.open(bundle, variant="small", threads=1, adapter=adapter)

    found = loaded.score(loaded.session(), ROW)
    assert relative(found, expected(bundle, adapter)) < limit(engine)


def test_adapters_of_one_bundle_do_not_meet(engine: Engine, pack: Pack, tmp_path: Path) -> None:
    """Two adapters and none, open at once: each has its own answers."""
    bundle = pack()
    first, second = (make_adapter(tmp_path / str(i), DECODER, seed=i) for i in (1, 2))
    opened = [
        engine.open(bundle, variant="small", threads=1, adapter=adapter)
        for adapter in (first, None, second)
    ]

    answers = [loaded.score(loaded.session(), ROW) for loaded in opened]

    plain = oracle_logits(open_weights(bundle, "small"), ROW)
    wanted = [expected(bundle, first), plain, expected(bundle, second)]
    for answer, logits in zip(answers, wanted, strict=True):
        assert relative(answer, logits) < limit(engine)


def test_a_memory_is_of_its_adapter(engine: Engine, pack: Pack, tmp_path: Path) -> None:
    """Keys and values that an adapter made are not taken without it, nor with another."""
    bundle = pack()
    first, second = (make_adapter(tmp_path / str(i), DECODER, seed=i) for i in (1, 2))
    loaded = engine.open(bundle, variant="small", threads=1, adapter=first)
    session = loaded.session()
    loaded.step([(session, ROW)])
    state = session.save_state()

    same = engine.open(bundle, variant="small", threads=1, adapter=first).session()
    same.load_state(state)

    assert same.length == ROW.size
    for other in (second, None):
        with pytest.raises(InputError, match="of another bundle, variant, engine or adapter"):
            engine.open(bundle, variant="small", threads=1, adapter=other).session().load_state(
                state
            )


@pytest.mark.parametrize("name", ["reference", "onnx"])
def test_through_the_front_door(pack: Pack, tmp_path: Path, name: str) -> None:
    """By its folder or its file; the bundle's files stay as they were."""
    bundle = pack()
    make_adapter(tmp_path / "a", DECODER)
    places = [tmp_path / "a", tmp_path / "a" / "adapter_model.safetensors"]

    answers = []
    for place in [None, *places]:
        with open_session(bundle.root, engine=name, threads=1, adapter=place) as session:
            answers.append(session.complete("turn on the light", max_tokens=12))

    assert answers[1] == answers[2] != answers[0]
    assert read_bundle(bundle.root).manifest_sha256 == bundle.manifest_sha256


def test_an_adapter_of_another_model_is_refused(pack: Pack, tmp_path: Path) -> None:
    """Before any engine is asked."""
    make_adapter(tmp_path / "a", replace(DECODER, width=80))

    with pytest.raises(InputError, match="need"):
        open_session(pack().root, adapter=tmp_path / "a")


def test_a_graph_without_the_products_says_so(pack: Pack, tmp_path: Path) -> None:
    """An engine would otherwise answer without the adapter."""
    bundle = pack()
    adapter = make_adapter(tmp_path / "a", DECODER)
    graph = bundle.path(bundle.manifest.variants["small"].graph)
    deeper = replace(DECODER, ranks={"layers.0.down": 4})

    with pytest.raises(BundleCorrupt, match=r"has no product 'layers\.0\.down\.result'"):
        adapted_graph(graph.read_bytes(), deeper, adapter, where=str(graph))
