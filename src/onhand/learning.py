"""Teaching a bundle from Python, and what a device has learned of it."""

from pathlib import Path
from typing import TYPE_CHECKING

from onhand.deciding import decided

if TYPE_CHECKING:
    from onhand.core.progress import Progress
    from onhand.device.learning.learned import Learned
    from onhand.device.learning.settings import LearnSettings
    from onhand.device.learning.versions import Versions

__all__ = ["learn", "open_versions"]


@decided(checks=True)
def learn(
    path: str | Path,
    data: str | Path,
    *,
    settings: "LearnSettings | None" = None,
    method: str = "replay",
    threads: int | None = None,
    home: str | Path | None = None,
    progress: "Progress | None" = None,
) -> "Learned":
    """Teach a bundle on this device. See `onhand.device.learning.learn`.

    Args:
        path: the bundle's folder; it was built with something to learn.
        data: a file or a folder of examples, see `onhand.device.learning.example_files`.
        settings: all that `onhand learn` takes; None for the usual.
        method: how it learns without forgetting, where no settings are given.
        threads: of one step; None for what this process may use.
        home: the state folder, which keeps what was learned; None for the user's own.
        progress: told how far it is; None shows nothing.

    Returns:
        What came of it. The same call again goes on where an earlier one was broken off.

    Raises:
        OnhandError: if the bundle cannot learn, or the examples do not fit it.
    """
    from onhand.device.learning.learn import learn
    from onhand.device.learning.settings import LearnSettings
    from onhand.device.state import default_home

    where = default_home() if home is None else Path(home)
    chosen = settings or LearnSettings(method=method)
    return learn(path, data, settings=chosen, home=where, threads=threads, progress=progress)


def open_versions(path: str | Path, *, home: str | Path | None = None) -> "Versions":
    """Return what a device has learned of a bundle. See `onhand.device.learning.versions`.

    Args:
        path: the bundle's folder.
        home: the state folder; None for the user's own.

    Raises:
        OnhandError: if there is no bundle, or it can learn nothing.
    """
    from onhand.device.learning.in_use import open_versions
    from onhand.device.state import default_home

    return open_versions(Path(path), default_home() if home is None else Path(home))
