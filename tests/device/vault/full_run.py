"""A whole run of a server, as its user has it: asked, taught, killed, started again, ended."""

import base64
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import numpy as np
import psutil
from tests.device.learning.bundles import trunk_weights
from tests.device.learning.test_taught import shown
from tests.device.serving.backends.upstream import events, gives, says, upstream
from tests.device.serving.feedback.test_learned_network import write_network
from tests.device.vault.showing import Known

from onhand.core.bundle import read_bundle
from onhand.core.sealed_header import parse_recipient
from onhand.core.sealed_writing import seal_bundle
from onhand.core.signing import sign_manifest
from onhand.device.access.store import KeyStore
from onhand.device.text_files import read_text_files
from onhand.device.trust.checking import write_signature
from onhand.device.trust.store import TrustStore
from onhand.device.vault.handing import handed_key
from onhand.device.vault.recipients import recipient_of
from onhand.device.vault.sources import Asking
from onhand.device.vault.vault import STORES, begin_vault, open_vault

__all__ = ["FAR_KEY", "Run", "full_run"]

ROOT: Final = Path(__file__).parents[3]
TINY: Final = ROOT / "tests" / "data" / "tiny-bundle"
WORDS: Final = "correct horse battery staple"
_SAID_AT: Final = 200
FAR_KEY: Final = "sk-far-0123456789abcdef-aardvark"
ASKED: Final = 'the aardvark of room seven said "nine thousand" to nobody else'
FAR_ASKED: Final = 'Jürgen\'s pangolin said "four" · to nobody'
FAR_ANSWERED: Final = "the pangolin is due at noon, Jürgen"
WAITING: Final = 'the wombat of Zoë waits for its "cloud"'
TAUGHT: Final = "a lamp like the quokka of Łódź"
_SETTINGS: Final = """
[server]
port = 0
[audit]
bodies = true
[governor]
enabled = false
[learning]
enabled = true
method = "replay"
epochs = 4
rate = 0.05
least_examples = 30
idle_s = 0.02
retry_s = 1000.0
cpu_share = 1.0
lowest_battery = 0.0
[outbox]
poll_s = 0.05
first_s = 0.05
most_s = 0.1
[balance]
eject_s = 0.05
most_eject_s = 0.05
backoff_s = 0.01
[[model]]
bundle = "{tiny}"
engine = "reference"
trials = false
[[model]]
bundle = "{things}"
engine = "onnx"
threads = 1
[[backend]]
name = "far"
url = "{url}"
serves = ["big"]
env = "FAR_KEY"
compression = "none"
keeps = true
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run left.

    Attributes:
        place: its folder.
        known: name -> what was asked, answered, taught, and what opens something.
        outcomes: what became of the requests, by name.
    """

    place: Path
    known: dict[str, Known] = field(default_factory=dict)
    outcomes: dict[str, object] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The state folder."""
        return self.place / "home"

    @property
    def written(self) -> tuple[Path, ...]:
        """Folders in which files may have been written."""
        names = ("home", "user", "here", "temporary", "attic", "bundles")
        return tuple(self.place / name for name in names)

    def environment(self) -> Mapping[str, str]:
        """Return all that the server is told."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "ONHAND_HOME": str(self.home),
            "ONHAND_TRUST": "signed",
            "FAR_KEY": FAR_KEY,
            "HOME": str(self.place / "user"),
            "TMPDIR": str(self.place / "temporary"),
            "PYTHONPATH": os.pathsep.join([str(self.place / "site"), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ONHAND_TEST_ATTIC": str(self.place / "attic"),
        }


def full_run(place: Path, *, has_vault: bool, looked: Callable[[Run], None]) -> Run:
    """Do everything once; without a vault it ends before it would be killed.

    Args:
        place: an empty folder.
        has_vault: whether the state folder has one.
        looked: is called while the server runs, after it was killed, and at the end.
    """
    run = Run(place)
    for folder in (*run.written, place / "site"):
        folder.mkdir()
    (place / "site" / "sitecustomize.py").write_text(
        "import os\nfrom tests.device.vault.written import watch\n"
        "watch(os.environ['ONHAND_TEST_ATTIC'])\n"
    )
    if has_vault:
        _say_passphrase()
        asking = Asking({})
        begin_vault(run.home, kind="passphrase-fd", place=str(_SAID_AT), asking=asking)
    tiny, things = _bundles(run)
    with upstream(says(*events(FAR_ANSWERED[:9], FAR_ANSWERED[9:]))) as cloud:
        text = _SETTINGS.format(tiny=tiny, things=things, url=cloud.url)
        (place / "serve.toml").write_text(text)
        with _server(run) as (server, client):
            _ask(run, client)
            cloud.script = gives(503, b'{"error": {"message": "down"}}')
            run.outcomes["waiting"] = _later(client, WAITING)
            _teach(run, client)
            _until(lambda: _learning(client)["is_learning"] or _learning(client)["last_verdict"])
            looked(run)
            if not has_vault:
                server.terminate()
                server.wait(20)
                looked(run)
                return run
            children = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
            psutil.wait_procs(children, timeout=20)
        looked(run)
        cloud.script = says(*events(FAR_ANSWERED))
        with _server(run) as (server, client):
            name = str(run.outcomes["waiting"])
            _until(lambda: client.get(f"/v1/outbox/{name}").json()["state"] == "done")
            _until(lambda: _learning(client)["last_verdict"])
            run.outcomes["verdict"] = _learning(client)["last_verdict"]
            looked(run)
            server.terminate()
            server.wait(20)
    looked(run)
    return run


def _bundles(run: Run) -> tuple[str, str]:
    """Make two bundles, signed by this device; with a vault, they are sealed for it."""
    folder = run.place / "made"
    shutil.copytree(TINY, folder / "tiny")
    write_network(folder / "things")
    store = TrustStore(run.home)
    for name in ("tiny", "things"):
        content = (folder / name / "manifest.json").read_bytes()
        write_signature(folder / name, sign_manifest(content, store.seed(), release=1))
    run.known["the device's signing key"] = store.seed()
    vault = open_vault(run.home)
    if vault is not None:
        run.known.update({f"the data key of {name}": vault.key(name) for name in STORES})
        run.known["the key-encryption key"] = bytes.fromhex(handed_key(run.home))
        run.known["the passphrase"] = WORDS
    weights = (folder / "tiny" / "weights.safetensors").read_bytes()
    run.known["weights of a language model"] = weights[-4096:-4000]
    run.known["weights of a network"] = trunk_weights()
    bundles = run.place / "bundles"
    for name in ("tiny", "things"):
        if vault is None:
            shutil.copytree(folder / name, bundles / name)
        else:
            seal_bundle(folder / name, bundles / name, [parse_recipient(recipient_of(vault))])
    shutil.rmtree(folder)
    return (bundles / "tiny").as_posix(), (bundles / "things").as_posix()


@contextmanager
def _server(run: Run) -> Iterator[tuple["subprocess.Popen[str]", httpx2.Client]]:
    command = [sys.executable, "-m", "onhand", "serve", "--config", str(run.place / "serve.toml")]
    has_vault = open_vault(run.home) is not None
    if has_vault:
        _say_passphrase()
    with (run.place / "here" / "said.log").open("ab") as said:
        server = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=run.place / "here",
            env=dict(run.environment()),
            pass_fds=[_SAID_AT] if has_vault else [],
        )
    if has_vault:
        os.close(_SAID_AT)
    assert server.stdout is not None
    with server:
        try:
            url = server.stdout.readline().strip().removesuffix("/v1")
            assert url, (run.place / "here" / "said.log").read_text()
            token = KeyStore(run.home).local_text()
            run.known["this device's token"] = token
            headers = {"authorization": f"Bearer {token}"}
            with httpx2.Client(base_url=url, headers=headers, timeout=30) as client:
                yield server, client
        finally:
            if server.poll() is None:
                server.kill()


