"""From a folder to a conversation: text files, engines, and what is said when it fails."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tokenizers
from tests.device.toy_model import ToySession
from tokenizers import decoders, models, pre_tokenizers

from onhand.core.adapter import Adapter
from onhand.core.arrays import FloatArray, TokenArray
from onhand.core.bundle import Bundle, write_manifest
from onhand.core.decoder import Decoder, DecoderLayer, Rope
from onhand.core.errors import BundleCorrupt, EngineUnavailable, InputError
from onhand.core.manifest import Manifest, Variant
from onhand.core.profile import DeviceProfile
from onhand.device import opening
from onhand.device.engines.base import Loaded, Session
from onhand.device.sampling import Sampling
from onhand.device.template import Message
from onhand.device.text_files import model_sampling, read_text_files

END = "</s>"
TEMPLATE = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"


def tokenizer_json() -> bytes:
    """One token for each byte, and the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[])
    )
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens([END, "<s>"])
    return model.to_str().encode()


def make_bundle(root: Path, **files: object) -> Bundle:
    """Write a bundle whose text files are `files`: name with _ for the dot -> content."""
    layer = DecoderLayer(n_heads=1, n_kv_heads=1, head_dim=4, mlp_width=4)
    decoder = Decoder(
        vocab_size=260,
        width=4,
        context=64,
        norm_epsilon=1e-5,
        layers=(layer,),
        rope=Rope(),
        tied=True,
    )
    root.mkdir()
    given = {"tokenizer_json": tokenizer_json(), "model_onnx": b"", "weights_safetensors": b""}
    for name, content in (given | files).items():
        if content is not None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (root / ".".join(name.rsplit("_", 1))).write_bytes(data)
    variant = Variant(
        graph="model.onnx",
        weights=("weights.safetensors",),
        matrices=dict.fromkeys(decoder.matrices()),
        accuracy_level=0,
    )
    manifest = Manifest(
        name="toy",
        kind="language-model",
        version=1,
        default_variant="float",
        variants={"float": variant, "other": variant},
        model=decoder,
        files={},
        provenance={},
    )
    return write_manifest(root, manifest, hashes={})


def test_text_files_are_optional_but_the_tokenizer(tmp_path: Path) -> None:
    """A bundle with a tokenizer alone has no template and no stop token."""
    files = read_text_files(make_bundle(tmp_path / "a"))

    assert (files.template, files.stop_ids) == (None, frozenset())
    with pytest.raises(BundleCorrupt, match=r"has no tokenizer\.json"):
        read_text_files(make_bundle(tmp_path / "b", tokenizer_json=None))


def test_stop_tokens_come_from_both_files(tmp_path: Path) -> None:
    """One id or a list of them, and the end token as a text or as a table."""
    both = make_bundle(
        tmp_path / "a",
        tokenizer_config_json={"eos_token": {"content": END}},
        generation_config_json={"eos_token_id": [3, 5]},
    )
    one = make_bundle(tmp_path / "b", generation_config_json={"eos_token_id": 7})

    assert read_text_files(both).stop_ids == {3, 5, 256}
    assert read_text_files(one).stop_ids == {7}


@pytest.mark.parametrize(
    "files",
    [
        {"chat_template_jinja": TEMPLATE.encode()},
        {"chat_template": TEMPLATE},
        {
            "chat_template": [
                {"name": "x", "template": "y"},
                {"name": "default", "template": TEMPLATE},
            ]
        },
        {"chat_template": "other", "chat_template_jinja": TEMPLATE.encode()},
    ],
)
def test_templates_are_found_wherever_models_keep_them(
    files: dict[str, object], tmp_path: Path
) -> None:
    """In a file of its own, which goes first, or in the configuration, alone or among several."""
    config = {"eos_token": END, "chat_template": files.pop("chat_template", None)}
    template = read_text_files(
        make_bundle(tmp_path / "a", tokenizer_config_json=config, **files)
    ).template

    assert template is not None
    assert template.render([Message("user", "hi")]) == f"hi{END}"


