"""The outbox: what is in it is never lost, never sent out of order, never another's."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.errors import ResourceError
from onhand.device.serving.refusals import RefusedRequest
from onhand.device.serving.routing.outbox import ROW_BYTES, Outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An empty one."""
    found = Outbox(tmp_path / "outbox" / "requests.sqlite", most_bytes=100_000, most_waiting=5)
    yield found
    found.close()


def put(outbox: Outbox, body: str, *, tenant: str = "a", key: str = "", now_s: float = 0.0) -> str:
    """Keep a request; return its id."""
    kept, _ = outbox.put(
        body.encode(), tenant=tenant, lane=tenant, key=key, now_s=now_s, keep_s=100
    )
    return kept.id


def test_requests_of_a_lane_are_sent_in_their_order(outbox: Outbox) -> None:
    """The next only when the first has ended."""
    first, second = put(outbox, "1"), put(outbox, "2")
    found = outbox.next(1.0)
    assert found is not None
    assert found.id == first
    outbox.begin(first)
    assert outbox.next(1.0, busy={"a"}) is None
    outbox.end(first, status=200, answer=b"{}", now_s=1.0)

    found = outbox.next(1.0)
    assert found is not None
    assert (found.id, found.body) == (second, b"2")


def test_a_request_that_waits_for_its_next_attempt_holds_its_lane_alone(outbox: Outbox) -> None:
    """What comes after it in its lane would be out of order; other lanes go on."""
    slow = put(outbox, "1")
    put(outbox, "2")
    other = put(outbox, "3", tenant="b")
    outbox.begin(slow)
    outbox.again(slow, due_s=50.0)

    found = outbox.next(1.0)
    assert found is not None
    assert found.id == other
    assert outbox.next_due_s() == 0.0
    later = outbox.next(50.0)
    assert later is not None
    assert (later.id, later.attempts) == (slow, 1)


def test_the_same_key_is_the_same_request(outbox: Outbox) -> None:
    """Whatever became of it; another tenant's key is another."""
    first = put(outbox, "1", key="k")
    assert put(outbox, "1", key="k") == first
    outbox.end(first, status=200, answer=b'{"a":1}', now_s=1.0)

    again, is_new = outbox.put(b"1", tenant="a", lane="a", key="k", now_s=2.0, keep_s=100)
    assert (again.id, again.state, again.answer, is_new) == (first, "done", b'{"a":1}', False)
    assert put(outbox, "1", key="k", tenant="b") != first
    known = outbox.known(b"1", tenant="a", key="k")
    assert known is not None
    assert known.id == first


def test_a_key_of_another_request_is_refused(outbox: Outbox) -> None:
    """Giving either answer would be wrong."""
    put(outbox, "1", key="k")

    with pytest.raises(RefusedRequest, match="belongs to another request") as refused:
        put(outbox, "2", key="k")

    assert refused.value.refusal.status == 422


def test_requests_without_a_key_are_never_the_same(outbox: Outbox) -> None:
    """Asking twice may be meant."""
    assert put(outbox, "1") != put(outbox, "1")


def test_nothing_is_lost_to_make_room(tmp_path: Path) -> None:
    """What does not fit is refused, by its bytes."""
    most = 2 * (ROW_BYTES + 10)
    outbox = Outbox(tmp_path / "o.sqlite", most_bytes=most, most_waiting=99)
    put(outbox, "x" * 10)
    put(outbox, "x" * 10)

    with pytest.raises(RefusedRequest, match="is full") as refused:
        put(outbox, "")

    assert refused.value.refusal.status == 507
    assert outbox.n_bytes() == most
    assert outbox.counts() == {"waiting": 2}
    outbox.close()


def test_one_tenant_does_not_fill_it_for_all(outbox: Outbox) -> None:
    """As many of one may wait, and no more; what has ended does not count."""
    name = put(outbox, "0")
    for number in range(1, 5):
        put(outbox, str(number))
    with pytest.raises(RefusedRequest, match="5 requests wait already") as refused:
        put(outbox, "6")
    assert refused.value.refusal.status == 429
    assert refused.value.refusal.headers["Retry-After"]
    put(outbox, "1", tenant="b")
    outbox.end(name, status=200, answer=b"", now_s=0.0)

    put(outbox, "6")


def test_what_has_ended_takes_no_room_for_its_question(outbox: Outbox) -> None:
    """Its answer is what is kept."""
    name = put(outbox, "x" * 1000)
    outbox.end(name, status=200, answer=b"yes", now_s=0.0)

    assert outbox.n_bytes() == ROW_BYTES + 3


def test_requests_expire(outbox: Outbox) -> None:
    """They are not sent any more, and their client is told."""
    name = put(outbox, "1", now_s=0.0)
    assert outbox.next_due_s() == 0.0
    assert outbox.next(100.0) is None
    assert outbox.tidy(100.0, kept_s=50) == 1

    found = outbox.find(name, tenant="a")
    assert found is not None
    assert (found.state, found.body) == ("expired", b"")
    assert outbox.tidy(150.0, kept_s=50) == 0
    assert outbox.find(name, tenant="a") is None


