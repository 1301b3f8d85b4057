"""A progress that remembers what it was told, and may stop the work."""

__all__ = ["Recorder"]


class Recorder:
    """Remembers what it is told; may raise in the middle of a stage. See `Progress`."""

    def __init__(
        self, stop_in: str = "", *, error: BaseException | None = None, after: int = 0
    ) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []
        self.done = 0.0
        self.total = 0.0
        self.unfinished: list[str] = []
        self._stop_in = stop_in
        self._error = error or KeyboardInterrupt()
        self._after = after

    def start(self, what: str, total: float) -> None:
        """Begin a stage."""
        self._close()
        assert total > 0
        self.stages.append(what)
        self.done, self.total = 0.0, total

    def advance(self, amount: float) -> None:
        """Count, or stop everything."""
        self.done += amount
        if self._stop_in and self._stop_in in self.stages[-1]:
            self._after -= 1
            if self._after < 0:
                raise self._error

    def note(self, text: str) -> None:
        """Remember."""
        self.notes.append(text)

    def _close(self) -> None:
        if self.stages and abs(self.done - self.total) > 1e-6 * self.total:
            self.unfinished.append(f"{self.stages[-1]}: {self.done} of {self.total}")
