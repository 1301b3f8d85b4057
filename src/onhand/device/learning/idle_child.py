"""The process that learns while a server is idle: one job on stdin, one line of JSON on stdout.

A second line on stdin is the key of a vault that this process cannot open by itself, or empty.

It yields to everything else, ends between two steps when it is told to (SIGTERM, or its parent's
end, which closes stdin), and loses none of them.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from onhand.core.errors import OnhandError, VaultError
from onhand.core.outside import parse_json
from onhand.device.learning.ceilings import Ceilings
from onhand.device.learning.gate import Bounds
from onhand.device.learning.settings import LearnSettings
from onhand.device.learning.suspicion import Limits
from onhand.device.learning.versions import learned_folder

__all__ = ["Job", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to learn, and what that may take; 0 or "" for no ceiling, no file, or the usual.

    Attributes:
        bundle: the bundle's folder.
        bundle_sha256: hash of its manifest.
        home: the state folder.
        method: as in `LearnSettings`, and so are the next ones.
        epochs: likewise.
        rate: likewise.
        held_out: share that judges.
        remember: a file.
        scope: whether the version is to have one; if not, as the one in use.
        threads: of one step.
        seconds: of steps.
        memory_bytes: of the process.
        energy_j: of steps.
        lowest_battery: charge from 0 to 1.
        cpu_share: above 0 to 1.
        most_lost_points: of the gate.
        most_lost_loss: of the gate.
        most_example_bytes: of one feedback.
    """

    bundle: str
    bundle_sha256: str
    home: str
    method: str
    epochs: int
    rate: float
    held_out: float
    remember: str
    scope: bool = False
    threads: int
    seconds: float
    memory_bytes: int
    energy_j: float
    lowest_battery: float
    cpu_share: float
    most_lost_points: float
    most_lost_loss: float
    most_example_bytes: int

    def rendered(self, key: str = "") -> bytes:
        """Return it as a line, and a second one for a vault's key.

        Args:
            key: of `onhand.device.vault.vault.handed_key`.
        """
        return f"{json.dumps(asdict(self), sort_keys=True)}\n{key}\n".encode()

    def settings(self) -> LearnSettings:
        """Return how it learns."""
        return LearnSettings(
            method=self.method,
            epochs=self.epochs,
            rate=self.rate or None,
            heldout=self.held_out,
            remember=Path(self.remember) if self.remember else None,
            scope=True if self.scope else None,
            memory="low",
            ceilings=Ceilings(
                seconds=self.seconds or None,
                memory_bytes=self.memory_bytes or None,
                energy_j=self.energy_j or None,
                battery_percent=100 * self.lowest_battery,
                cpu_share=self.cpu_share,
            ),
            bounds=Bounds(
                most_lost_points=self.most_lost_points, most_lost_loss=self.most_lost_loss
            ),
        )


def main() -> int:
    """Do the job on stdin.

    Returns:
        The exit code: 0 where the line says how it ended, also where it failed.
    """
    over = threading.Event()
    _end_when_told(over)
    job = Job(**_table(sys.stdin.buffer.readline()))  # type: ignore[arg-type] # as `rendered` wrote it
    key = sys.stdin.buffer.readline().decode("ascii", "replace").strip()
    threading.Thread(target=_watch_parent, args=(over,), daemon=True).start()
    _yield_to_others()
    said = _learned(job, key, over)
    sys.stdout.write(json.dumps(said, sort_keys=True) + "\n")
    sys.stdout.flush()
    return 0


def _learned(job: Job, key: str, over: threading.Event) -> Mapping[str, object]:
    from onhand.core.unsealing import unsealing
    from onhand.device.learning.taught import learn_from_feedback, note_failure
    from onhand.device.vault.handing import take_key
    from onhand.device.vault.recipients import DeviceUnsealer

    home = Path(job.home)
    try:
        take_key(home, key)
        with unsealing(DeviceUnsealer(lambda: home)):
            learned = learn_from_feedback(
                Path(job.bundle),
                home=home,
                settings=job.settings(),
                limits=Limits(most_bytes=job.most_example_bytes),
                threads=job.threads or None,
                is_interrupted=over.is_set,
            )
    except OnhandError as error:
        # Where the vault does not open, nothing can be noted there.
        with contextlib.suppress(VaultError):
            note_failure(learned_folder(home, job.bundle_sha256), str(error))
        return {"ended": "failed", "why": str(error)}
    if learned is None:
        return {"ended": "nothing", "why": "there is nothing to learn"}
    return {
        "ended": learned.ended,
        "is_accepted": learned.is_accepted,
        "is_judged": bool(learned.heldout or learned.past_heldout),
        "is_used": learned.is_used,
        "reasons": list(learned.reasons),
        "seconds": learned.seconds,
        "steps": learned.steps,
        "version": learned.version,
        "why": learned.why,
    }


def _table(content: bytes) -> dict[str, object]:
    value = parse_json(content)
    return dict(value) if isinstance(value, dict) else {}


def _end_when_told(over: threading.Event) -> None:
    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    for name in ("SIGTERM", "SIGINT"):
        signal.signal(getattr(signal, name), end)


def _watch_parent(over: threading.Event) -> None:
    # The parent writes nothing more: what ends this read is its end, or that of the pipe.
    # Not by the buffered reader: its lock is held at the end of the program then.
    os.read(sys.stdin.fileno(), 1)
    over.set()


def _yield_to_others() -> None:
    """Run only where nobody else wants to, as far as the system knows such a thing."""
    if hasattr(os, "nice"):
        os.nice(19)
        return
    import psutil

    psutil.Process().nice(psutil.IDLE_PRIORITY_CLASS)


if __name__ == "__main__":
    sys.exit(main())
