"""A build's own folder beside the bundle: what is finished, so that a build can be resumed.

`NAME.building` holds the fingerprint of the build, what each shaping pass gave, the statistics and
states of the layers that were run, every finished matrix, and the staged bundle. It is removed
when the build ends.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from onhand.core.errors import InputError, OnhandError, ResourceError
from onhand.core.quantized import GroupFormat, QuantTensor
from onhand.host.array_files import damage, read_arrays, write_arrays
from onhand.host.calibrate import has_run
from onhand.host.passes.base import Matrix, MatrixLoss

__all__ = ["BuildWork", "FinishedMatrices", "open_work", "work_folder"]

_FINGERPRINT = "fingerprint.json"
_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class FinishedMatrices:
    """The finished matrices of one variant, a file for each.

    Attributes:
        folder: where they are; made when the first one is kept.
    """

    folder: Path

    def keep(self, matrix: Matrix) -> None:
        """Write a matrix; it is there as a whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensor = matrix.tensor
        arrays: dict[str, np.ndarray] = {"codes": tensor.codes, "scales": tensor.scales}
        if tensor.zeros is not None:
            arrays["zeros"] = tensor.zeros
        about = {
            "shape": tensor.shape,
            "format": asdict(tensor.format),
            "loss": asdict(matrix.loss),
        }
        write_arrays(self._place(matrix.loss.name), arrays, about)

    def __contains__(self, name: str) -> bool:
        """Say whether a matrix is finished."""
        return self._place(name).is_file()

    def find(self, name: str) -> Matrix:
        """Read a finished matrix.

        Raises:
            ResourceError: if the file is not whole.
        """
        place = self._place(name)
        arrays, about = read_arrays(place)
        try:
            rows, columns = about["shape"]
            tensor = QuantTensor(
                shape=(rows, columns),
                format=GroupFormat(**about["format"]),
                codes=arrays["codes"],
                scales=arrays["scales"],
                zeros=arrays.get("zeros"),
            )
            return Matrix(tensor=tensor, loss=MatrixLoss(**about["loss"]))
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise ResourceError(damage(place)) from error

    def _place(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildWork:
    """The folder of one build.

    Attributes:
        root: the folder.
    """

    root: Path

    @property
    def original(self) -> Path:
        """Folder of what running the original gave: see `run_original`."""
        return self.root / "original"

    @property
    def shaped(self) -> Path:
        """Folder of what each shaping pass gave: see `shape_model`."""
        return self.root / "shaped"

    @property
    def matrices(self) -> Path:
        """Folder of the finished matrices, with one for each variant."""
        return self.root / "matrices"

    @property
    def steps(self) -> Path:
        """Folder of the finished steps of a network's recipe, with one for each variant."""
        return self.root / "steps"

    @property
    def ablation(self) -> Path:
        """Folder of the builds without one technique each."""
        return self.root / "ablation"

    @property
    def search(self) -> Path:
        """Folder of what a search measured: a file for each point that was built."""
        return self.root / "search"

    def has_finished(self) -> bool:
        """Say whether anything is finished that a resumed build would take up."""
        kept = (self.matrices, self.steps, self.shaped, self.search)
        return has_run(self.original) or any(folder.exists() for folder in kept)


def work_folder(out: Path) -> Path:
    """Return the folder that a build of a bundle works in.

    Args:
        out: the bundle's folder.
    """
    return out.with_name(f"{out.name}.building")


@contextmanager
def open_work(out: Path, fingerprint: Mapping[str, Any], *, resume: bool) -> Iterator[BuildWork]:
    """Give a build its folder; remove it unless the build was interrupted and can be resumed.

    Args:
        out: the bundle's folder.
        fingerprint: what decides the bundle's bytes: a JSON object.
        resume: whether to take up what an interrupted build left.

    Yields:
        The folder.

    Raises:
        InputError: if another build holds the folder, there is one to resume but `resume` is
            False, or the interrupted build was another one.
        ResourceError: if the disk is full.
        OnhandError: what the build raises.
    """
    root = work_folder(out)
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is in the way: a build keeps its work there; remove it")
    with _locked(root):
        work = BuildWork(root=root)
        keep = True
        if (root / _FINGERPRINT).exists():
            _compare(root, fingerprint, resume=resume)
        try:
            _begin(work, fingerprint)
            yield work
            keep = False
        except ResourceError as error:
            if work.has_finished():
                raise ResourceError(
                    f"{error}; what is finished is kept in {root}: go on with --resume, "
                    "or remove it"
                ) from error
            raise
        except OnhandError:
            keep = False
            raise
        finally:
            if not keep or not work.has_finished():
                shutil.rmtree(root, ignore_errors=True)


def _begin(work: BuildWork, fingerprint: Mapping[str, Any]) -> None:
    """Write the fingerprint of a new build, and drop what a killed one had only begun.

    Raises:
        ResourceError: if the disk is full.
    """
    try:
        work.original.mkdir(exist_ok=True)
        place = work.root / _FINGERPRINT
        beside = place.with_suffix(".new")
        beside.write_text(json.dumps(fingerprint), encoding="utf-8")
        beside.replace(place)
        for staged in work.root.glob(".*.building-*"):
            shutil.rmtree(staged)
    except OSError as error:
        raise ResourceError(f"{work.root}: cannot be written: {error.strerror}") from error


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Make the folder if need be and hold its lock.

    Raises:
        InputError: if another build holds it.
        ResourceError: if the disk is full.
    """
    try:
        root.mkdir(exist_ok=True)
        lock = (root / _LOCK).open("w")
    except OSError as error:
        raise ResourceError(f"{root}: cannot be written: {error.strerror}") from error
    with lock:
        _take(lock, root)
        yield


def _take(lock: IO[str], root: Path) -> None:
    """Hold the folder; the system lets go of it when the process ends, however it ends.

    Raises:
        InputError: if another process holds it.
    """
    try:
        if os.name == "nt":  # pragma: no cover
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(
            f"another build works in {root}; wait for it, or choose another name"
        ) from error


def _compare(root: Path, fingerprint: Mapping[str, Any], *, resume: bool) -> None:
    """Hold an interrupted build's fingerprint against this one's.

    Raises:
        InputError: if it is not to be resumed, or differs.
    """
    if not resume:
        raise InputError(
            f"{root} holds an interrupted build: go on with --resume, or remove that folder"
        )
    try:
        found = json.loads((root / _FINGERPRINT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{root / _FINGERPRINT} is damaged; remove {root} and build anew")
    wanted = json.loads(json.dumps(fingerprint))
    differing = [
        f"{name} (it was {json.dumps(found.get(name))}, now {json.dumps(wanted.get(name))})"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise InputError(
            f"{root} holds another build; these differ: {'; '.join(differing)}; "
            "build with what it was begun with, or remove that folder"
        )
