"""From settings to a server's state: models opened, caches at hand."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from onhand.core.errors import InputError, RecipeError
from onhand.device.privacy.opening import opened_redaction
from onhand.device.privacy.veil import Redaction
from onhand.device.serving.auditing import kept_audit
from onhand.device.serving.backends.figures import show_backends
from onhand.device.serving.backends.mounting import mounted
from onhand.device.serving.caches.block_figures import open_blocks
from onhand.device.serving.caches.exact import ExactCache
from onhand.device.serving.caches.gate.lexicon import OWN_LEXICON
from onhand.device.serving.caches.gate.wordnet import read_lexicon
from onhand.device.serving.caches.semantic import SemanticCache
from onhand.device.serving.caches.semantic_store import SemanticStore
from onhand.device.serving.feedback.desk import FeedbackDesk, show_learning
from onhand.device.serving.governor.starting import start_governor
from onhand.device.serving.metrics import Metrics
from onhand.device.serving.models.opening import open_served
from onhand.device.serving.models.shelf_metrics import show_shelf
from onhand.device.serving.routing.building import routed
from onhand.device.serving.routing.counts import show_outbox
from onhand.device.serving.routing.desk import Desk
from onhand.device.serving.routing.outbox import Outbox
from onhand.device.serving.routing.settings import OutboxSettings
from onhand.device.serving.routing.waiting import Waiting
from onhand.device.serving.settings import (
    CacheSettings,
    ModelSettings,
    ServeSettings,
    is_model_name,
    parse_settings,
)
from onhand.device.serving.shelving import encoder_of, open_at_start, opened_shelf, shelved_models
from onhand.device.serving.state import Served, ServerState
from onhand.device.serving.unsealed import remove_plain_caches, waiting_secret
from onhand.device.vault.above import unsealed_here
from onhand.device.vault.cells import PLAIN, Cells, SealedCells
from onhand.device.vault.handing import vault_sentence
from onhand.device.vault.vault import open_vault

__all__ = ["opened_outbox", "opened_state", "read_settings", "with_bundles"]


def read_settings(path: Path, *, environment: Mapping[str, str]) -> ServeSettings:
    """Read `serve.toml`.

    Args:
        path: the file.
        environment: where keys may stand.

    Returns:
        The settings.

    Raises:
        InputError: if it cannot be read.
        RecipeError: as in `parse_settings`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: cannot be read: it is not UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_settings(text, environment=environment, where=str(path))


def with_bundles(settings: ServeSettings, bundles: Sequence[Path]) -> ServeSettings:
    """Return settings that serve some bundles before all others.

    Args:
        settings: the others.
        bundles: folders; each is called as its folder is, which is the name that was just typed.
            Where that cannot be a model's name, as the bundle itself says.

    Raises:
        InputError: if there is nothing to serve.
    """
    added = tuple(ModelSettings(bundle=str(one), name=_called(one)) for one in bundles)
    if not (*added, *settings.models, *settings.backends):
        raise InputError("there is no model to serve; name a bundle's folder, or give settings")
    return replace(settings, models=(*added, *settings.models))


def _called(bundle: Path) -> str:
    name = bundle.absolute().name  # of a link its own
    return name if is_model_name(name) else ""


