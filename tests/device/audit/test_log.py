"""Threads record at the same time, none waits for the disk, and a full one is told of."""

import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import pytest
from tests.device.audit.kept import KEYS, WHEN

from onhand.core.errors import InputError, ResourceError
from onhand.device.audit.bodies import seal_bodies, unseal_bodies
from onhand.device.audit.chain import Chain
from onhand.device.audit.keys import audit_keys, known_audit_keys, vault_of
from onhand.device.audit.log import AuditLog, open_audit
from onhand.device.audit.records import Record, parse
from onhand.device.audit.segments import segments_in
from onhand.device.audit.settings import AuditSettings
from onhand.device.audit.verifying import Verdict, verify_folder

SETTINGS = AuditSettings(head_s=0.02)


def opened(home: Path, settings: AuditSettings = SETTINGS) -> AuditLog:
    return open_audit(settings, home, KEYS)


def checked(home: Path, name: str = "chain-1") -> Verdict:
    folder, heads = home / "audit" / name, home / "audit-heads" / f"{name}.heads"
    return verify_folder(folder, heads, public=KEYS.public, code=KEYS.code)


def written(home: Path, name: str = "chain-1") -> list[Record]:
    found = segments_in(home / "audit" / name)
    return [parse(line) for one in found for line in one.path.read_bytes().splitlines()]


