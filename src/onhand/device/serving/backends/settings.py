"""`[[backend]]` and `[balance]` of serve.toml: which other servers answer, and how they share."""

import math
import re
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

from onhand.core.errors import InputError

__all__ = ["BackendSettings", "BalanceSettings", "Choice", "Kind", "Secret"]

Kind = Literal["cloud", "peer"]
Choice = Literal["power-of-two", "least-outstanding"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_KINDS: Final = ("cloud", "peer")
_PRIVACY: Final = ("public", "redact")
_COMPRESSION: Final = ("auto", "gzip", "none")
_CHOICES: Final = ("power-of-two", "least-outstanding")


@dataclass(frozen=True, slots=True)
class Secret:
    """A key that no message, log or dump shows.

    Attributes:
        text: the key, to be sent to whom it belongs.
    """

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """One `[[backend]]`: another server that speaks OpenAI's API.

    Attributes:
        name: what replies, counts and logs call it.
        url: what its paths begin with, as "https://api.openai.com/v1".
        kind: "cloud", or "peer" for another `onhand serve`.
        model: what it calls its model; "" for the name that the request has.
        serves: names of models here for which it can answer; a model of its own name without.
        env: environment variable that holds its key; "" for none.
        weight: its share of the work beside others.
        max_active: most answers at once.
        context: most tokens of prompt and answer together; 0 where it is not known.
        price_in: of a million tokens of prompts, in whatever currency the others have.
        price_out: of a million tokens of answers.
        privacy: the strictest class of requests that it may see as they are: "public" or
            "redact"; what is private never leaves this device.
        connect_s: seconds to connect.
        first_s: seconds to the first text of an answer; comments do not count.
        between_s: seconds without a byte, from then on; comments count.
        compression: of requests: "gzip", "none", or "auto" for gzip once it has said that it
            takes that.
        ca: a file with the certificates to trust; "" for the system's.
        certificate: a file with this device's own certificate, for a peer that asks for one.
        certificate_key: a file with its private key.
        allow_http: whether a peer is asked without TLS though it is on another machine.
        probe: path that shows whether it lives: "/ready" of a peer, "models" of a cloud; one
            that begins with "/" counts from the server's root.
        probe_s: seconds between two such requests; 0 for none as long as it answers.
        keeps: whether its answers may be kept in the exact cache, where nothing is drawn.
    """

    name: str
    url: str
    kind: str = "cloud"
    model: str = ""
    serves: tuple[str, ...] = ()
    env: str = ""
    weight: float = 1.0
    max_active: int = 16
    context: int = 0
    price_in: float = 0.0
    price_out: float = 0.0
    privacy: str = "public"
    connect_s: float = 5.0
    first_s: float = 60.0
    between_s: float = 30.0
    compression: str = "auto"
    ca: str = ""
    certificate: str = ""
    certificate_key: str = ""
    allow_http: bool = False
    probe: str = ""
    probe_s: float = 0.0
    keeps: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == "local":
            raise InputError(
                f"name {self.name!r}: letters, digits and . _ : - alone, at most 64, not 'local'"
            )
        _one_of("kind", self.kind, _KINDS)
        _one_of("privacy", self.privacy, _PRIVACY)
        _one_of("compression", self.compression, _COMPRESSION)
        self._check_url()
        for name in ("weight", "connect_s", "first_s", "between_s"):
            _above_zero(name, float(getattr(self, name)))
        for name in ("price_in", "price_out", "probe_s", "context"):
            if not 0 <= (value := float(getattr(self, name))) < math.inf:
                raise InputError(f"{name} is {value:g}, must be 0 or more")
        if bool(self.certificate) != bool(self.certificate_key):
            raise InputError("certificate and certificate_key belong together: give both or none")
        if self.max_active < 1:
            raise InputError(f"max_active is {self.max_active}, must be 1 or more")

    @property
    def models(self) -> tuple[str, ...]:
        """Names of models here for which it answers."""
        return self.serves or (self.name,)

    @property
    def place(self) -> Kind:
        """Its kind."""
        return "peer" if self.kind == "peer" else "cloud"

    @property
    def probe_path(self) -> str:
        """Where to ask whether it lives."""
        return self.probe or ("/ready" if self.kind == "peer" else "models")

    def _check_url(self) -> None:
        try:
            parts = urlsplit(self.url)
            _ = parts.port
        except ValueError as error:
            raise InputError(f"url {self.url!r} is none: {error}") from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InputError(f"url {self.url!r} must be like 'https://example.org/v1'")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InputError("url must have no user, password, query or fragment: see env for keys")
        is_near = parts.hostname in _LOOPBACK
        if parts.scheme == "http" and not is_near:
            if self.kind != "peer":
                raise InputError(f"url {self.url!r}: a cloud is asked over https alone")
            if not self.allow_http:
                raise InputError(
                    f"url {self.url!r}: whoever is on the way can read it; use https, or say "
                    f"allow_http = true"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceSettings:
    """`[balance]`: how several backends of one model share its requests.

    Attributes:
        choice: "power-of-two" takes the better of two drawn by weight, by what is open there
            and how long the first text took; "least-outstanding" the one with least open.
        affinity: whether prompts that begin alike go to the same backend while it has room.
        attempts: backends asked for one answer at most, before its first text.
        retry_share: second attempts per request, over time; more are refused so that a failure
            does not double the load.
        retry_reserve: second attempts that are free after a quiet time.
        backoff_s: most seconds before the second attempt at the same backend; twice as much
            before each further one.
        max_waiting: requests that wait while all backends are full; one more is refused.
        wait_s: seconds that one waits.
        failures: in a row, after which a backend gets no requests for a while.
        eject_s: that while, in seconds; twice as long each further time.
        most_eject_s: but no longer than this.
    """

    choice: str = "power-of-two"
    affinity: bool = True
    attempts: int = 3
    retry_share: float = 0.2
    retry_reserve: int = 64
    backoff_s: float = 0.25
    max_waiting: int = 64
    wait_s: float = 30.0
    failures: int = 3
    eject_s: float = 1.0
    most_eject_s: float = 60.0

    def __post_init__(self) -> None:
        _one_of("choice", self.choice, _CHOICES)
        for name in ("attempts", "failures"):
            if (value := int(getattr(self, name))) < 1:
                raise InputError(f"{name} is {value}, must be 1 or more")
        for name in ("retry_share", "retry_reserve", "backoff_s", "max_waiting"):
            if not 0 <= (share := float(getattr(self, name))) < math.inf:
                raise InputError(f"{name} is {share:g}, must be 0 or more")
        for name in ("wait_s", "eject_s", "most_eject_s"):
            _above_zero(name, float(getattr(self, name)))
        if self.most_eject_s < self.eject_s:
            raise InputError(
                f"most_eject_s is {self.most_eject_s:g}, must be eject_s, {self.eject_s:g}, or more"
            )


def _above_zero(name: str, value: float) -> None:
    if not 0 < value < math.inf:  # so that NaN is refused as well
        raise InputError(f"{name} is {value}, must be above 0")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} is {value!r}, must be one of {', '.join(known)}")
