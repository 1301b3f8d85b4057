"""What a server is told: `serve.toml`, read and checked as a whole before anything starts."""

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from onhand.core.errors import InputError, RecipeError
from onhand.core.tables import filled, unknown
from onhand.device.access.keys import TENANT_PREFIX
from onhand.device.access.settings import AccessSettings, check_listening
from onhand.device.audit.settings import AuditSettings, read_audit
from onhand.device.privacy.settings import PrivacySettings
from onhand.device.schedule import Limits
from onhand.device.serving.backends.settings import BackendSettings, BalanceSettings, Secret
from onhand.device.serving.caches.settings import CacheSettings
from onhand.device.serving.feedback.settings import LearningSettings
from onhand.device.serving.governor.setting import GovernorSettings
from onhand.device.serving.log_settings import LogSettings
from onhand.device.serving.models.shelf_settings import ShelfSettings
from onhand.device.serving.placed import placed_files
from onhand.device.serving.routing.settings import (
    OutboxSettings,
    RouteSettings,
    RoutingSettings,
    check_privacy,
    read_routes,
    strictest,
)

__all__ = [
    "ANONYMOUS",
    "CacheSettings",
    "KeySettings",
    "LogSettings",
    "ModelSettings",
    "NetworkSettings",
    "ServeSettings",
    "is_model_name",
    "parse_settings",
]

ANONYMOUS: Final = "local"
"""Who asks where no key is asked for."""

_S = TypeVar("_S")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")