def test_a_plain_prompt_opens_as_the_configuration_says(tmp_path: Path) -> None:
    """`add_bos_token` and `bos_token` reach the tokenizer."""
    config = {"bos_token": "<s>", "add_bos_token": True}
    files = read_text_files(make_bundle(tmp_path / "a", tokenizer_config_json=config))

    assert files.tokenizer.encode_plain("a")[0] == 257


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config_json": b"{"}, "tokenizer_config.json is not JSON"),
        ({"tokenizer_config_json": []}, "not a JSON object"),
        ({"generation_config_json": b"[" * 99_999}, "generation_config.json is not JSON"),
        ({"generation_config_json": {"eos_token_id": "x"}}, "eos_token_id 'x' is no token id"),
        ({"generation_config_json": {"eos_token_id": [True]}}, "eos_token_id True is no token"),
        ({"tokenizer_config_json": {"eos_token": "<end>"}}, "'<end>', which is no token"),
        ({"tokenizer_config_json": {"chat_template": 3}}, "is int, expected a text"),
        ({"chat_template_jinja": b"\xff"}, "chat_template.jinja: cannot be read"),
        ({"chat_template_jinja": b"{% if %}"}, "chat_template.jinja: cannot be used"),
        ({"tokenizer_json": b"{}"}, "is not a tokenizer"),
    ],
)
def test_attack_damaged_text_files_are_refused(
    files: dict[str, object], message: str, tmp_path: Path
) -> None:
    """Each by name."""
    with pytest.raises(BundleCorrupt, match=message):
        read_text_files(make_bundle(tmp_path / "a", **files))


def test_sampling_of_the_makers_is_given_when_asked(tmp_path: Path) -> None:
    """With transformers' defaults where the file is silent; greedy where it does not sample."""
    config = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
    sampled = make_bundle(tmp_path / "a", generation_config_json=config)
    greedy = make_bundle(tmp_path / "b", generation_config_json={"temperature": 0.6})
    wrong = make_bundle(tmp_path / "c", generation_config_json=config | {"top_p": 7})
    odd = make_bundle(tmp_path / "d", generation_config_json=config | {"top_k": "x"})

    assert model_sampling(sampled) == Sampling(temperature=0.6, top_k=50, top_p=0.9)
    assert model_sampling(greedy) == Sampling()
    for bundle, message in ((wrong, "top_p is 7"), (odd, "top_k is 'x'")):
        with pytest.raises(BundleCorrupt, match=message):
            model_sampling(bundle)


class ToyLoaded:
    """Says nothing but the last id below 256."""

    vocab_size = 260
    context = 64
    closed = 0

    def session(self, *, context: int | None = None) -> Session:
        """See `Loaded`."""
        if context is not None and not 1 <= context <= self.context:
            raise InputError(f"context is {context}")
        return ToySession(context or self.context)

    def step(self, batch: Sequence[tuple[Session, TokenArray]]) -> FloatArray:
        """See `Loaded`."""
        return np.eye(1, 260, 255, dtype=np.float32).repeat(len(batch), axis=0)

    def score(self, session: Session, tokens: TokenArray) -> FloatArray:
        """See `Loaded`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Loaded`."""
        type(self).closed += 1


class GoodEngine:
    """Opens anything."""

    name: ClassVar[str] = "good"
    reason: ClassVar[str | None] = None
    failure: ClassVar[str | None] = None
    asked: ClassVar[list[tuple[str, int]]] = []

    def why_not(self, bundle: Bundle, profile: DeviceProfile, *, variant: str) -> str | None:
        """See `Engine`."""
        return self.reason

    def open(
        self, bundle: Bundle, *, variant: str, threads: int, adapter: Adapter | None = None
    ) -> Loaded:
        """See `Engine`."""
        if self.failure is not None:
            raise EngineUnavailable(self.failure)
        self.asked.append((variant, threads))
        return ToyLoaded()


class LazyEngine(GoodEngine):
    """Has a reason not to work."""

    reason: ClassVar[str | None] = "does not feel like it"


class SurprisedEngine(GoodEngine):
    """Finds out late."""

    failure: ClassVar[str | None] = "the library is too old"


@dataclass(frozen=True)
class Entry:
    """What an installed package registers."""

    name: str
    engine: type[GoodEngine] | None

    @property
    def value(self) -> str:
        """Where it is."""
        return f"toy:{self.name}"

    def load(self) -> type[GoodEngine]:
        """Import it."""
        if self.engine is None:
            raise ImportError("broken")
        return self.engine


