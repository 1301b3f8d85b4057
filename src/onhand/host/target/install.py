"""The runtime on a board: one that is there, or ours in a virtual environment of its own."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from onhand.core.errors import InputError, ResourceError
from onhand.core.outside import parse_json
from onhand.core.progress import Progress
from onhand.host.target import package
from onhand.host.target.copying import Content, copy_files, file_content
from onhand.host.target.failures import explain_command, explain_pip
from onhand.host.target.link import Link, Ran

__all__ = ["BoardFacts", "Runtime", "facts_from_answer", "install_runtime", "present_runtime"]

# Says what a runtime is: its version, and whether its native part can be loaded.
_ASK = """
import importlib, json
from importlib import metadata
try:
    version = metadata.version("onhand")
    importlib.import_module("onhand.device.bench")
except ImportError as error:
    print(json.dumps({"version": "", "native": str(error)}))
else:
    try:
        importlib.import_module("onhand.native._native")
        native = ""
    except ImportError as error:
        native = str(error)
    print(json.dumps({"version": version, "native": native}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFacts:
    """What a board says of itself.

    Attributes:
        machine: what decides whether something compiled runs.
        python: version of its Python.
        executable: that Python.
        folder: absolute, in which everything lies that is copied or made.
        free_bytes: room on that disk.
    """

    machine: package.Machine
    python: str
    executable: str
    folder: str
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime on a board.

    Attributes:
        python: the Python that has it.
        without_native: why its native part is missing, or "".
    """

    python: str
    without_native: str


def facts_from_answer(answer: Mapping[str, object], where: str) -> BoardFacts:
    """Read what a board says of itself.

    Args:
        answer: of the request "hello".
        where: the board's address, for messages.

    Returns:
        The facts.

    Raises:
        InputError: if one is missing or of another type.
    """
    try:
        version = answer["python"]
        texts = {key: answer[key] for key in ("system", "machine", "tag", "compiler")}
        free, folder, executable = (answer[k] for k in ("free_bytes", "folder", "executable"))
    except KeyError as error:
        raise InputError(f"{where}: does not say what {error} it has") from error
    named = [*texts.values(), folder, executable]
    if not all(isinstance(one, str) for one in named) or type(free) is not int:
        raise InputError(f"{where}: says of itself what is of another type")
    if not isinstance(version, list) or not all(type(one) is int for one in version):
        raise InputError(f"{where}: its Python's version is {version!r}")
    return BoardFacts(
        machine=package.Machine(**{key: str(text) for key, text in texts.items()}),
        python=".".join(map(str, version)),
        executable=str(executable),
        folder=str(folder),
        free_bytes=free,
    )


def present_runtime(link: Link, python: str) -> Runtime:
    """Return the runtime that a Python on the board has.

    Args:
        link: the connection.
        python: its place on the board.

    Returns:
        The runtime.

    Raises:
        InputError: if it has none, or one of another version.
        ResourceError: if the connection is lost.
    """
    wanted = metadata.version("onhand")
    ran = link.run([python, "-P", "-c", _ASK])
    try:
        answer = parse_json(ran.output.encode())
    except InputError:
        answer = None
    if not isinstance(answer, dict):
        said = next((line for line in reversed(ran.lines) if line.strip()), "it says nothing")
        raise InputError(f"{link.address}: {python}: {said}")
    if not answer.get("version"):
        raise InputError(
            f"{link.address}: {python} has no onhand that runs ({answer.get('native')}); leave "
            f"--python out to have it installed"
        )
    if answer["version"] != wanted:
        raise InputError(
            f"{link.address}: {python} has onhand {answer['version']}, here is {wanted}: figures "
            f"of another version are not these; leave --python out to have this one installed"
        )
    return Runtime(python=python, without_native=str(answer.get("native", "")))


def install_runtime(
    link: Link, facts: BoardFacts, *, wheels: Path | None, progress: Progress
) -> Runtime:
    """Install the runtime that runs here into an environment of its own on the board.

    Args:
        link: the connection.
        facts: what the board is.
        wheels: a folder of packages to copy along, so that the board needs no index; or None.
        progress: told of each step.

    Returns:
        The runtime.

    Raises:
        InputError: if the folder holds nothing for the board.
        ResourceError: if a package is missing, the disk is full, or the connection is lost.
    """
    given = [] if wheels is None else package.wheels_for(wheels, facts.machine)
    sent = {path.name: file_content(path) for path in given}
    form, why_plain = "given", ""
    if not any(name.startswith("onhand-") for name in sent):
        form, why_plain, ours = _our_package(facts)
        sent |= ours
    key = _key(facts, sent)
    folder = f"{facts.folder}/runtime/{key}"
    python = f"{folder}/bin/python"
    ready = file_content(f"installed {key}\n".encode())
    if ready.sha256 not in _made(link, key):
        copy_files(link, list(sent.values()), free_bytes=facts.free_bytes, progress=progress)
        packages = f"packages/{key}"
        link.ask("gather", folder=packages, files={name: c.name for name, c in sent.items()})
        _make_environment(link, facts, folder, progress)
        _pip(
            link, facts, [python, *_pip_words(facts, packages, sent, wheels is not None)], progress
        )
        link.ask("clean", names=[packages])
        link.ask("put", payload=_bytes(ready), name=f"runtime/{key}/ready", offset=0)
        link.ask("finish", name=f"runtime/{key}/ready", sha256=ready.sha256)
    runtime = present_runtime(link, python)
    if runtime.without_native:
        reason = why_plain or _why_without(form, runtime.without_native)
        progress.note(f"on the board the runtime has no native part: {reason}")
    return runtime


def _bytes(content: Content) -> bytes:
    return content.source if isinstance(content.source, bytes) else b""


def _made(link: Link, key: str) -> list[object]:
    whole = link.ask("state", names=[f"runtime/{key}/ready"]).get("whole")
    return list(whole.values()) if isinstance(whole, dict) else []


def _our_package(facts: BoardFacts) -> tuple[str, str, dict[str, Content]]:
    sources = package.source_root()
    form, why_plain = package.choose_package(
        facts.machine,
        mine=package.here(),
        has_native=package.has_native(),
        has_sources=sources is not None,
    )
    if form == "source" and sources is not None:
        name, content = package.source_archive(sources)
    else:
        name, content = package.installed_wheel(is_compiled=form == "compiled")
    return form, why_plain, {name: file_content(content)}


def _why_without(form: str, said: str) -> str:
    if form == "source":
        return "its compiler could not build it"
    return f"the wheel has none for it ({said})"


def _key(facts: BoardFacts, sent: Mapping[str, Content]) -> str:
    named = json.dumps([
        facts.python,
        facts.executable,
        sorted((n, c.sha256) for n, c in sent.items()),
    ])
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def _make_environment(link: Link, facts: BoardFacts, folder: str, progress: Progress) -> None:
    progress.start("making an environment on the board", 1)
    ran = link.run([facts.executable, "-m", "venv", "--clear", folder])
    if ran.code != 0:
        if "ensurepip" in ran.output + "".join(ran.lines):
            raise ResourceError(
                f"{link.address}: its Python {facts.python} cannot make environments: install "
                f"its package venv there, as in apt install python3-venv"
            )
        raise _failed(link, "making an environment", ran)
    progress.advance(1)


def _pip_words(
    facts: BoardFacts, packages: str, sent: Mapping[str, Content], has_wheels: bool
) -> list[str]:
    place = f"{facts.folder}/{packages}"
    words = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    # A dependency that has to be compiled would take hours, if it can be at all.
    words += ["--no-cache-dir", "--only-binary", ":all:", "--progress-bar", "off"]
    if has_wheels:
        words += ["--no-index", "--find-links", place]
    ours = sorted(name for name in sent if name.startswith("onhand-"))
    if len(ours) == 1 and ours[0].endswith(".tar.gz"):
        return [*words, f"{place}/{ours[0]}"]
    if has_wheels:
        return [*words, f"onhand=={metadata.version('onhand')}"]
    return [*words, f"{place}/{ours[0]}"]


def _pip(link: Link, facts: BoardFacts, command: Sequence[str], progress: Progress) -> None:
    progress.start("installing the runtime on the board", 1)
    ran = link.run(command, environment={"PYTHONNOUSERSITE": "1"})
    if ran.code != 0 and not ran.ended:
        raise explain_pip(
            link.address,
            ran.lines,
            machine=facts.machine.machine,
            python=facts.python,
            has_wheels="--no-index" in command,
        )
    if ran.code != 0:
        raise _failed(link, "installing the runtime", ran)
    progress.advance(1)


def _failed(link: Link, what: str, ran: Ran) -> Exception:
    return explain_command(
        link.address,
        what,
        code=ran.code,
        ended=ran.ended,
        lines=ran.lines,
        limit_s=link.limit_s,
    )
