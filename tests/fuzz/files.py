"""Parsers of files: bundles, recipes, settings, keys, logs, examples, graphs, weights."""

import json
import zlib
from dataclasses import asdict
from pathlib import Path

from tests.fuzz.targets import GRAPH, Target, as_json, folder, written

from onhand.core.budget import parse_budget
from onhand.core.lesson import Lesson, Trainable, parse_lesson, render_lesson
from onhand.core.lora_config import parse_lora_config
from onhand.core.manifest import parse_manifest
from onhand.core.onnxfile import check_tensors
from onhand.core.onnxgraph import parse_graph
from onhand.core.openssf import parse_model_signature
from onhand.core.profile import parse_profile
from onhand.core.recipe import parse_recipe
from onhand.core.safetensors import open_safetensors
from onhand.core.sealing import seal_bytes, unseal_bytes
from onhand.core.sealing_keys import StoreKeys
from onhand.core.signing import (
    key_id,
    parse_rotation,
    parse_signature,
    public_key,
    sign_manifest,
    sign_rotation,
)
from onhand.device.access.keys import key_of
from onhand.device.access.scopes import EVERYTHING
from onhand.device.access.store import KeyStore
from onhand.device.access.tokens import Token
from onhand.device.audit.exporting import read_export
from onhand.device.audit.heads import Head, is_signed, parse_head
from onhand.device.audit.records import Record, has_valid_code, line_of, parse
from onhand.device.audit.segments import segment_name
from onhand.device.audit.verifying import verify, verify_folder
from onhand.device.learning.example_files import read_examples
from onhand.device.learning.feedback import Feedback, parse_feedback, render_feedback
from onhand.device.learning.journal import FIRST, framed, read_journal
from onhand.device.learning.verdict import Verdict, parse_verdict, render_verdict
from onhand.device.networks.inputs import read_arrays
from onhand.device.networks.pictures import parse_picture
from onhand.device.networks.sounds import read_sound
from onhand.device.report_data import parse_report
from onhand.device.serving.settings import parse_settings
from onhand.device.text import parse_tokenizer
from onhand.device.trust.store import TrustedKey, TrustStore
from onhand.device.vault.vault_file import read_vault, wrapped_keys

__all__ = ["TARGETS"]

TINY = Path(__file__).parents[1] / "data" / "tiny-bundle"
REPORT = Path(__file__).parents[1] / "device" / "report_example.json"
DEVICES = Path(__file__).parents[2] / "src" / "onhand" / "device" / "devices"
RECIPES = Path(__file__).parents[2] / "recipes"
SEED = b"k" * 32
KEYS = StoreKeys("fuzz", {1: SEED})
SECRET = b"what was sealed" * 9
RECORD = line_of(
    Record(seq=7, time="2026-01-02T03:04:05", previous="a" * 64, kind="request", facts={"id": "1"}),
    SEED,
)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _safetensors(content: bytes) -> None:
    file = open_safetensors(written("model.safetensors", content))
    for name in file.tensors:
        file.view(name)


def _recipe(content: bytes) -> None:
    parse_recipe(_text(content), passes=_pass)


def _pass(name: str) -> object:
    from onhand.core.plugins import load_plugin

    return load_plugin("onhand.passes", name)


def _sealed(content: bytes) -> None:
    if bytes(unseal_bytes(KEYS, content, name="file")) != SECRET:
        raise RuntimeError("another content was opened")


def _record(content: bytes) -> None:
    parse(content)
    if has_valid_code(content, SEED) and content != RECORD:
        raise RuntimeError("a changed record has a valid code")


def _head(content: bytes) -> None:
    is_signed(parse_head(content), public_key(SEED))


def _export(content: bytes) -> None:
    evidence, public = read_export(written("export.jsonl", content))
    verify(evidence, public=public, code=None)


def _chain(content: bytes) -> None:
    log = written(f"chain/{segment_name(1)}", content).parent
    heads = written("heads", content)
    verify_folder(log, heads, public=public_key(SEED), code=SEED)


def _keys(content: bytes) -> None:
    written("home/access/keys.json", content)
    KeyStore(folder() / "home").listed()


