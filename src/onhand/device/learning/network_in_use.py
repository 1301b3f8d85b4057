"""A network with the version that is in use: what it answers with when it is opened here."""

import hashlib
from dataclasses import replace
from pathlib import Path

from onhand.core.bundle import Bundle
from onhand.device.learning.added import added_classes
from onhand.device.learning.in_use import InUse, choose_version, versions_of
from onhand.device.networks.learned import with_learned

__all__ = ["network_in_use"]


def network_in_use(
    bundle: Bundle, home: Path | None, wanted: int | None = None
) -> tuple[Bundle, InUse]:
    """Return a network's bundle with what it learned on this device.

    Args:
        bundle: a verified bundle of a network.
        home: the state folder; None where none is used.
        wanted: number of a version, 0 for the bundle as it was built; None for the one in use.

    Returns:
        bundle: the same where nothing was learned; else one whose graph has the learned tensors
            in it, and whose hash is its own: what was computed by another version is not reused.
        used: which version it is.

    Raises:
        InputError: if there is no such version.
        BundleCorrupt: if the version, or the lesson, is damaged.
        ResourceError: if the names of added classes cannot be read.
    """
    used, version = choose_version(bundle, home, wanted)
    if version is None or home is None:
        return bundle, used
    versions = versions_of(bundle, home)
    values = versions.values(version)
    trainables = versions.lesson.trainables
    grown = [
        len(value) - trainables[name].shape[0]
        for name, value in values.items()
        if trainables[name].grows
    ]
    n_added = max(grown, default=0)
    names = list(added_classes(versions.folder)[:n_added])
    # One that its gate refused may have classes that nobody knows by name.
    names += [f"new class {number}" for number in range(len(names) + 1, n_added + 1)]
    made = with_learned(bundle, values, labels=names)
    digest = hashlib.sha256(f"{bundle.manifest_sha256} {used.sha256}".encode()).hexdigest()
    return replace(made, manifest_sha256=digest), used
