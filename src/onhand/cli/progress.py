"""Progress of long work on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from onhand.cli.output import printable, say
from onhand.core.progress import Progress
from onhand.core.units import format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["Lines", "shown_progress"]

_EVERY_S: Final = 10.0


class Lines:
    """A line at the start of each stage, one at its end, and few between. See `Progress`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._begun = self._said = 0.0
        self._total = self._done = self._skipped = 0.0

    def start(self, what: str, total: float) -> None:
        """Say what begins."""
        self.finish()
        self._stage, self._begun = what, self._clock()
        self._total, self._said = total, self._begun
        self._done = self._skipped = 0.0
        say(f"{what} ...")

    def advance(self, amount: float) -> None:
        """Say how far it is and how long still, every few seconds: a log needs no bar."""
        now = self._clock()
        if self._done == 0.0 and amount > 1:
            # What an earlier run did tells nothing of this one's pace.
            self._skipped = amount
        self._done += amount
        made, left = self._done - self._skipped, self._total - self._done
        if now - self._said < _EVERY_S or made <= 0 or left <= 0:
            return
        self._said = now
        still = format_seconds((now - self._begun) / made * left)
        say(f"{self._stage}: {self._done / self._total:.0%}, about {still} still")

    def note(self, text: str) -> None:
        """Say it."""
        say(f"note: {text}")

    def finish(self) -> None:
        """Say that the stage is done, and how long it took."""
        if self._stage:
            say(f"{self._stage}: done in {format_seconds(self._clock() - self._begun)}")
        self._stage = ""


class Bar:
    """One bar for each stage: what, how far, how long still. See `Progress`."""

    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._stage: TaskID | None = None
        self._total = 0.0

    def start(self, what: str, total: float) -> None:
        """Fill the bar before and begin another."""
        self.finish()
        self._stage = self._bars.add_task(printable(what), total=total)
        self._total = total

    def advance(self, amount: float) -> None:
        """Move the bar."""
        if self._stage is not None:
            self._bars.advance(self._stage, amount)

    def note(self, text: str) -> None:
        """Say it above the bars."""
        self._bars.console.print(
            f"note: {printable(text)}", markup=False, highlight=False, soft_wrap=True
        )

    def finish(self) -> None:
        """Fill the bar of the stage that is done."""
        if self._stage is not None:
            self._bars.update(self._stage, completed=self._total)
        self._stage = None


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Show progress on stderr while the block runs.

    Yields:
        What long work tells its progress to.
    """
    if not sys.stderr.isatty():
        lines = Lines()
        yield lines
        lines.finish()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    # Rich would otherwise send what the command prints on stdout to its own console.
    with Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bars:
        bar = Bar(bars)
        yield bar
        bar.finish()
