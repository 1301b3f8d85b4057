"""What tells models apart that may answer differently."""

from onhand.device.learning.in_use import InUse
from onhand.device.serving.settings import ModelSettings

__all__ = ["fingerprint_of", "fingerprint_with"]


def fingerprint_of(
    settings: ModelSettings, bundle_sha256: str, *, engine_name: str, context: int
) -> str:
    """Return what tells models apart that may answer differently.

    Args:
        settings: how a bundle is opened.
        bundle_sha256: hash of its manifest.
        engine_name: another engine rounds otherwise.
        context: most tokens of prompt and answer together.

    Returns:
        All that answers depend on beside the request.
    """
    ways = (settings.variant, engine_name, settings.head, settings.kv, settings.prefill)
    return repr((bundle_sha256, *ways, context))


def fingerprint_with(as_built: str, learned: InUse) -> str:
    """Return the fingerprint of a model with a learned version; the same for the bundle alone.

    Args:
        as_built: of the bundle as it was built.
        learned: the version.
    """
    return f"{as_built} {learned.sha256}" if learned.sha256 else as_built
