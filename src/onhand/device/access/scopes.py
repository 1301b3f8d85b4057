"""Scopes: which route is which action, and who may do it where.

A route that is not in this table is refused, whoever asks.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from onhand.core.errors import InputError

__all__ = ["ACTIONS", "EVERYTHING", "ROLES", "ROUTES", "Grant", "action_of", "is_matched"]

ACTIONS: Final = ("infer", "feedback", "learn", "manage", "metrics", "health")
"""What a key may be for."""

ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    "user": ("infer", "feedback", "health"),
    "teacher": ("infer", "feedback", "learn", "health"),
    "monitor": ("metrics", "health"),
    "peer": ("infer", "health"),
    "admin": ACTIONS,
}
"""Name of a role -> its actions."""

ROUTES: Final[Mapping[str, Mapping[str, str]]] = {
    "/health": {"GET": "health"},
    "/ready": {"GET": "health"},
    "/openapi.json": {"GET": "health"},
    "/metrics": {"GET": "metrics"},
    "/v1/governor": {"GET": "metrics"},
    "/v1/models": {"GET": "infer"},
    "/v1/models/{name:path}/reload": {"POST": "manage"},
    "/v1/models/{name:path}": {"GET": "infer"},
    "/v1/chat/completions": {"POST": "infer"},
    "/v1/completions": {"POST": "infer"},
    "/v1/responses": {"POST": "infer"},
    "/v1/embeddings": {"POST": "infer"},
    "/v1/classify": {"POST": "infer"},
    "/v1/feedback": {"GET": "feedback", "POST": "feedback"},
    "/v1/outbox": {"GET": "infer"},
    "/v1/outbox/{id}": {"GET": "infer", "DELETE": "infer"},
}
"""Route -> method -> the action that it is."""

_PATTERN: Final = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a key may do.

    Attributes:
        actions: of `ACTIONS`.
        models: names of models, a "*" at the end standing for any rest; "*" for all.
        routes: paths, likewise.
    """

    actions: frozenset[str]
    models: tuple[str, ...] = ("*",)
    routes: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            InputError: if an action or a pattern is none.
        """
        if unknown := sorted(self.actions - set(ACTIONS)):
            raise InputError(f"action {unknown[0]!r}: must be one of {', '.join(ACTIONS)}")
        if not self.actions:
            raise InputError("a key needs an action or a role: without one it opens nothing")
        for kind, patterns in (("model", self.models), ("route", self.routes)):
            for one in patterns:
                if not _PATTERN.fullmatch(one) or "*" in one[:-1]:
                    raise InputError(f"{kind} {one!r}: a name, or the beginning of one and '*'")
        for one in self.routes:
            if one != "*" and not one.startswith("/"):
                raise InputError(f"route {one!r}: must begin with '/', as '/v1/embeddings'")

    def allows_model(self, name: str) -> bool:
        """Say whether a model may be asked, or seen at all."""
        return is_matched(name, self.models)

    def allows_route(self, path: str) -> bool:
        """Say whether a path may be called."""
        return is_matched(path, self.routes)


EVERYTHING: Final = Grant(actions=frozenset(ACTIONS))
"""What a program may do that has the models in its own memory."""


def is_matched(name: str, patterns: Sequence[str]) -> bool:
    """Say whether a name is one of some patterns.

    Args:
        name: of a model, or a path.
        patterns: names; a "*" at the end stands for any rest.
    """
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in patterns)


def action_of(method: str, path: str) -> str | None:
    """Return the action that a request is.

    Args:
        method: of HTTP.
        path: as the router sees it, never as a header says it.

    Returns:
        The action; "" where the path is one of a route, but not with this method; None where
        there is no such route.
    """
    wanted = "GET" if method == "HEAD" else method
    for pattern, methods in _COMPILED:
        if pattern.fullmatch(path):
            return methods.get(wanted, "")
    return None


def _compiled(route: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+(?::path)?\})", route)
    text = [
        (".+" if one.endswith(":path}") else "[^/]+") if one.startswith("{") else re.escape(one)
        for one in parts
    ]
    return re.compile("".join(text), re.DOTALL)


_COMPILED: Final = tuple((_compiled(route), methods) for route, methods in ROUTES.items())
