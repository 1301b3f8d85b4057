"""Passes, engines and sources by name, our own and others', through entry points."""

import difflib
from importlib.metadata import entry_points

from onhand.core.errors import InputError

__all__ = [
    "ENGINES",
    "NETWORK_ENGINES",
    "NETWORK_PASSES",
    "NETWORK_SOURCES",
    "PASSES",
    "SOURCES",
    "load_plugin",
    "plugin_names",
]

ENGINES = "onhand.engines"
PASSES = "onhand.passes"
SOURCES = "onhand.sources"
NETWORK_ENGINES = "onhand.network_engines"
NETWORK_PASSES = "onhand.network_passes"
NETWORK_SOURCES = "onhand.network_sources"
_KINDS = {
    ENGINES: "engine",
    NETWORK_ENGINES: "engine",
    NETWORK_PASSES: "pass",
    NETWORK_SOURCES: "source",
    PASSES: "pass",
    SOURCES: "source",
}


def plugin_names(group: str) -> list[str]:
    """Return the names registered in a group, sorted, without loading anything."""
    return sorted({entry.name for entry in entry_points(group=group)})


def load_plugin(group: str, name: str) -> object:
    """Load one plugin.

    Args:
        group: one of the groups named above.
        name: as registered.

    Returns:
        What the entry point names: for engines and passes a class.

    Raises:
        InputError: if there is no such plugin, two packages claim its name, or it fails to load.
    """
    kind = _KINDS.get(group, group)
    found = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not found:
        known = plugin_names(group)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
        raise InputError(f"unknown {kind} {name!r}; {hint}")
    if len(found) > 1:
        raise InputError(f"{kind} {name!r} is claimed by {' and '.join(sorted(found))}; remove one")
    (entry,) = found.values()
    try:
        return entry.load()
    except Exception as error:  # another's module may raise anything while it is imported
        raise InputError(f"{kind} {name!r} ({entry.value}) cannot be loaded: {error}") from error