_VERSION = re.compile(r"current|base|[1-9][0-9]{0,5}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KNOWN: Final = (
    *("server", "access", "cache", "log", "audit", "shelf", "model", "key"),
    *("backend", "balance", "routing", "route", "outbox", "governor", "learning", "privacy"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """`[server]`: where it listens, and to whom.

    Attributes:
        host: address to listen at; one that others reach needs TLS.
        port: 0 lets the system choose.
        hosts: names beside those of loopback that a request's Host header may have.
        origins: pages, as "https://example.org", whose scripts may call.
        max_body_bytes: of one request.
        ping_s: seconds without news after which a stream sends a comment.
        drain_s: seconds that running answers have to end when the server is told to.
        memory_bytes: what all models, their conversations and caches may take; 0 for what is
            free, less a margin: see `[shelf]`.
        deadline_s: most seconds of one answer, waiting included; 0 for no end.
        certificate: file of this server's certificate and its chain, PEM; "" for no TLS.
        certificate_key: file of its private key.
        client_ca: file of the certificates that callers' own must be signed by; "" asks for none.
    """

    host: str = "127.0.0.1"
    port: int = 8321
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body_bytes: int = 32 * 2**20
    ping_s: float = 10.0
    drain_s: float = 30.0
    memory_bytes: int = 0
    deadline_s: float = 0.0
    certificate: str = ""
    certificate_key: str = ""
    client_ca: str = ""

    def __post_init__(self) -> None:
        check_listening(
            self.host,
            certificate=self.certificate,
            certificate_key=self.certificate_key,
            client_ca=self.client_ca,
        )
        if not 0 <= self.port <= 65535:
            raise InputError(f"port is {self.port}, must be from 0 to 65535")
        if self.memory_bytes < 0:
            raise InputError(f"memory_bytes is {self.memory_bytes}, must be 0 or more")
        if self.max_body_bytes < 1024:
            raise InputError(f"max_body_bytes is {self.max_body_bytes}, must be 1024 or more")
        for name, value in (("ping_s", self.ping_s), ("drain_s", self.drain_s)):
            if not value > 0:  # so that NaN is refused as well
                raise InputError(f"{name} is {value}, must be above 0")
        if not self.deadline_s >= 0:
            raise InputError(f"deadline_s is {self.deadline_s}, must be 0 or more")
        for origin in self.origins:
            if not re.fullmatch(r"https?://[^/\s]+", origin):
                raise InputError(f"origin {origin!r} must be like 'https://example.org'")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One `[[model]]`: a bundle to serve.

    Attributes:
        bundle: its folder.
        name: what requests call it; "" for the bundle's own name.
        variant: as `onhand.open` takes it; "" for the default. So are the next five.
        engine: "" for the quickest here.
        threads: 0 for the quickest number.
        trials: whether engines and threads are timed at the first opening, to find these; else
            the first engine that can run it, and what threads this process may use.
        head: "full" or "two-stage".
        kv: "fp16" or "int8"; "" for the engine's own way.
        prefill: "exact" or "bf16".
        speculate: "lookup": an answer that runs alone is drafted from its own text where that pays,
            with the same tokens; or "off".
        context: most tokens of prompt and answer together; 0 for the model's own.
        version: "current" for what this device has learned, "base" for the bundle as it was built,
            or a learned version's number.
        max_active: answers computed at once.
        max_waiting: requests that may wait; one more is refused.
        prefix_cache_bytes: memory for what ended conversations remember.
        load: "start", or "demand": when it is asked first.
        keep_s: seconds without requests after which it is closed; 0 for never.
    """

    bundle: str
    name: str = ""
    variant: str = ""
    engine: str = ""
    threads: int = 0
    trials: bool = True
    head: str = "full"
    kv: str = ""
    prefill: str = "exact"
    speculate: str = "lookup"
    context: int = 0
    version: str = "current"
    max_active: int = 8
    max_waiting: int = 64
    prefix_cache_bytes: int = 256 * 2**20
    load: str = "start"
    keep_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.bundle:
            raise InputError(f"bundle is {self.bundle!r}, must be a folder")
        if self.name and not is_model_name(self.name):
            raise InputError(
                f"name {self.name!r}: letters, digits and . _ / : - alone, at most 128"
            )
        if not _VERSION.fullmatch(self.version):
            raise InputError(f"version is {self.version!r}, must be current, base or a number")
        if self.speculate not in {"lookup", "off"}:
            raise InputError(f"speculate is {self.speculate!r}, must be lookup or off")
        for name in ("threads", "context", "prefix_cache_bytes"):
            if (value := int(getattr(self, name))) < 0:
                raise InputError(f"{name} is {value}, must be 0 or more")
        if self.load not in {"start", "demand"}:
            raise InputError(f"load is {self.load!r}, must be 'start' or 'demand'")
        if not self.keep_s >= 0:  # so that NaN is refused as well
            raise InputError(f"keep_s is {self.keep_s}, must be 0 or more")
        _ = self.limits

    @property
    def version_number(self) -> int | None:
        """The learned version to open, 0 for the bundle as it was built; None for the current."""
        if self.version == "current":
            return None
        return 0 if self.version == "base" else int(self.version)

    @property
    def limits(self) -> Limits:
        """How much the model takes on at once."""
        return Limits(max_active=self.max_active, max_waiting=self.max_waiting)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """One `[[key]]`: who may call, and by what bearer token.

    Attributes:
        tenant: whose key it is; what is kept for one tenant is never used for another.
        env: environment variable that holds the token; or
        sha256: the token's SHA-256, in hex.
        privacy: the class that the tenant's requests have at least: "public", "redact" or
            "private", which never leave the device.
        may_manage: whether it may have bundles looked at again.
    """

    tenant: str
    env: str = ""
    sha256: str = ""
    privacy: str = "public"
    may_manage: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.tenant):
            raise InputError(f"tenant is {self.tenant!r}: letters, digits and . _ / : - alone")
        if self.tenant.startswith(TENANT_PREFIX):
            raise InputError(f"tenant {self.tenant!r}: no name may begin with {TENANT_PREFIX!r}")
        if bool(self.env) == bool(self.sha256):
            raise InputError(f"tenant {self.tenant!r}: give env or sha256, one of the two")
        if self.sha256 and not _DIGEST.fullmatch(self.sha256):
            raise InputError(f"tenant {self.tenant!r}: sha256 must be 64 digits of lower-case hex")
        check_privacy(self.privacy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """All of it.

    Attributes:
        server: where it listens.
        cache: what is kept of answers.
        log: what is written of requests.
        audit: what is recorded of them, so that tampering shows.
        governor: what the device is to keep to.
        models: what it serves; the first answers requests that name none.
        access: who may ask without a key.
        tenants: SHA-256 of a bearer token -> whose it is.
        shelf: how models share the memory.
        managers: tenants that may have bundles looked at again.
        backends: other servers that answer.
        balance: how several backends of one model share its requests.
        secrets: a backend's name -> the key that it wants.
        routing: who answers for models that several can answer for.
        routes: what is different for single models.
        privacy: tenant -> the class that its requests have at least.
        outbox: what is answered later.
        learning: whether and when models learn from feedback.
        redaction: what is done with requests of the class "redact".
    """

    server: NetworkSettings = field(default_factory=NetworkSettings)
    access: AccessSettings = field(default_factory=AccessSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    log: LogSettings = field(default_factory=LogSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    governor: GovernorSettings = field(default_factory=GovernorSettings)
    models: tuple[ModelSettings, ...] = ()
    tenants: Mapping[str, str] = field(default_factory=dict)
    shelf: ShelfSettings = field(default_factory=ShelfSettings)
    managers: frozenset[str] = frozenset()
    backends: tuple[BackendSettings, ...] = ()
    balance: BalanceSettings = field(default_factory=BalanceSettings)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    routes: tuple[RouteSettings, ...] = ()
    privacy: Mapping[str, str] = field(default_factory=dict)
    outbox: OutboxSettings = field(default_factory=OutboxSettings)
    learning: LearningSettings = field(default_factory=LearningSettings)
    redaction: PrivacySettings = field(default_factory=PrivacySettings)


def parse_settings(
    text: str, *, environment: Mapping[str, str], where: str = "serve.toml"
) -> ServeSettings:
    """Read a server's settings.

    Args:
        text: TOML with `[server]`, `[[model]]` and `[[key]]`.
        environment: where keys may stand.
        where: name of the file, for messages; bundles are looked for beside it.

    Returns:
        The settings.

    Raises:
        RecipeError: if the TOML, a key or a value is wrong, or an environment variable is not set.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{where} is not TOML: {error}") from error
    for key in table:
        if key not in _KNOWN:
            raise RecipeError(f"{where}: {unknown('table', key, _KNOWN)}")

    def read(kind: type[_S], key: str) -> _S:
        return filled(kind, _table(table, key, where), where=f"{where}: {key}")

    models = [filled(ModelSettings, one, where=at) for one, at in _tables(table, "model", where)]
    keys = [(filled(KeySettings, one, where=at), at) for one, at in _tables(table, "key", where)]
    tenants = _tenants(keys, environment)
    backends, secrets = _backends(table, environment, where)
    beside = Path(where).parent
    return ServeSettings(
        server=placed_files(
            read(NetworkSettings, "server"),
            ("certificate", "certificate_key", "client_ca"),
            beside,
        ),
        access=read(AccessSettings, "access"),
        cache=read(CacheSettings, "cache"),
        log=read(LogSettings, "log"),
        audit=read_audit(_table(table, "audit", where), where=where),
        governor=read(GovernorSettings, "governor"),
        models=tuple(_placed(one, beside) for one in models),
        tenants=tenants,
        shelf=read(ShelfSettings, "shelf"),
        managers=frozenset(one.tenant for one, _ in keys if one.may_manage),
        backends=backends,
        balance=read(BalanceSettings, "balance"),
        secrets=secrets,
        routing=read(RoutingSettings, "routing"),
        routes=read_routes(_tables(table, "route", where)),
        privacy=strictest((one.tenant, one.privacy) for one, _ in keys),
        outbox=read(OutboxSettings, "outbox"),
        learning=read(LearningSettings, "learning").placed(beside),
        redaction=read(PrivacySettings, "privacy").placed(beside),
    )


def _tenants(
    keys: Sequence[tuple[KeySettings, str]], environment: Mapping[str, str]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for one, at in keys:
        digest = one.sha256 or _digest_of(one.env, environment, at)
        if digest in found:
            raise RecipeError(f"{at}: the token is that of {found[digest]!r} already")
        found[digest] = one.tenant
    return found


def _backends(
    table: Mapping[str, object], environment: Mapping[str, str], where: str
) -> tuple[tuple[BackendSettings, ...], dict[str, Secret]]:
    found: list[BackendSettings] = []
    secrets: dict[str, Secret] = {}
    beside = Path(where).parent
    for values, at in _tables(table, "backend", where):
        one = filled(BackendSettings, values, where=at)
        if one.name in {other.name for other in found}:
            raise RecipeError(f"{at}: there is a backend {one.name!r} already")
        if one.env:
            key = environment.get(one.env, "").strip()
            if not key or not key.isascii() or not key.isprintable():
                raise RecipeError(f"{at}: the environment variable {one.env} must hold a key")
            secrets[one.name] = Secret(key)
        one = placed_files(one, ("ca", "certificate", "certificate_key"), beside)
        found.append(one)
    return tuple(found), secrets


def _table(table: Mapping[str, object], key: str, where: str) -> dict[str, object]:
    given = table.get(key, {})
    if not isinstance(given, dict):
        raise RecipeError(f"{where}: {key} is {given!r}, must be a table: [{key}]")
    return given


def _tables(
    table: Mapping[str, object], key: str, where: str
) -> list[tuple[dict[str, object], str]]:
    given = table.get(key, [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise RecipeError(f"{where}: {key} is no list of tables: write [[{key}]]")
    return [(one, f"{where}: {key} {number}") for number, one in enumerate(given, start=1)]


def _digest_of(name: str, environment: Mapping[str, str], where: str) -> str:
    token = environment.get(name, "")
    if len(token) < 16:
        raise RecipeError(
            f"{where}: the environment variable {name} must hold a token of 16 characters or more"
        )
    return hashlib.sha256(token.encode()).hexdigest()


def is_model_name(text: str) -> bool:
    """Say whether requests may call a model by a text."""
    return _NAME.fullmatch(text) is not None


def _placed(model: ModelSettings, beside: Path) -> ModelSettings:
    return replace(model, bundle=str(beside / Path(model.bundle).expanduser()))
