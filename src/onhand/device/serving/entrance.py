"""Before a server takes requests: its keys and its certificate at hand, or it does not start."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path

from onhand.core.errors import InputError
from onhand.device.access.doorkeeper import Doorkeeper
from onhand.device.access.settings import LOOPBACK
from onhand.device.access.store import KeyStore
from onhand.device.serving.settings import ANONYMOUS, NetworkSettings, ServeSettings

__all__ = ["doorkeeper_of", "opened_doorkeeper", "tls_context"]


def doorkeeper_of(settings: ServeSettings, store: KeyStore | None = None) -> Doorkeeper:
    """Return who admits requests; without keys and without `open`, nobody is admitted.

    Args:
        settings: their keys, and whether every program on this device may ask.
        store: the keys of the state folder; None for none.
    """
    is_open = settings.access.open and settings.server.host in LOOPBACK
    return Doorkeeper(
        store,
        digests=settings.tenants,
        managers=settings.managers,
        everybody=ANONYMOUS if is_open else None,
    )


def opened_doorkeeper(
    settings: ServeSettings,
    *,
    home: Path,
    told: Callable[[str], None],
    now: Callable[[], float] = time.time,
) -> Doorkeeper:
    """Make ready who admits requests; the first start makes a key for this device's own user.

    Args:
        settings: where it listens, and its keys.
        home: the state folder.
        told: how to get a key, or that none is needed.
        now: seconds since 1970.

    Raises:
        InputError: if others than this device could ask without a key, or the keys are damaged.
        ResourceError: if the keys cannot be read or written.
    """
    store = KeyStore(home)
    n_keys = sum(one.state(now()) == "valid" for one in store.listed()) + len(settings.tenants)
    if settings.server.host not in LOOPBACK:
        if settings.access.open:
            raise InputError(
                f"host is {settings.server.host!r} and [access] is open: whoever reaches this "
                "device could ask; make keys by onhand keys add, and leave open out"
            )
        if not n_keys:
            raise InputError(
                f"host is {settings.server.host!r}, and there is no key: make one by onhand keys "
                "add NAME before others can reach this server"
            )
        return doorkeeper_of(settings, store)
    if settings.access.open:
        told("no key is asked for: every program on this device may ask")
        return doorkeeper_of(settings, store)
    if not n_keys:
        path, _ = store.local_token(now_s=now())
        told(f"this device's own key is in {path} (onhand keys local shows it)")
    return doorkeeper_of(settings, store)


def tls_context(settings: NetworkSettings) -> ssl.SSLContext | None:
    """Return how connections are secured: TLS 1.3 and nothing older; None for not at all.

    Args:
        settings: the files; where `client_ca` is given, callers without a certificate of it are
            not heard.

    Raises:
        InputError: if a file cannot be read, or does not hold what it should.
    """
    if not settings.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(settings.certificate, settings.certificate_key)
        if settings.client_ca:
            context.load_verify_locations(cafile=settings.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"{settings.certificate}, {settings.certificate_key}, {settings.client_ca or 'no CA'}: "
            f"not a certificate, its key and a CA that can be read: {error.strerror or error}"
        ) from error
    return context
