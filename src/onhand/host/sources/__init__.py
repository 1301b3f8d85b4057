"""Where models come from; one file for each kind of place."""

from pathlib import Path

from onhand.core.bundle import MANIFEST
from onhand.core.errors import SourceError
from onhand.core.plugins import SOURCES, load_plugin, plugin_names
from onhand.host.bundle_source import load_bundle
from onhand.host.model import Model, Source

__all__ = ["load_model"]


def load_model(location: str) -> Model:
    """Open a model with the first source that understands the location.

    Args:
        location: a folder, or an id on a hub; a bundle's folder gives what it holds.

    Returns:
        The model; its weights are read later, one by one.

    Raises:
        SourceError: if no source understands it, or the model is unknown, incomplete or damaged.
        ResourceError: if a hub is needed and cannot be reached.
    """
    if (Path(location) / MANIFEST).is_file():
        return load_bundle(Path(location))
    reasons: list[str] = []
    for name in plugin_names(SOURCES):
        made = load_plugin(SOURCES, name)
        if not callable(made):
            raise SourceError(f"source {name!r} is not a class")
        source: Source = made()
        reason = source.why_not(location)
        if reason is None:
            return source.load(location)
        reasons.append(f"{name}: {reason}")
    raise SourceError(f"{location}: no source understands it: {'; '.join(reasons)}")