@contextmanager
def opened_state(
    settings: ServeSettings, *, home: Path, told: Callable[[str], None]
) -> Iterator[ServerState]:
    """Open all that settings name, and close it with the block.

    Args:
        settings: what to serve.
        home: the state folder.
        told: of each model and its engine, as they are opened.

    Yields:
        What requests share.

    Raises:
        OnhandError: if a bundle cannot be opened here.
    """
    with ExitStack() as opened:
        _tell_of_vault(home, told)
        blocks = open_blocks(settings.cache, home)
        if blocks is not None:
            opened.callback(blocks.close)
        open_model = partial(open_served, blocks=blocks)
        shelf = opened.enter_context(opened_shelf(settings, home=home, open_model=open_model))
        models = shelved_models(shelf, settings)
        served, remotes = mounted(models, settings)
        open_at_start(shelf, told=told)
        for backend in remotes.backends:
            told(f"{backend.name}: {backend.kind} for {', '.join(backend.settings.models)}")
        metrics = Metrics()
        redaction = _redaction(settings, opened, home, told) if remotes.backends else None
        routes = routed(served, settings, metrics=metrics, redaction=redaction)
        exact = _exact_cache(settings.cache, home)
        state = ServerState(
            routes,
            metrics=metrics,
            exact=exact,
            blocks=blocks,
            semantic=_semantic_cache(settings.cache, models, home),
            beside=[remotes],
        )
        opened.callback(state.close)
        show_backends(metrics, remotes, served)
        show_shelf(shelf, metrics)
        if settings.outbox.most_bytes and settings.backends:
            outbox = opened_outbox(settings.outbox, home=home, metrics=metrics)
            opened.callback(outbox.close)
            waiting = Waiting(waiting_secret(home))
            state.beside.append(Desk(outbox, state, settings.outbox, waiting=waiting))
        if settings.learning.enabled:
            state.feedback = FeedbackDesk(state, settings.learning, home=home)
            state.beside.append(state.feedback)
            show_learning(state.feedback, metrics)
        if settings.audit.enabled:
            state.audit = opened.enter_context(
                kept_audit(settings.audit, home, metrics=metrics, told=told)
            )
        if settings.governor.enabled:
            start_governor(state, settings.governor)
        yield state


def _tell_of_vault(home: Path, told: Callable[[str], None]) -> None:
    told(vault_sentence(home))
    if open_vault(home) is not None:
        remove_plain_caches(home)


def _redaction(
    settings: ServeSettings, opened: ExitStack, home: Path, told: Callable[[str], None]
) -> Redaction | None:
    redaction = opened.enter_context(opened_redaction(settings.redaction, home=home))
    if redaction is None:
        told("privacy: nothing takes personal data out of requests of the class redact")
    elif redaction.names is None:
        told("privacy: names of persons are not found: [privacy] names no bundle that finds them")
    return redaction


def opened_outbox(settings: OutboxSettings, *, home: Path, metrics: Metrics) -> Outbox:
    """Open what is answered later.

    Args:
        settings: how much it holds.
        home: the state folder.
        metrics: where it is counted.

    Returns:
        The outbox; close it.

    Raises:
        InputError: if there is one in the clear, and a vault.
        ResourceError: if it cannot be read or written.
    """
    cells = _cells(home, "outbox")
    plain = home / "outbox" / "requests.sqlite"

    def opened() -> Outbox:
        return Outbox(
            plain if cells is PLAIN else plain.with_name("sealed.sqlite"),
            most_bytes=settings.most_bytes,
            most_waiting=settings.most_waiting,
            cells=cells,
        )

    if cells is not PLAIN and plain.exists():
        # Sent as this server's own, it would be an order of whoever put it there.
        raise InputError(unsealed_here(plain))
    outbox = opened()
    show_outbox(metrics, outbox)
    return outbox


def _exact_cache(settings: CacheSettings, home: Path) -> ExactCache | None:
    if not settings.exact_bytes:
        return None
    if not settings.on_disk:
        return ExactCache(None, most_bytes=settings.exact_bytes)
    cells = _cells(home, "responses")
    place = home / "cache" / ("answers.sqlite" if cells is PLAIN else "sealed-answers.sqlite")
    return ExactCache(place, most_bytes=settings.exact_bytes, cells=cells)


def _cells(home: Path, store: str) -> Cells:
    vault = open_vault(home)
    if vault is None:
        return PLAIN
    return SealedCells(vault.keys(store), naming=vault.first_key(store))


def _semantic_cache(
    settings: CacheSettings, models: Sequence[Served], home: Path
) -> SemanticCache | None:
    if not settings.semantic_encoder or not settings.semantic_bytes:
        return None
    encoder = encoder_of(settings, models)
    words = read_lexicon(Path(settings.semantic_words)) if settings.semantic_words else OWN_LEXICON
    cells = _cells(home, "responses") if settings.on_disk else PLAIN
    name = "questions.sqlite" if cells is PLAIN else "sealed-questions.sqlite"
    store = SemanticStore(
        home / "cache" / name if settings.on_disk else None,
        cells=cells,
        encoder=encoder.name,
        most_bytes=settings.semantic_bytes,
        closeness=settings.closeness,
        words=words,
    )
    return SemanticCache(store, encoder, models=settings.semantic_models)
