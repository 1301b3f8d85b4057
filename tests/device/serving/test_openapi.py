"""The server's own description."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from tests.device.serving.served import Served, fake_model, serving

from onhand.device.serving.app import make_routes
from onhand.device.serving.openapi import OPENAPI_PATH, described_api
from onhand.device.serving.page.files import PAGE_PATHS
from onhand.device.serving.settings import ServeSettings

METHODS = {"get", "post", "delete"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with one model."""
    with serving(fake_model(tmp_path_factory.mktemp("openapi"))) as found:
        yield found


def test_every_route_is_described_and_nothing_else(served: Served) -> None:
    """Methods and paths are those of the application, but for the page."""
    routes = make_routes(served.state, ServeSettings())
    assert isinstance(routes, Starlette)
    routed = {
        (route.path.replace(":path", ""), method.lower())
        for route in routes.routes
        if isinstance(route, Route) and route.path not in PAGE_PATHS
        for method in (route.methods or ())
        if method != "HEAD"
    }
    paths: Any = described_api()["paths"]
    described = {(path, method) for path, one in paths.items() for method in METHODS & one.keys()}
    assert described == routed


def test_what_is_referred_to_is_there() -> None:
    """No reference leads nowhere."""
    described = described_api()
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            found.extend([value["$ref"]] if "$ref" in value else [])
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(described)
    assert found
    for reference in found:
        place: Any = described
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_the_description_names_nothing_of_this_server(served: Served) -> None:
    """It says what any such server can be asked."""
    answer = httpx2.get(served.url + OPENAPI_PATH)
    assert answer.status_code == 200
    assert answer.json()["openapi"] == "3.1.0"
    assert "toy" not in answer.text
