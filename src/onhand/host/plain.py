"""Bundles whose weights are about to be written in plain."""

from pathlib import Path

from onhand.core.bundle import Bundle, read_bundle
from onhand.core.errors import InputError

__all__ = ["read_plain_bundle"]


def read_plain_bundle(root: Path) -> Bundle:
    """Read a bundle of which another one, a file or a copy will be made, in plain.

    Args:
        root: the bundle's folder.

    Returns:
        The verified bundle.

    Raises:
        InputError: if it is sealed: what is sealed does not come to the disk in plain.
    """
    bundle = read_bundle(root)
    if bundle.sealed is not None:
        raise InputError(
            f"{root}: is sealed, and what is made of it here would lie on the disk in plain; use "
            "the bundle that it was sealed from"
        )
    return bundle
