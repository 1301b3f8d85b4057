"""Scopes: every route has one, and what has none is refused."""

from pathlib import Path

import pytest
from starlette.routing import Route
from tests.device.serving.served import fake_model
from tests.device.test_generate import saying

from onhand.core.errors import InputError
from onhand.device.access.scopes import ACTIONS, ROLES, ROUTES, Grant, action_of
from onhand.device.serving.app import make_routes
from onhand.device.serving.page.files import PAGE_PATHS
from onhand.device.serving.settings import ServeSettings
from onhand.device.serving.state import ServerState


def test_every_route_of_the_server_has_an_action(tmp_path: Path) -> None:
    """One that is added without would be refused to everybody, and this test says so first."""
    state = ServerState([fake_model(tmp_path, saying("on"))])
    routes = make_routes(state, ServeSettings()).routes
    served = {
        (one.path, method)
        for one in routes
        if isinstance(one, Route) and one.path not in PAGE_PATHS
        for method in (one.methods or set()) - {"HEAD"}
    }
    state.close()

    assert served == {(path, method) for path, of in ROUTES.items() for method in of}
    assert {action for of in ROUTES.values() for action in of.values()} <= set(ACTIONS)


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("POST", "/v1/chat/completions", "infer"),
        ("HEAD", "/metrics", "metrics"),
        ("POST", "/v1/models/org/name/reload", "manage"),
        ("GET", "/v1/models/org/name", "infer"),
        ("DELETE", "/v1/outbox/0a", "infer"),
        ("DELETE", "/v1/models/a", ""),
        ("GET", "/v1/chat/completions", ""),
        ("GET", "/v1/chat/completions/", None),
        ("GET", "//v1/models", None),
        ("GET", "/v1/models/../../metrics/x/../reload\n", "infer"),
        ("GET", "/V1/models", None),
        ("GET", "", None),
    ],
)
def test_attack_path_in_another_form(method: str, path: str, action: str | None) -> None:
    """A path is one of a route to the letter, or none."""
    assert action_of(method, path) == action


def test_roles_have_no_more_than_they_say() -> None:
    """Only an administrator manages, and a monitor reads no answers."""
    assert [name for name, of in ROLES.items() if "manage" in of] == ["admin"]
    assert "infer" not in ROLES["monitor"]
    assert "learn" not in ROLES["user"]


def test_models_and_routes_end_in_any_rest() -> None:
    """A pattern without a star is the whole name."""
    grant = Grant(actions=frozenset({"infer"}), models=("house*", "a"), routes=("/v1/chat*",))

    assert [grant.allows_model(one) for one in ("house", "house-2", "a", "ab")] == [
        *(True, True, True, False)
    ]
    assert grant.allows_route("/v1/chat/completions")
    assert not grant.allows_route("/v1/embeddings")


@pytest.mark.parametrize(
    "given",
    [
        {"actions": frozenset({"fly"})},
        {"actions": frozenset()},
        {"actions": frozenset({"infer"}), "models": ("a*b",)},
        {"actions": frozenset({"infer"}), "models": ("",)},
        {"actions": frozenset({"infer"}), "routes": ("v1",)},
    ],
)
def test_a_scope_that_means_nothing_is_refused(given: dict[str, object]) -> None:
    """Nothing is guessed about who may do what."""
    with pytest.raises(InputError):
        Grant(**given)  # type: ignore[arg-type] # each is wrong in a way of its own
