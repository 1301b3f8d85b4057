"""The version counter of a bundle that was made of another one."""

from collections.abc import Mapping

__all__ = ["parent_version"]


def parent_version(provenance: Mapping[str, object]) -> int:
    """Return the version counter of the bundle that this one was made from; 0 for none.

    Args:
        provenance: of this one.
    """
    merged = provenance.get("merged")
    counter = merged.get("bundle_version") if isinstance(merged, Mapping) else 0
    return counter if isinstance(counter, int) else 0
