"""The figures of the outbox benchmark, by hand; and its cloud, cut."""

import time

import httpx2
import pytest
from benchmarks.outbox import Course, judged
from benchmarks.outbox_cloud import Cloud

COURSE = Course(direct={"q0": "answer to q0"}, deferred={"k1": "q1", "k2": "q2"})
ANSWERS = {"k1": "answer to q1", "k2": "answer to q2"}


def test_all_well() -> None:
    """One answer was lost on its way, and asked for again under its key."""
    arrivals = [("q0", "k0"), ("q1", "k1"), ("q1", "k1"), ("q2", "k2")]
    found = judged(COURSE, arrivals, ["k0", "k1", "k2"], ANSWERS)

    assert found["each_computed_once"] is True
    assert found["in_order"] is True
    assert found["right_answers_fetched"] == 2
    assert found["sent_again_under_the_same_key"] == 1
    assert found["asked_under_two_keys"] == 0


@pytest.mark.parametrize(
    ("answered", "once", "ordered"),
    [(["k2", "k1"], True, False), (["k1"], False, False), (["k1", "k1", "k2"], False, False)],
)
def test_what_is_not_well_is_seen(answered: list[str], *, once: bool, ordered: bool) -> None:
    """Out of order, lost, and computed twice."""
    found = judged(COURSE, [], answered, {})

    assert (found["each_computed_once"], found["in_order"]) == (once, ordered)
    assert found["right_answers_fetched"] == 0


def test_a_question_under_two_keys_is_seen() -> None:
    """The other side could not tell that it is the same."""
    arrivals = [("q1", "k1"), ("q1", "another")]

    assert judged(COURSE, arrivals, [], {})["asked_under_two_keys"] == 1


def test_the_cloud_loses_answers_and_knows_keys() -> None:
    """Cut in the middle, restored at the same port, and the same answer for the same key."""
    with Cloud(0.02) as cloud:

        def ask() -> httpx2.Response:
            return httpx2.post(
                f"http://127.0.0.1:{cloud.port}/v1/chat/completions",
                json={"messages": [{"content": "q"}]},
                headers={"idempotency-key": "k"},
            )

        cloud.cut_next()
        with pytest.raises(httpx2.TransportError):
            ask()
        with pytest.raises(httpx2.TransportError):
            ask()
        while not cloud.answered:
            time.sleep(0.01)
        cloud.restore()
        reply = ask()

    assert reply.json()["choices"][0]["message"]["content"] == "answer to q"
    assert cloud.arrivals == [("q", "k")] * 2
    assert cloud.answered == ["k"]