def until(is_so: Callable[[], bool]) -> None:
    """Wait for another thread."""
    end_s = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_many_threads_record_at_once(tmp_path: Path) -> None:
    """Every record is there, once, in an unbroken chain with its end signed."""
    log = opened(tmp_path)
    threads = [
        threading.Thread(
            target=lambda i=i: wait([log.record({"id": f"{i}-{j}"}) for j in range(50)])
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()

    ids = [one.facts["id"] for one in written(tmp_path) if one.kind == "request"]
    assert len(ids) == len(set(ids)) == 400
    assert log.counts.written == 400
    assert log.counts.writes <= 400
    assert checked(tmp_path).findings == ()
    assert checked(tmp_path).after_head == 0
    assert [written(tmp_path)[0].kind, written(tmp_path)[-1].kind] == ["begin", "end"]


def test_a_head_is_signed_from_the_first_record_on(tmp_path: Path) -> None:
    """And again when time or records have passed."""
    log = opened(tmp_path)
    assert checked(tmp_path).heads == 1

    log.record({"id": "1"}).result(20)
    until(lambda: log.counts.heads > 1)

    assert checked(tmp_path).after_head == 0
    log.close()


def test_records_wait_for_no_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes for ever holds up nobody."""
    log = opened(tmp_path, replace(SETTINGS, head_records=1))
    may_go = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda handle: may_go.wait(20))

    for number in range(5):
        log.record({"id": str(number)}).result(20)

    assert log.counts.written == 5
    may_go.set()
    log.close()


def test_a_record_is_written_by_whoever_has_it(tmp_path: Path) -> None:
    """No thread is woken, and it is done when the call returns."""
    log = opened(tmp_path, AuditSettings())

    done = [log.record({"id": str(number)}).done() for number in range(5)]
    ids = [one.facts.get("id") for one in written(tmp_path)]
    log.close()

    assert done == [True] * 5
    assert ids[-5:] == ["0", "1", "2", "3", "4"]
    assert log.counts.handed_over == 0


def test_after_a_write_that_took_long_nobody_waits_for_the_disk_himself(tmp_path: Path) -> None:
    """For a while the log's own thread writes; then everybody does again."""
    times = iter([0.0, 0.0, 0.05, 0.1, 0.1, 0.1, 2.0, 2.0, 2.0])
    settings = replace(SETTINGS, head_s=60.0)
    chain = Chain(tmp_path / "log", KEYS.code, segment_bytes=2**20, now=lambda: WHEN)
    log = AuditLog(chain, tmp_path / "heads", KEYS, settings, clock=lambda: next(times))

    log.record({"id": "slow"}).result(20)
    assert log.counts.handed_over == 0
    log.record({"id": "beside"}).result(20)
    until(lambda: log.counts.handed_over == 1)
    log.record({"id": "again"}).result(20)
    log.close()

    assert log.counts.handed_over == 1
    assert log.counts.written == 3


def test_while_the_disk_is_waited_for_the_logs_thread_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may hold up whoever changes what it is writing down."""
    log = opened(tmp_path, replace(SETTINGS, head_records=1))
    may_go, is_waiting = threading.Event(), threading.Event()

    def slow(handle: int) -> None:
        is_waiting.set()
        may_go.wait(20)

    monkeypatch.setattr(os, "fsync", slow)
    log.record({"id": "1"}).result(20)
    is_waiting.wait(20)
    before = log.counts.handed_over

    log.record({"id": "2"}).result(20)
    until(lambda: log.counts.handed_over == before + 1)
    may_go.set()
    log.close()


def test_who_stops_waiting_stops_nobody_else(tmp_path: Path) -> None:
    """A client that goes away while its record is written: it is written, and so are others."""
    log = opened(tmp_path)
    with log._writing:  # noqa: SLF001 - the disk is slow
        first = log.record({"id": "1"})
        first.cancel()
        second = log.record({"id": "2"})

    second.result(20)
    log.close()

    assert log.counts.written == 2


def test_each_process_has_a_chain(tmp_path: Path) -> None:
    """Two servers of one state folder."""
    first, second = opened(tmp_path), opened(tmp_path)
    first.record({"id": "1"}).result(20)
    second.record({"id": "2"}).result(20)
    first.close()
    second.close()

    assert checked(tmp_path, "chain-1").findings == checked(tmp_path, "chain-2").findings == ()
    assert written(tmp_path, "chain-2")[2].facts == {"id": "2"}


@pytest.mark.parametrize("way", ["refuse", "serve"])
def test_a_full_disk_is_told_and_what_was_lost_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Closed, or open, as the settings say; when there is room again it goes on by itself."""
    log = opened(tmp_path, replace(SETTINGS, when_unwritable=way))

    def full(handle: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        failed = log.record({"id": "1"})
        if way == "refuse":
            with pytest.raises(ResourceError, match="cannot be written"):
                failed.result(20)
        else:
            failed.result(20)
        assert log.failure == "No space left on device"
        assert log.is_refusing == (way == "refuse")
    until(lambda: not log.failure)
    log.record({"id": "2"}).result(20)
    log.close()

    assert not log.is_refusing
    assert log.counts.lost == 1
    (lost,) = [one for one in written(tmp_path) if one.kind == "lost"]
    assert lost.facts == {"records": 1, "reason": "No space left on device"}
    assert checked(tmp_path).findings == ()


def test_where_nothing_can_be_written_nothing_starts(tmp_path: Path) -> None:
    """The error says where."""
    (tmp_path / "audit").write_text("a file")

    with pytest.raises(ResourceError, match="audit"):
        opened(tmp_path)


def test_a_second_place_that_fails_is_counted(tmp_path: Path) -> None:
    """Records go on, and the figures say that heads do not."""
    log = opened(tmp_path)
    heads = tmp_path / "audit-heads"
    (heads / "chain-1.heads").unlink()
    heads.rmdir()
    heads.write_text("in the way")

    log.record({"id": "1"}).result(20)
    until(lambda: log.counts.heads_failed > 0)
    log.close()

    assert written(tmp_path)[-1].kind == "end"


def test_old_records_go_by_themselves(tmp_path: Path) -> None:
    """What the settings allow stays, and the rest is provable."""
    few = replace(SETTINGS, segment_bytes=4096, most_bytes=8192)
    log = opened(tmp_path, few)
    wait([log.record({"id": str(number), "pad": "x" * 100}) for number in range(10)])
    for number in range(80):
        log.record({"id": str(number), "pad": "x" * 100}).result(20)
    log.close()
    opened(tmp_path, few).close()
    log = opened(tmp_path, few)
    until(lambda: checked(tmp_path).first > 1)
    log.close()

    assert checked(tmp_path).findings == ()


def test_nothing_is_recorded_after_the_end(tmp_path: Path) -> None:
    """Closing twice is closing once."""
    log = opened(tmp_path)
    log.close()
    log.close()

    with pytest.raises(ResourceError, match="closed"):
        log.record({}).result(20)


def test_the_key_is_its_owners_alone(tmp_path: Path) -> None:
    """Made once; checking makes none, and one that others can read is refused."""
    with pytest.raises(InputError, match="cannot be read"):
        known_audit_keys(tmp_path)
    keys = audit_keys(tmp_path)
    path = tmp_path / "keys" / "audit.key"

    assert known_audit_keys(tmp_path) == audit_keys(tmp_path) == keys
    assert str(path) == keys.source
    if os.name == "posix":
        path.chmod(0o644)
        with pytest.raises(InputError, match="others may read it"):
            known_audit_keys(tmp_path)


def test_a_vault_gives_the_key(tmp_path: Path) -> None:
    """No file is made then."""

    class Vault:
        def key(self, store: str) -> bytes:
            """See `KeyStore`."""
            return store.encode().ljust(32, b"0")

    keys = audit_keys(tmp_path, Vault())

    assert (keys.secret[:5], keys.source) == (b"audit", "the vault")
    assert keys.chains != KEYS.chains  # what was written with a file's key is checked with that
    assert known_audit_keys(tmp_path, Vault()) == keys
    assert vault_of(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_attack_bodies_are_sealed_to_their_request() -> None:
    """Another key or request, or a changed letter, opens nothing."""
    sealed = seal_bodies({"asked": b"a secret"}, KEYS.body, request="1")

    assert unseal_bodies(sealed, KEYS.body, request="1") == {"asked": b"a secret"}
    assert "secret" not in sealed
    for text, key, request in (
        (sealed, KEYS.code, "1"),
        (sealed, KEYS.body, "2"),
        (sealed[:-8] + "AAAAAAA=", KEYS.body, "1"),
        ("not base64", KEYS.body, "1"),
    ):
        with pytest.raises(InputError):
            unseal_bodies(text, key, request=request)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("when_unwritable", "maybe"),
        ("segment_bytes", 10),
        ("most_bytes", -1),
        ("most_body_bytes", 2**30),
        ("head_records", 0),
        ("head_s", 0.0),
        ("keep_days", float("nan")),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    """By their names."""
    with pytest.raises(InputError, match=name):
        replace(SETTINGS, **{name: value})  # type: ignore[arg-type] # as given
