"""What passes that change a model look at: the inputs of its matrices on the calibration text."""

from typing import Final

from onhand.host.calibrate import InputStatistics, run_original
from onhand.host.model import Model
from onhand.host.passes.base import ShapeWork

__all__ = ["STATISTICS", "observe_inputs"]

STATISTICS: Final = "statistics"
"""Folder of what was observed, in the pass's own."""


def observe_inputs(model: Model, work: ShapeWork) -> InputStatistics:
    """Run a model on the calibration text; what was finished before is taken up.

    Args:
        model: as the pass was given it.
        work: the pass's own.

    Returns:
        Second moments of the inputs of every matrix.

    Raises:
        InputError: if what is kept is of another run.
    """
    folder = work.folder / STATISTICS
    folder.mkdir(parents=True, exist_ok=True)
    return run_original(
        model,
        calibration=work.calibration,
        heldout=(),
        threads=work.threads,
        progress=work.progress,
        whole=True,
        folder=folder,
    ).statistics
