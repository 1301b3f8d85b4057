"""Headers that say who may answer, and when."""

import pytest

from onhand.device.serving.refusals import RefusedRequest
from onhand.device.serving.wishes import Wishes, read_wishes


def test_a_request_that_says_nothing() -> None:
    """Is public, and wants its answer now."""
    assert read_wishes({}, is_stream=True) == Wishes(is_stream=True)


def test_all_of_them() -> None:
    """In whatever case they are written."""
    headers = {
        "x-privacy": "Private",
        "x-route-policy": "cascade",
        "x-defer": "allow",
        "idempotency-key": "a-1",
    }

    assert read_wishes(headers, is_stream=False) == Wishes(
        privacy="private", policy="cascade", defer="allow", key="a-1"
    )


@pytest.mark.parametrize(
    ("header", "value", "told"),
    [
        ("x-privacy", "privat", "did you mean 'private'"),
        ("x-privacy", "", "known: private, public, redact"),
        ("x-defer", "alow", "did you mean 'allow'"),
        ("idempotency-key", "a\tb", "printable"),
        ("idempotency-key", "a" * 256, "255"),
    ],
)
def test_a_slip_is_an_error(header: str, value: str, told: str) -> None:
    """A private request with a slip in its header must not be taken for a public one."""
    with pytest.raises(RefusedRequest, match=told) as refused:
        read_wishes({header: value}, is_stream=False)

    assert refused.value.refusal.status == 400
    assert refused.value.refusal.param == header


def test_what_may_come_later_cannot_be_streamed() -> None:
    """The reply would be of another kind."""
    with pytest.raises(RefusedRequest, match="cannot be streamed"):
        read_wishes({"x-defer": "must"}, is_stream=True)
