"""From settings to a shelf: models at hand, opened as the settings say, and what would fit."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onhand.core.errors import InputError
from onhand.core.units import format_bytes
from onhand.device.resident import resident_bytes
from onhand.device.serving.caches.settings import CacheSettings
from onhand.device.serving.models.facts import Facts
from onhand.device.serving.models.network import NetworkModel
from onhand.device.serving.models.opener import OpenServed
from onhand.device.serving.models.opening import open_served
from onhand.device.serving.models.shelf import Shelf
from onhand.device.serving.models.shelved import ShelvedModel, ShelvedNetwork, shelved
from onhand.device.serving.models.versions import Entry
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.state import Served

__all__ = ["encoder_of", "open_at_start", "opened_shelf", "shelved_models", "what_fits"]


@contextmanager
def opened_shelf(
    settings: ServeSettings,
    *,
    home: Path,
    open_model: OpenServed = open_served,
    resident: Callable[[], int] = resident_bytes,
    has_thread: bool = True,
) -> Iterator[Shelf]:
    """Give an empty shelf, and close all that is on it at the end of the block.

    Args:
        settings: how much memory there is, and how it is shared.
        home: the state folder.
        open_model: opens a bundle.
        resident: memory that this process has in use.
        has_thread: False where nothing will be opened.

    Yields:
        The shelf.

    Raises:
        InputError: if caches in memory leave nothing for models.
    """
    shelf = Shelf(
        settings.shelf,
        memory_bytes=settings.server.memory_bytes,
        home=home,
        open_model=open_model,
        resident=resident,
        has_thread=has_thread,
    )
    try:
        if settings.cache.exact_bytes and not settings.cache.on_disk:
            shelf.set_aside(settings.cache.exact_bytes)
        if settings.cache.blocks_bytes and settings.cache.on_disk:
            shelf.set_aside(settings.cache.warm_bytes)
        if settings.cache.semantic_encoder:
            shelf.set_aside(settings.cache.semantic_bytes)
        yield shelf
    finally:
        shelf.close()


def shelved_models(shelf: Shelf, settings: ServeSettings) -> list[ShelvedModel | ShelvedNetwork]:
    """Return all models of the settings, none of which is open.

    Args:
        shelf: where they will be opened.
        settings: which.

    Returns:
        The models, in the order of the settings.

    Raises:
        OnhandError: if a bundle is not there, or cannot be run here.
    """
    return [shelved(shelf, shelf.add(one)) for one in settings.models]


def open_at_start(shelf: Shelf, *, told: Callable[[str], None]) -> None:
    """Open those models that the settings want open, as long as there is room.

    Args:
        shelf: whose.
        told: of each model, and how it stands.

    Raises:
        OnhandError: if one cannot be opened here, or does not fit even alone.
    """
    for entry in shelf.entries:
        told(f"{entry.name}: {_opened(shelf, entry)}")


def _opened(shelf: Shelf, entry: Entry) -> str:
    if entry.settings.load == "demand":
        return "is opened when it is asked"
    if shelf.fits_alone(entry) and not shelf.fits_beside(entry):
        return "there is no room for it beside the others; is opened when it is asked"
    shelf.open_now(entry)
    return f"engine {entry.place().facts.engine_name}"


def encoder_of(
    settings: CacheSettings, models: Sequence[Served], *, others: Collection[str] = ()
) -> NetworkModel:
    """Return the model by whose vectors questions are compared.

    Args:
        settings: that name it, and whose answers are kept.
        models: what is served.
        others: names of models that other servers answer for.

    Raises:
        InputError: if there is no model of such a name, or it computes no vectors of texts.
    """
    named = {model.name: model for model in models}
    known = sorted({*named, *others})
    for name in (settings.semantic_encoder, *settings.semantic_models):
        if name not in known:
            raise InputError(f"cache: there is no model {name!r} here, but {', '.join(known)}")
    encoder = named.get(settings.semantic_encoder)
    if not isinstance(encoder, NetworkModel) or encoder.task != "text-embedding":
        wanted = f"semantic_encoder {settings.semantic_encoder!r}"
        raise InputError(f"cache: {wanted} must be a bundle for text-embedding")
    return encoder


def what_fits(settings: ServeSettings, *, home: Path) -> Iterator[str]:
    """Say what the models are likely to take, and whether there is room, without opening any.

    Args:
        settings: which models, and how much memory there is.
        home: the state folder.

    Yields:
        Sentences: of the budget, then of each model.

    Raises:
        OnhandError: as in `shelved_models` and `encoder_of`.
    """
    with opened_shelf(settings, home=home, has_thread=False) as shelf:
        left = shelf.total_bytes - sum(shelf.taken_bytes().values())
        room = left
        yield f"memory: {format_bytes(room)} for models and conversations"
        models = shelved_models(shelf, settings)
        if settings.cache.semantic_encoder and settings.cache.semantic_bytes:
            far = [name for one in settings.backends for name in one.serves or (one.name,)]
            encoder_of(settings.cache, models, others=far)
        for model in models:
            facts = model.entry.place().facts
            verdict = "fits"
            if facts.least_bytes > room:
                verdict = "does not fit, even alone"
            elif model.entry.settings.load == "demand":
                verdict = "fits, when it is asked"
            elif facts.least_bytes > left:
                verdict = "fits, but not beside those above: is opened when it is asked"
            else:
                left -= facts.footprint.idle_bytes
            yield f"{facts.name}: engine {facts.engine_name}, {_size(facts)}: {verdict}"


def _size(facts: Facts) -> str:
    size = f"about {format_bytes(facts.footprint.idle_bytes)}"
    if facts.is_network:
        return size
    full = format_bytes(facts.footprint.session_bytes(facts.context))
    return f"{size} and {full} for a conversation of {facts.context} tokens"