Register = Callable[..., None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Register engines by name, instead of those that are installed."""

    def do(**engines: type[GoodEngine] | None) -> None:
        entries = [Entry(name, engine) for name, engine in engines.items()]

        def entry_points(*, group: str, name: str | None = None) -> list[Entry]:
            return [entry for entry in entries if name in {None, entry.name}]

        monkeypatch.setattr("onhand.core.plugins.entry_points", entry_points)

    GoodEngine.asked.clear()
    return do


def test_the_preferred_engine_is_taken(register: Register, tmp_path: Path) -> None:
    """In the order native, onnx, reference; the default variant, and its own threads."""
    register(reference=LazyEngine, onnx=LazyEngine, native=GoodEngine)
    root = make_bundle(tmp_path / "a", tokenizer_config_json={"eos_token": END}).root
    with opening.open(root, threads=3) as session:
        assert (session.engine_name, session.passed_over) == ("native", {})
        answer = session.generate("a", max_tokens=2)
        list(answer)

        assert (answer.finish_reason, answer.generated_tokens) == ("length", 2)
        assert session.context == 64

    assert GoodEngine.asked == [("float", 3)]


def test_a_fallback_is_said(register: Register, tmp_path: Path) -> None:
    """Every engine that was preferred and did not work has its reason."""
    register(native=None, onnx=SurprisedEngine, reference=GoodEngine, zebra=GoodEngine)
    root = make_bundle(tmp_path / "a").root
    with opening.open(str(root), variant="other", context=8) as session:
        assert session.engine_name == "reference"
        assert session.context == 8
        assert "broken" in session.passed_over["native"]
        assert session.passed_over["onnx"] == "the library is too old"

    assert GoodEngine.asked[0][0] == "other"
    assert GoodEngine.asked[0][1] >= 1


def test_a_named_engine_is_the_only_one(register: Register, tmp_path: Path) -> None:
    """No fallback for who asked for one; a name that does not exist is a slip."""
    register(onnx=GoodEngine, lazy=LazyEngine)
    root = make_bundle(tmp_path / "a").root
    with pytest.raises(EngineUnavailable, match="lazy: does not feel like it"):
        opening.open(root, engine="lazy")
    with pytest.raises(InputError, match="did you mean 'onnx'"):
        opening.open(root, engine="onx")


def test_no_engine_is_an_error_with_every_reason(register: Register, tmp_path: Path) -> None:
    """So that a person can do something about one of them."""
    root = make_bundle(tmp_path / "a").root
    register(onnx=LazyEngine, reference=SurprisedEngine)
    with pytest.raises(EngineUnavailable, match=r"onnx: does not .*; reference: the library"):
        opening.open(root)
    register()
    with pytest.raises(EngineUnavailable, match="none installed"):
        opening.open(root)


def test_weights_are_released_if_the_session_cannot_begin(
    register: Register, tmp_path: Path
) -> None:
    """A wrong context leaves nothing open."""
    register(onnx=GoodEngine)
    ToyLoaded.closed = 0
    with pytest.raises(InputError, match="context is 99"):
        opening.open(make_bundle(tmp_path / "a").root, context=99)

    assert ToyLoaded.closed == 1


def test_text_files_come_before_weights(register: Register, tmp_path: Path) -> None:
    """A damaged one costs no opening of weights."""
    register(onnx=GoodEngine)

    damaged = make_bundle(tmp_path / "b", tokenizer_config_json=[]).root

    for opener in (opening.open, opening.open_model):
        with pytest.raises(BundleCorrupt, match=r"tokenizer_config\.json is not a JSON object"):
            opener(damaged)

    assert GoodEngine.asked == []


@pytest.mark.parametrize("engine", [GoodEngine, SurprisedEngine])
def test_attack_changed_weights_that_are_opened_while_they_are_hashed(
    register: Register, tmp_path: Path, engine: type[GoodEngine]
) -> None:
    """Their hash is the error, whatever an engine made of them, and nothing stays open."""
    register(onnx=engine)
    ToyLoaded.closed = 0
    bundle = make_bundle(tmp_path / "a", weights_safetensors=b"weights")
    bundle.path("weights.safetensors").write_bytes(b"wEights")

    for opener in (opening.open, opening.open_model):
        with pytest.raises(BundleCorrupt, match=r"'weights\.safetensors' has SHA-256"):
            opener(bundle.root)

    assert ToyLoaded.closed == (2 if engine is GoodEngine else 0)


def test_slips_in_numbers_and_names_are_refused(register: Register, tmp_path: Path) -> None:
    """Before any engine is asked."""
    register(onnx=GoodEngine)
    root = make_bundle(tmp_path / "a").root
    with pytest.raises(InputError, match="threads is 0"):
        opening.open(root, threads=0)
    with pytest.raises(InputError, match="no variant 'int3'"):
        opening.open(root, variant="int3")
    with pytest.raises(InputError, match="not a bundle"):
        opening.open(tmp_path)

    assert GoodEngine.asked == []
