"""What tells models apart that may answer differently."""

from onhand.device.serving.settings import ModelSettings

__all__ = ["fingerprint_of"]


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