def _trusted(content: bytes) -> None:
    written("home/trust/keys.json", content)
    TrustStore(folder() / "home").keys()


def _vault(content: bytes) -> None:
    home = written("vault/vault.json", content).parent
    _, table = read_vault(home)
    wrapped_keys(table, home)


def _journal(content: bytes) -> None:
    for one in read_journal(written("journal", content)):
        parse_feedback(one)


def _graph(content: bytes) -> None:
    written("empty", b"")
    check_tensors(content, {}, where="graph")
    parse_graph(content, {})


def _report(content: bytes) -> None:
    found = json.loads(content) if len(content) < 2**20 else {}
    parse_report(found if isinstance(found, dict) else {})


def _with_json_errors(content: bytes) -> None:
    try:
        _report(content)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return  # whoever reads the file turns these into ours


HEAD = Head(log="a" * 32, count=1, hash="a" * 64, time="now", signature="0" * 128)
API_KEY = key_of(Token("0123456789abcdef", "a" * 43), "n", EVERYTHING, now_s=1.0)
TRUSTED = TrustedKey(public=public_key(SEED).hex(), name="n", line=key_id(public_key(SEED)))
SAID = Feedback(tenant="t", at_s=1.0, verdict="accepted", answer="a", rating=1.0, text="q")
LESSON = Lesson(
    kind="head",
    feeds="classes",
    variant="int8",
    graph="learn.onnx",
    trunk="learn-trunk.onnx",
    start="learn.safetensors",
    trainables={"fc.weight": Trainable(shape=(0, 64), tensor="fc.weight", grows=True)},
    answers="learned.onnx",
    classes=("cup", "lamp"),
)
SETTINGS = b"""[server]
port = 8080
hosts = ["a.example"]
[[model]]
name = "a"
bundle = "b"
threads = 2
[[key]]
env = "TOKEN"
tenant = "t"
[audit]
head_s = 3.0
[cache]
exact_bytes = 10
[[backend]]
name = "cloud"
url = "https://a.example/v1"
[privacy]
[routing]
[outbox]
[learning]
"""
EXAMPLES = as_json(
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"prompt": "p", "chosen": "a", "rejected": "b"},
    {"text": "t", "label": "l"},
)
WAV = (
    b"RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0"
    b"data\x08\0\0\0\0\0\1\0\2\0\3\0"
)


def _npz() -> bytes:
    from io import BytesIO

    import numpy as np

    file = BytesIO()
    np.savez_compressed(file, a=np.zeros((2, 3), np.float32), b=np.arange(3))
    return file.getvalue()


def _png() -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    head = (2).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    rows = zlib.compress((b"\0" + b"\1\2\3" * 2) * 2)
    ended = chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + ended


def _small_tensors() -> bytes:
    header = json.dumps({
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]},
    }).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + bytes(11)


def _tiny(name: str) -> bytes:
    return (TINY / name).read_bytes()


def _openssf() -> bytes:
    from onhand.core.openssf import sign_model
    from onhand.device.trust.model_files import ed25519_pem

    return sign_model({"x": "a" * 64}, ed25519_pem(SEED), name="m", ignored=("model.sig",))


