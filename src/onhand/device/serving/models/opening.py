"""From settings to models that answer."""

import logging
from pathlib import Path

from onhand.core.bundle import read_manifest
from onhand.core.errors import OnhandError
from onhand.core.manifest import NETWORK
from onhand.device.engines.base import KvKind
from onhand.device.engines.choosing import HeadUse, PrefillUse
from onhand.device.opening import open_bundle
from onhand.device.serving.caches.blocks import BlockStore
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.models.memory import SessionMemory, UnboundedMemory
from onhand.device.serving.models.network import ServedNetwork, open_network_model
from onhand.device.serving.settings import ModelSettings

__all__ = ["open_served"]

_LOG = logging.getLogger("onhand.serving")


def open_served(
    settings: ModelSettings,
    *,
    home: Path | None = None,
    memory: SessionMemory = UnboundedMemory(),  # noqa: B008 (it has no state)
    blocks: BlockStore | None = None,
) -> LocalModel | ServedNetwork:
    """Open a bundle for serving, whatever it holds.

    Args:
        settings: which, and how.
        home: the state folder; None for the user's own, and for no trial of a language model.
        memory: where the key/value memory of answers is asked for.
        blocks: where what conversations remember is kept on the disk; None for nowhere.

    Returns:
        The model; close it.

    Raises:
        OnhandError: if it cannot be opened here, as `onhand.open` or `onhand.open_network` says.
    """
    manifest, _ = read_manifest(Path(settings.bundle))
    if manifest.kind == NETWORK:
        return open_network_model(settings, manifest.name, home=home)
    return _open_local(settings, memory, blocks, home=home)


def _open_local(
    settings: ModelSettings,
    memory: SessionMemory,
    blocks: BlockStore | None,
    *,
    home: Path | None,
) -> LocalModel:
    head: HeadUse = settings.head  # type: ignore[assignment] # checked where it is used
    prefill: PrefillUse = settings.prefill  # type: ignore[assignment]
    kv: KvKind | None = settings.kv or None  # type: ignore[assignment]
    opened = open_bundle(
        Path(settings.bundle),
        variant=settings.variant or None,
        engine=settings.engine or None,
        threads=settings.threads or None,
        head=head,
        kv=kv,
        prefill=prefill,
        version=settings.version_number,
        home=home,
        trials=settings.trials,
    )
    if opened.choice is not None:
        name = settings.name or opened.bundle.manifest.name
        _LOG.info("model %s: %s", name, opened.choice.sentence())
        for engine, reason in opened.passed_over.items():
            _LOG.info("model %s: %s is not used: %s", name, engine, reason)
    try:
        return LocalModel(opened, settings, memory=memory, blocks=blocks)
    except OnhandError:
        opened.loaded.close()
        raise
