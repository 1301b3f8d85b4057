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


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("label", "asked"),
    [
        (
            "POST /v1/chat/completions",
            {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4},
        ),
        ("POST /v1/completions", {"prompt": "hello", "max_tokens": 4}),
        ("POST /v1/responses", {"input": "hello", "max_output_tokens": 4}),
    ],
)
def test_a_request_as_described_is_answered(
    label: str, asked: dict[str, Any], is_streamed: bool, served: Served
) -> None:
    """Not all that is right is refused; an answer, and each event of a stream, is as described."""
    operation = next(one for one in _OPERATIONS if one.label == label)
    body = {"model": "toy", "stream": is_streamed, **asked}
    answer = operation.Case(body=body, media_type="application/json").call(base_url=served.url)
    assert answer.status_code == 200
    operation.validate_response(answer)
