"""One trial of a sweep: a build in a process of its own, which cannot outlive who asked for it."""

import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Literal

from onhand.core.bundle import read_manifest, stage_bundle
from onhand.core.errors import OnhandError, ResourceError

__all__ = ["Outcome", "Trial", "TrialResult", "run_trial", "unpack"]

Outcome = Literal["built", "refused", "failed", "lost"]
_REFUSED: Final = 4
# Set by Ray for its workers; a build that heeded them would not be the one that runs elsewhere.
_RAYS: Final = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
# The standard input ends when who asked is gone: then all of it ends.
_GUARDED: Final = """
import os, runpy, signal, sys, threading
def watch():
    while os.read(0, 1):  # not by its buffer, whose lock the end of Python waits for
        pass
    if sys.platform == "win32":
        os._exit(1)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module("onhand", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One build that is tried.

    Attributes:
        name: of the trial and its bundle.
        source: what is built, by its name in the sweep.
        device: for what, likewise.
        budget: within what, likewise.
        words: of `onhand build`: the source and the options, but for the place of the bundle.
        folder: in which the bundle is made; None where it is sent back as bytes.
        home: the builder's state folder; None for the worker's own.
        profile: of the device, as TOML; None for the machine that builds.
    """

    name: str
    source: str
    device: str
    budget: str
    words: tuple[str, ...]
    folder: str | None = None
    home: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        name: of the trial.
        outcome: "built"; "refused", as no bundle holds the budget; "failed"; "lost", as its
            workers died.
        message: why it is not built; "" where it is.
        seconds: that it took.
        machine: that did it.
        manifest_sha256: of the bundle.
        report: the bundle's.
        packed: the bundle as an archive, where it was made elsewhere.
    """

    name: str
    outcome: Outcome
    message: str = ""
    seconds: float = 0.0
    machine: str = ""
    manifest_sha256: str = ""
    report: Mapping[str, object] | None = None
    packed: bytes | None = None


def run_trial(trial: Trial) -> TrialResult:
    """Build, and return what came of it; a build that fails is a result.

    Args:
        trial: what is built.

    Returns:
        The result.

    Raises:
        ResourceError: if no process can be started, or the bundle cannot be read.
    """
    if trial.folder is not None:
        return _build(trial, Path(trial.folder))
    with tempfile.TemporaryDirectory(prefix="onhand-trial-") as folder:
        return _build(trial, Path(folder))


def _build(trial: Trial, folder: Path) -> TrialResult:
    place = folder / trial.name
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="onhand-profile-") as beside:
        words = [*trial.words, "--output", str(place), "--json"]
        if trial.profile is not None:
            profile = Path(beside) / "device.toml"
            profile.write_text(trial.profile, encoding="utf-8")
            words += ["--device", str(profile)]
        done = _run(["build", *words], trial.home)
    result = TrialResult(
        name=trial.name,
        outcome="built",
        seconds=time.monotonic() - begun,
        machine=platform.node(),
    )
    if done.returncode != 0:
        return _not_built(result, done)
    try:
        digest = read_manifest(place)[1]
        packed = None if trial.folder is not None else pack(place)
        report = json.loads(done.stdout)
    except (OnhandError, OSError, ValueError) as error:
        raise ResourceError(f"{trial.name}: the bundle cannot be read again: {error}") from error
    return replace(result, manifest_sha256=digest, report=report, packed=packed)


def _run(words: list[str], home: str | None) -> "subprocess.CompletedProcess[str]":
    environment = {key: text for key, text in os.environ.items() if key not in _RAYS}
    if home is not None:
        environment["ONHAND_HOME"] = home
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(  # noqa: S603 - our own program, an argument list
            [sys.executable, "-P", "-c", _GUARDED, *words],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
        with process:  # its end closes the standard input, and with it all that still runs
            code = _waited(process)
        texts = [_text(out), _text(said)]
    return subprocess.CompletedProcess(words, code, *texts)


def _waited(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait()
    except BaseException:
        process.kill()
        raise


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _not_built(result: TrialResult, done: "subprocess.CompletedProcess[str]") -> TrialResult:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = lines[-1].removeprefix("onhand build: ") if lines else "it gave no reason"
    if done.returncode < 0:
        said = f"was killed by signal {-done.returncode}: was there enough memory"
    outcome: Outcome = "refused" if done.returncode == _REFUSED else "failed"
    return replace(result, outcome=outcome, message=said)


def pack(place: Path) -> bytes:
    """Return a folder as one archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.add(place, arcname=".")
    return made.getvalue()


def unpack(packed: bytes, place: Path) -> None:
    """Write a bundle that was made elsewhere, whole or not at all.

    Args:
        packed: from a `TrialResult`.
        place: the bundle's folder; must not exist.

    Raises:
        InputError: if it exists, or its parent does not.
        ResourceError: if it cannot be written.
    """
    with stage_bundle(place) as staged, tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        # Plain files below the folder, and nothing else.
        archive.extractall(staged, filter="data")
