"""A bundle that can be described and verified, its report, and a model that answers by heart."""

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from onhand.core.bundle import Bundle, stage_bundle, write_manifest, write_report
from onhand.core.decoder import Decoder, DecoderLayer
from onhand.core.errors import OnhandError
from onhand.core.manifest import Manifest, Variant
from onhand.core.measurement import Measurement, summarize
from onhand.core.profile import DeviceProfile
from onhand.core.quantized import GroupFormat
from onhand.device.adapting.choosing import WayChoice
from onhand.device.learning.in_use import AS_BUILT, InUse
from onhand.device.sampling import Sampling
from onhand.device.speculate import SpeculationCounts
from onhand.device.template import Message

DECODER = Decoder(
    vocab_size=64,
    width=32,
    context=128,
    norm_epsilon=1e-5,
    layers=(DecoderLayer(n_heads=2, n_kv_heads=1, head_dim=16, mlp_width=32),),
    tied=True,
)
DEVICE = DeviceProfile(
    name="board",
    system="linux",
    machine="aarch64",
    processor="Board 1",
    physical_cores=4,
    usable_threads=4,
    instruction_sets=("neon",),
    memory_bytes=2**30,
    read_bandwidth=(1e9,),
    watts=5.0,
    watts_source="a guess",
)


def _variant(name: str, bits: int) -> Variant:
    form = GroupFormat(bits=bits, group_size=32, symmetric=True)
    return Variant(
        graph=f"{name}.onnx",
        weights=(f"{name}.safetensors",),
        matrices=dict.fromkeys(DECODER.matrices(), form),
        accuracy_level=4,
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle of two variants with a report; its weights are only bytes with the right hash."""
    root = tmp_path / "assistant"
    variants = {"int3": _variant("int3", 3), "int8": _variant("int8", 8)}
    with stage_bundle(root) as staged:
        for name in variants:
            (staged / f"{name}.onnx").write_bytes(b"graph" * 10)
            (staged / f"{name}.safetensors").write_bytes(b"weights" * 100)
        made = write_manifest(
            staged,
            Manifest(
                name="assistant",
                kind="language-model",
                version=1,
                default_variant="int8",
                variants=variants,
                model=DECODER,
                files={},
                provenance={"onhand": "0.1.0"},
            ),
            hashes={},
        )
        write_report(staged, report_of(made))
    return Bundle(root=root, manifest=made.manifest, manifest_sha256=made.manifest_sha256)


def figure(name: str, value: float) -> dict[str, object]:
    """One measurement as a report holds it."""
    return summarize(name, [value], unit="one", how="onhand bench assistant").to_json()


def report_of(bundle: Bundle) -> dict[str, object]:
    """A report on a bundle, as its build writes it."""
    text = {"what": "a text", "n_tokens": 100, "sha256": "0" * 64}
    variants = {
        name: {
            "figures": {"size_bytes": figure("size_bytes", 700.0)},
            "matrices": [],
            "kept": {"norm": "a norm"},
        }
        for name in bundle.manifest.variants
    }
    return {
        "format": 1,
        "name": "assistant",
        "manifest_sha256": bundle.manifest_sha256,
        "onhand_version": "0.1.0",
        "measured_at": "2026-01-02T03:04:05+00:00",
        "device": asdict(DEVICE),
        "engine": {
            "name": "onnx",
            "package": "onnxruntime",
            "version": "1.31",
            "threads": 2,
            "accuracy_level": 4,
        },
        "read_bandwidth": figure("read_bandwidth", 1e9),
        "source": {
            "family": "llama",
            "sha256": "1" * 64,
            "n_parameters": 1000,
            "weight_bits": 16,
            "size_bytes": 2000,
        },
        "original": {"figures": {"size_bytes": figure("size_bytes", 2000.0)}, "missing": None},
        "default_variant": "int8",
        "variants": variants,
        "text": {"calibration": None, "heldout": text},
        "budget": {"limits": {"disk": 1000.0}, "breaches": []},
        "energy": {"how": "watts * seconds", "estimated": True},
        "notes": ["the machine was busy"],
    }


@dataclass
class FakeAnswer:
    """An answer that was written before; see `Generation`."""

    pieces: Sequence[str | BaseException]
    finish_reason: str | None = "stop"
    prompt_tokens: int = 7
    generated_tokens: int = 3
    reused_tokens: int = 0
    dropped_messages: int = 0
    speculation: SpeculationCounts | None = None
    is_closed: bool = False

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def close(self) -> None:
        """See `Generation`."""
        self.is_closed = True


@dataclass
class FakeSession:
    """Gives the answers of a list, one after the other; see `TextSession`."""

    answers: list[FakeAnswer | OnhandError] = field(default_factory=list)
    asked: list[tuple[object, dict[str, object]]] = field(default_factory=list)
    opened: list[tuple[Path, dict[str, object]]] = field(default_factory=list)
    engine_name: str = "onnx"
    passed_over: dict[str, str] = field(default_factory=dict)
    choice: WayChoice | None = None
    learned: InUse = AS_BUILT
    takes_messages: bool = False
    is_closed: bool = False

    def generate(self, prompt: object, **options: object) -> FakeAnswer:
        """See `TextSession`."""
        self.asked.append((prompt, options))
        answer = self.answers.pop(0)
        if isinstance(answer, OnhandError):
            raise answer
        return answer

    def __enter__(self) -> "FakeSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    """What every bundle opens as."""
    made = FakeSession()

    def opening(path: Path, **options: object) -> FakeSession:
        made.opened.append((path, options))
        return made

    monkeypatch.setattr("onhand.device.opening.open", opening)
    return made


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a text into stdin, as a pipe does."""

    def put(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return put


@dataclass
class FakeHost:
    """Stands in for the host's modules and remembers how they were called."""

    calls: list[tuple[str, tuple[object, ...], dict[str, object]]] = field(default_factory=list)
    outcome: object = None

    def __call__(self, name: str) -> Callable[..., object]:
        """Return a function that gives `outcome`, or raises it."""

        def called(*arguments: object, **options: object) -> object:
            self.calls.append((name, arguments, options))
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

        return called


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """Replaces building and evaluating, which need packages that a device lacks."""
    made = FakeHost()
    building = SimpleNamespace(plan_build=made("plan"), build_bundle=made("build"))
    judging = SimpleNamespace(evaluate_bundle=made("evaluate"))
    page = SimpleNamespace(render_report=made("page"))
    both = SimpleNamespace(render_pair=made("pair"))
    monkeypatch.setitem(sys.modules, "onhand.host.build", building)
    monkeypatch.setitem(sys.modules, "onhand.host.evaluate", judging)
    monkeypatch.setitem(sys.modules, "onhand.host.report", page)
    monkeypatch.setitem(sys.modules, "onhand.host.report_pair", both)
    planning = SimpleNamespace(plan_searched=made("plan search"))
    monkeypatch.setitem(sys.modules, "onhand.host.search.planning", planning)
    return made


def measurement(name: str, value: float) -> Measurement:
    """A measured quality figure."""
    return Measurement(
        name=name, value=value, unit="one", samples=9, spread=0.0, how="x", interval=(0.5, 1.5)
    )


GREEDY = Sampling()
USER = Message("user", "hello")
