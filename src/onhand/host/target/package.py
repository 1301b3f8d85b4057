"""The runtime as a file that pip installs on a board: made from the one that runs here."""

import base64
import hashlib
import platform
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from io import BytesIO
from pathlib import Path

import onhand
from onhand.core.errors import InputError

__all__ = [
    "Machine",
    "choose_package",
    "here",
    "installed_wheel",
    "source_archive",
    "wheels_for",
]

_EPOCH = (1980, 1, 1, 0, 0, 0)
_SOURCES = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "src/onhand")
_LIBRARIES = (".so", ".pyd", ".dylib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What decides whether something compiled runs.

    Attributes:
        system: as `sys.platform`.
        machine: processor architecture.
        tag: of the Python, as in "cpython-311".
        compiler: of C++, or "" where there is none.
    """

    system: str
    machine: str
    tag: str
    compiler: str = ""

    def runs_same(self, other: "Machine") -> bool:
        """Say whether what was compiled for one runs on the other."""
        mine, theirs = (self.system, self.machine, self.tag), (other.system, other.machine)
        return mine == (*theirs, other.tag)


def here() -> Machine:
    """Return what this machine is."""
    return Machine(
        system=sys.platform,
        machine=platform.machine(),
        tag=sys.implementation.cache_tag or "",
    )


def choose_package(
    board: Machine, *, mine: Machine, has_native: bool, has_sources: bool
) -> tuple[str, str]:
    """Say in which form the runtime goes to a board.

    Args:
        board: what it is.
        mine: what this machine is.
        has_native: whether the runtime here has its native part.
        has_sources: whether it runs from its sources.

    Returns:
        "compiled", "source" or "plain", and why it is plain, or "".
    """
    if has_native and board.runs_same(mine):
        return "compiled", ""
    if has_sources and board.compiler:
        return "source", ""
    if has_sources:
        return "plain", f"it was compiled for {_named(mine)}, and the board has no C++ compiler"
    return "plain", (
        f"it was compiled for {_named(mine)}, the board is {_named(board)}; put a wheel of onhand "
        f"for it into the folder of --wheels"
    )


def _named(machine: Machine) -> str:
    return f"{machine.system}, {machine.machine}, {machine.tag}"


def package_folder() -> Path:
    """Return the folder of the package that runs here."""
    return Path(onhand.__file__).resolve().parent


def has_native() -> bool:
    """Say whether the runtime here has its native part."""
    return any(path.suffix in _LIBRARIES for path in (package_folder() / "native").iterdir())


def source_root() -> Path | None:
    """Return the folder of the sources that the runtime runs from, or None."""
    root = package_folder().parents[1]
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = project.get("project", {}).get("name") == "onhand"
    return root if is_ours and (root / "CMakeLists.txt").is_file() else None


def installed_wheel(*, is_compiled: bool) -> tuple[str, bytes]:
    """Make a wheel of the package that runs here; the same files give the same bytes.

    Args:
        is_compiled: whether its native part goes into it, and its name says for what.

    Returns:
        The wheel's name and content.

    Raises:
        InputError: if the package here was not installed, so that nothing names its needs.
    """
    try:
        found = metadata.distribution("onhand")
    except metadata.PackageNotFoundError as error:
        raise InputError("onhand is not installed here, only found: pip install it") from error
    tag = "py3-none-any"
    if is_compiled:
        short = f"cp{sys.version_info.major}{sys.version_info.minor}"
        tag = f"{short}-{short}-{sys.platform}_{platform.machine()}"
    files = dict(_package_files(is_compiled=is_compiled))
    info = f"onhand-{found.version}.dist-info"
    about = (
        f"Wheel-Version: 1.0\nGenerator: onhand\nRoot-Is-Purelib: {str(not is_compiled).lower()}\n"
        f"Tag: {tag}\n"
    )
    files[f"{info}/METADATA"] = (found.read_text("METADATA") or "").encode()
    files[f"{info}/entry_points.txt"] = (found.read_text("entry_points.txt") or "").encode()
    files[f"{info}/WHEEL"] = about.encode()
    record = "".join(f"{n},sha256={_digest(c)},{len(c)}\n" for n, c in sorted(files.items()))
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    made = BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return f"onhand-{found.version}-{tag}.whl", made.getvalue()


def _package_files(*, is_compiled: bool) -> Iterator[tuple[str, bytes]]:
    folder = package_folder()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        is_left_out = "__pycache__" in inside.parts or inside.parts[:2] == ("native", "src")
        if is_left_out or not path.is_file():
            continue
        if is_compiled or path.suffix not in _LIBRARIES:
            yield f"onhand/{inside.as_posix()}", path.read_bytes()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def source_archive(root: Path) -> tuple[str, bytes]:
    """Pack the sources, for a board that compiles them; the same files give the same bytes.

    Args:
        root: the folder of the sources.

    Returns:
        The archive's name and content.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    top = f"onhand-{project['project']['version']}"
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=6) as archive:
        for path in _source_files(root):
            entry = tarfile.TarInfo(f"{top}/{path.relative_to(root).as_posix()}")
            content = path.read_bytes()
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    packed = bytearray(made.getvalue())
    packed[4:8] = bytes(4)  # gzip would write the time here
    return f"{top}.tar.gz", bytes(packed)


def _source_files(root: Path) -> Iterator[Path]:
    for name in _SOURCES:
        place = root / name
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            is_made = path.suffix in _LIBRARIES or "__pycache__" in path.parts
            if path.is_file() and not is_made:
                yield path


def wheels_for(folder: Path, board: Machine) -> list[Path]:
    """Return the packages of a folder that may be for a board.

    Args:
        folder: of wheels and source archives, for one machine or for several.
        board: what it is.

    Returns:
        The files, sorted by name.

    Raises:
        InputError: if there is no such folder, or none in it.
    """
    if not folder.is_dir():
        raise InputError(f"--wheels {folder}: is not a folder")
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and (path.name.endswith(".tar.gz") or _may_run(path, board))
    ]
    if not found:
        raise InputError(f"--wheels {folder}: holds no wheel for {board.machine}")
    return found


def _may_run(path: Path, board: Machine) -> bool:
    if path.suffix != ".whl":
        return False
    tags = path.stem.rpartition("-")[2]
    return tags == "any" or board.machine in tags