TARGETS = (
    Target(
        name="manifest",
        parse=lambda content: parse_manifest(content, where="manifest"),
        samples=(_tiny("manifest.json"),),
    ),
    Target(name="safetensors", parse=_safetensors, samples=(_small_tensors(),)),
    Target(
        name="tokenizer",
        parse=lambda content: parse_tokenizer(content, where="tokenizer"),
        samples=(_tiny("tokenizer.json"),),
    ),
    Target(name="onnx", parse=_graph, samples=(GRAPH,)),
    Target(
        name="recipe",
        parse=_recipe,
        samples=tuple(path.read_bytes() for path in sorted(RECIPES.glob("*.toml"))),
    ),
    Target(
        name="profile",
        parse=lambda content: parse_profile(_text(content)),
        samples=((DEVICES / "raspberry-pi-5.toml").read_bytes(),),
    ),
    Target(
        name="budget",
        parse=lambda content: parse_budget(_text(content)),
        samples=(b"disk=30MB,first-token=0.5s,ram=1GB,loss=1%",),
    ),
    Target(
        name="settings",
        parse=lambda content: parse_settings(_text(content), environment={"TOKEN": "t" * 40}),
        samples=(SETTINGS,),
    ),
    Target(
        name="lesson",
        parse=lambda content: parse_lesson(content, where="lesson"),
        samples=(render_lesson(LESSON),),
    ),
    Target(
        name="lora-config",
        parse=lambda content: parse_lora_config(content, where="adapter"),
        samples=as_json({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q"]}),
    ),
    Target(
        name="signature",
        parse=lambda content: parse_signature(content, where="bundle"),
        samples=(sign_manifest(b"{}", SEED, release=3, expires_s=9),),
    ),
    Target(
        name="rotation",
        parse=lambda content: parse_rotation(content, {key_id(public_key(SEED)): public_key(SEED)}),
        samples=(sign_rotation(SEED, public_key(b"l" * 32), revokes_old=True),),
    ),
    Target(
        name="model-signature",
        parse=lambda content: parse_model_signature(content, where="model.sig"),
        samples=(_openssf(),),
    ),
    Target(name="sealed", parse=_sealed, samples=(seal_bytes(KEYS, SECRET, name="file"),)),
    Target(
        name="vault",
        parse=_vault,
        samples=as_json({
            "format": 1,
            "source": {"kind": "key-file", "place": "", "salt": ""},
            "check": "a",
            "mac": "b",
            "stores": {"audit": {"1": "AAAA"}},
        }),
    ),
    Target(name="keys", parse=_keys, samples=as_json({"format": 1, "keys": [API_KEY.to_json()]})),
    Target(
        name="trusted-keys",
        parse=_trusted,
        samples=as_json({"format": 1, "keys": {TRUSTED.id: asdict(TRUSTED)}}),
    ),
    Target(name="audit-record", parse=_record, samples=(RECORD,)),
    Target(
        name="audit-head",
        parse=_head,
        samples=as_json({name: getattr(HEAD, name) for name in HEAD.__slots__}),
    ),
    Target(name="audit-chain", parse=_chain, samples=(RECORD + b"\n" + RECORD + b"\n",)),
    Target(
        name="audit-export",
        parse=_export,
        samples=(
            b'{"format": 1, "chain": "c", "public_key": "%s"}\n{"head": "x"}\n{"file": "f"}\n'
            b'{"line": "%s", "whole": true}\n' % (b"a" * 64, RECORD.replace(b'"', b'\\"')),
        ),
    ),
    Target(
        name="feedback",
        parse=parse_feedback,
        samples=(render_feedback(SAID),),
    ),
    Target(name="journal", parse=_journal, samples=(FIRST + framed(render_feedback(SAID)) * 2,)),
    Target(
        name="verdict",
        parse=lambda content: parse_verdict(content, where="verdict"),
        samples=(render_verdict(Verdict(is_accepted=True, figures={"loss": 1.0})),),
    ),
    Target(
        name="examples-jsonl",
        parse=lambda content: read_examples(written("data.jsonl", content)),
        samples=(b"\n".join(EXAMPLES),),
    ),
    Target(
        name="examples-csv",
        parse=lambda content: read_examples(written("data.csv", content)),
        samples=(b'text,label\n"a ""b""",x\nc,y\n',),
    ),
    Target(
        name="examples-txt",
        parse=lambda content: read_examples(written("data.txt", content)),
        samples=(b"a text of some words",),
    ),
    Target(
        name="arrays",
        parse=lambda content: read_arrays(written("data.npz", content)),
        samples=(_npz(),),
    ),
    Target(
        name="sound",
        parse=lambda content: read_sound(written("data.wav", content)),
        samples=(WAV,),
    ),
    Target(
        name="picture",
        parse=parse_picture,
        samples=(b"P6 2 1 255\n\1\2\3\4\5\6", _png()),
        needs="PIL",
    ),
    Target(
        name="report",
        parse=_with_json_errors,
        samples=(REPORT.read_bytes(),),
    ),
)
