"""Which bundle and version answers, as records of requests name it."""

from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.models.network import ServedNetwork
from onhand.device.serving.models.shelved import ShelvedModel, ShelvedNetwork

__all__ = ["version_facts"]


def version_facts(model: object) -> dict[str, str | float]:
    """Return the hash of a model's bundle, and the number of what it learned.

    Args:
        model: of this device; of others nothing is known.

    Returns:
        "bundle" and "version", or nothing.
    """
    if isinstance(model, ShelvedModel | ShelvedNetwork | LocalModel | ServedNetwork):
        return {"bundle": model.bundle_sha256, "version": model.learned.number}
    return {}