def test_a_refusal_for_good_is_an_end(outbox: Outbox) -> None:
    """With what the client is to be told."""
    name = put(outbox, "1")
    outbox.end(name, status=400, answer=b'{"error":{}}', now_s=0.0)

    found = outbox.find(name, tenant="a")
    assert found is not None
    assert (found.state, found.status) == ("failed", 400)
    assert outbox.next(1.0) is None


def test_tenants_do_not_see_each_other(outbox: Outbox) -> None:
    """Nor remove what is another's."""
    name = put(outbox, "secret")

    assert outbox.find(name, tenant="b") is None
    assert outbox.listed(tenant="b") == []
    assert not outbox.remove(name, tenant="b")
    assert [(one.id, one.body) for one in outbox.listed(tenant="a")] == [(name, b"")]
    assert outbox.remove(name, tenant="a")
    assert outbox.next(1.0) is None


def test_an_answer_to_what_was_removed_is_dropped(outbox: Outbox) -> None:
    """It was being sent when its client forgot it."""
    name = put(outbox, "1")
    outbox.begin(name)
    outbox.remove(name, tenant="a")
    outbox.end(name, status=200, answer=b"late", now_s=1.0)

    assert outbox.counts() == {}


def test_the_file_is_its_owners_alone(outbox: Outbox, tmp_path: Path) -> None:
    """It holds what people asked."""
    for path in (tmp_path / "outbox").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_second_sender_is_refused(outbox: Outbox, tmp_path: Path) -> None:
    """It would send everything a second time."""
    put(outbox, "1")

    with pytest.raises(ResourceError, match="another server sends from this outbox"):
        Outbox(tmp_path / "outbox" / "requests.sqlite", most_bytes=1, most_waiting=1)


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    """Requests that were promised an answer are not thrown away in silence."""
    (tmp_path / "o.sqlite").write_bytes(b"no database at all" * 100)

    with pytest.raises(ResourceError, match="the outbox failed"):
        Outbox(tmp_path / "o.sqlite", most_bytes=1, most_waiting=1)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Said by name."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ResourceError, match="cannot be made"):
        Outbox(tmp_path / "file" / "o.sqlite", most_bytes=1, most_waiting=1)


_CHILD = """
import os, signal, sys
from pathlib import Path
from onhand.device.serving.routing.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]), most_bytes=100_000, most_waiting=99)
for number in range(3):
    kept, _ = outbox.put(
        str(number).encode(), tenant="a", lane="a", key="", now_s=0.0, keep_s=100
    )
    print(kept.id, flush=True)
first = outbox.next(1.0)
outbox.begin(first.id)
outbox.end(first.id, status=200, answer=b"yes", now_s=1.0)
second = outbox.next(1.0)
outbox.begin(second.id)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """What was answered stays so; what was being sent is sent again, under the same id."""
    path = tmp_path / "o.sqlite"
    killed = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path)], capture_output=True, text=True, check=False,
        env=dict(os.environ),
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    first, second, third = killed.stdout.split()
    outbox = Outbox(path, most_bytes=100_000, most_waiting=99)

    states = {one.id: (one.state, one.attempts) for one in outbox.listed(tenant="a")}
    assert states == {first: ("done", 1), second: ("waiting", 1), third: ("waiting", 0)}
    found = outbox.next(1.0)
    assert found is not None
    assert (found.id, found.body) == (second, b"1")
    outbox.close()


def test_a_disk_that_fails_is_an_error(outbox: Outbox) -> None:
    """The client is not told that its request was kept."""
    outbox.close()

    with pytest.raises(ResourceError, match="the outbox failed"):
        put(outbox, "1")


moves = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("ab")),
        st.tuples(st.just("send"), st.booleans()),
    ),
    max_size=30,
)


@settings(max_examples=25)
@given(moves=moves)
def test_whatever_happens_lanes_keep_their_order(
    moves: list[tuple[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each is answered once, and in the order in which its lane got it."""
    path = tmp_path_factory.mktemp("outbox") / "o.sqlite"
    outbox = Outbox(path, most_bytes=10**6, most_waiting=99)
    given: dict[str, list[str]] = {"a": [], "b": []}
    ended: dict[str, list[str]] = {"a": [], "b": []}
    for now_s, (kind, value) in enumerate(moves):
        if kind == "put":
            given[str(value)].append(put(outbox, "x", tenant=str(value)))
        elif (found := outbox.next(float(now_s))) is not None:
            outbox.begin(found.id)
            if value:
                outbox.end(found.id, status=200, answer=b"", now_s=now_s)
                ended[found.tenant].append(found.id)
            else:
                outbox.again(found.id, due_s=now_s + 2.0)
    outbox.close()

    for tenant, names in ended.items():
        assert names == given[tenant][: len(names)]