def _say_passphrase() -> None:
    """Let a passphrase be read, once, from an open file whose number nothing else has."""
    reading, writing = os.pipe()
    os.write(writing, WORDS.encode() + b"\n")
    os.close(writing)
    os.dup2(reading, _SAID_AT)
    os.close(reading)


def _ask(run: Run, client: httpx2.Client) -> None:
    """Have a model of the device and one of the cloud answer, now and later."""
    tokens = read_text_files(read_bundle(TINY)).tokenizer.encode_plain(ASKED)
    run.known.update({
        "a prompt": ASKED,
        "a prompt's tokens": np.asarray(tokens[4:16]),
        "a prompt to a cloud": FAR_ASKED,
        "a cloud's answer": FAR_ANSWERED,
        "a prompt that waits": WAITING,
        "a cloud's key": FAR_KEY,
    })
    body: dict[str, Any] = {"temperature": 0, "max_tokens": 24}
    reply = client.post("/v1/completions", json=body | {"model": "tiny", "prompt": ASKED})
    assert reply.status_code == 200, reply.text
    name = _later(client, ASKED, model="tiny")
    _until(lambda: client.get(f"/v1/outbox/{name}").json()["state"] == "done")
    answer = client.get(f"/v1/outbox/{name}").json()["response"]
    run.known["an answer"] = answer["choices"][0]["message"]["content"]
    asked = {"model": "big", "messages": [{"role": "user", "content": FAR_ASKED}]}
    assert client.post("/v1/chat/completions", json=body | asked).status_code == 200
    far = _later(client, FAR_ASKED)
    _until(lambda: client.get(f"/v1/outbox/{far}").json()["state"] == "done")


def _later(client: httpx2.Client, text: str, *, model: str = "big") -> str:
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 24,
        "temperature": 0,
    }
    reply = client.post("/v1/chat/completions", json=asked, headers={"x-defer": "must"})
    return str(reply.json()["id"])


def _teach(run: Run, client: httpx2.Client) -> None:
    """Give feedback: things of three kinds, one of them new, and one that is contradicted."""
    for number in range(33):
        kind = number % 3
        one = shown(kind, number, label=TAUGHT if kind == 2 else "")
        picture = base64.b64encode(one.picture).decode()
        reply = client.post("/v1/feedback", json={"image": picture, "label": one.answer})
        assert reply.status_code == 200, reply.text
        if number in {0, 2}:
            run.known[f"picture {number}"] = np.load(io.BytesIO(one.picture))["pixels"]
    doubted = base64.b64encode(shown(0, 0).picture).decode()
    reply = client.post("/v1/feedback", json={"image": doubted, "label": "door"})
    run.outcomes["doubted"] = reply.status_code
    run.known["a label"] = TAUGHT


def _learning(client: httpx2.Client) -> Mapping[str, Any]:
    found = client.get("/health").json()["learning"]["things"]
    assert isinstance(found, dict)
    return found


def _until(is_so: Callable[[], object]) -> None:
    end_s = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.02)
