"""Requests that are made from the server's own description, right and wrong ones."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.device.serving.served import Served, fake_model, serving

from onhand.device.serving.openapi import described_api

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
_MODES = schemathesis.GenerationMode
_OPERATIONS = [
    found.ok() for found in schemathesis.openapi.from_dict(described_api()).get_all_operations()
]
_CHECKS = schemathesis.checks.CHECKS.get_by_names([
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
])


def _both() -> Iterator[Any]:
    for one in _OPERATIONS:
        yield pytest.param(one, _MODES.POSITIVE, id=f"{one.label} rightly")
        if one.body or one.path_parameters:  # else there is nothing that could be wrong
            yield pytest.param(one, _MODES.NEGATIVE, id=f"{one.label} wrongly")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with one model."""
    with serving(fake_model(tmp_path_factory.mktemp("openapi"))) as found:
        yield found


@pytest.mark.parametrize(("operation", "mode"), list(_both()))
def test_no_request_makes_the_server_fail(operation: Any, mode: Any, served: Served) -> None:
    """It is answered, or refused with a sentence, as described; none ends in 500."""

    @settings(max_examples=15, deadline=None, suppress_health_check=[*HealthCheck], database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def asked(case: Any) -> None:
        case.headers = {**(case.headers or {}), "x-deadline-ms": "5000"}
        if isinstance(case.body, dict):
            case.body = {**case.body, "model": "toy"}
        answer = case.call(base_url=served.url, timeout=30)
        case.validate_response(answer, checks=_CHECKS)

    asked()


def test_a_request_as_described_is_answered(served: Served) -> None:
    """Not all that is right is refused: a conversation and a text get answers."""
    for label, field in (
        ("POST /v1/chat/completions", "messages"),
        ("POST /v1/completions", "prompt"),
    ):
        operation = next(one for one in _OPERATIONS if one.label == label)
        given_fields: dict[str, Any] = {
            "messages": [{"role": "user", "content": "hello"}],
            "prompt": "hello",
        }
        body = {"model": "toy", "max_tokens": 4, field: given_fields[field]}
        answer = operation.Case(body=body, media_type="application/json").call(base_url=served.url)
        assert answer.status_code == 200
        operation.validate_response(answer)
