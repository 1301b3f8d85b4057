"""Whoever changes a log without its key is found out, and each way has a sentence of its own."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.device.audit.kept import KEYS, chain_of, changed, files, found, kept, sign, verdict

from onhand.core.errors import InputError
from onhand.device.audit.heads import Head, append_head, signed_line
from onhand.device.audit.keys import AuditKeys
from onhand.device.audit.records import Record, hash_of, line_of, parse

OTHER = AuditKeys(b"o" * 32, "another")


def test_a_log_that_nobody_touched_is_sound(tmp_path: Path) -> None:
    """All of it, up to the last head; over several files as well."""
    whole = verdict(kept(tmp_path / "1"))
    many = verdict(kept(tmp_path / "2", 40, segment_bytes=4096))

    assert (whole.first, whole.last, whole.heads, whole.after_head) == (1, 10, 1, 0)
    assert whole.findings == many.findings == ()
    assert len(files(tmp_path / "2")) > 2
    assert many.last == 40 + len(files(tmp_path / "2"))


def test_attack_an_edited_record_is_found(tmp_path: Path) -> None:
    """By its own code; the line and the record are named."""
    place = kept(tmp_path)

    def edit(lines: list[bytes]) -> list[bytes]:
        return [*lines[:5], lines[5].replace(b'"who":"a"', b'"who":"b"'), *lines[6:]]

    changed(place, edit)

    (finding,) = verdict(place).findings

    assert finding.kind == "edited"
    assert "line 6: record 6" in finding.sentence


def test_attack_a_record_that_is_no_record_any_more_is_found(tmp_path: Path) -> None:
    """What is no JSON counts as changed, and nothing as missing."""
    place = kept(tmp_path)
    changed(place, lambda lines: [*lines[:4], b"\xff\x00 nothing", *lines[5:]])

    assert found(place) == ["edited"]


def test_attack_a_deleted_record_is_found(tmp_path: Path) -> None:
    """From the middle: those around it do not follow each other."""
    place = kept(tmp_path)
    changed(place, lambda lines: lines[:3] + lines[5:])

    (finding,) = verdict(place).findings

    assert finding.kind == "deleted"
    assert finding.sentence == "records 4 to 5 are missing"


def test_attack_a_deleted_beginning_is_found(tmp_path: Path) -> None:
    """Nothing says that it was to go; a whole file is as a few lines."""
    place = kept(tmp_path, 40, segment_bytes=4096)
    files(place)[0].unlink()

    assert found(place) == ["deleted"]


def test_attack_a_deleted_file_between_others_is_found(tmp_path: Path) -> None:
    """As deleted records."""
    place = kept(tmp_path, 40, segment_bytes=4096)
    files(place)[1].unlink()

    assert found(place) == ["deleted"]


def test_attack_reordered_records_are_found(tmp_path: Path) -> None:
    """Two that changed places."""
    place = kept(tmp_path)
    changed(place, lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]])

    (finding,) = verdict(place).findings

    assert finding.kind == "reordered"
    assert finding.sentence == "record 4 stands after record 5"


def test_attack_a_repeated_record_is_found(tmp_path: Path) -> None:
    """It stands twice."""
    place = kept(tmp_path)
    changed(place, lambda lines: [*lines[:5], lines[4], *lines[5:]])

    assert found(place) == ["reordered"]


def test_attack_a_cut_tail_is_found(tmp_path: Path) -> None:
    """The chain itself is sound; the signed head says how long it was."""
    place = kept(tmp_path)
    changed(place, lambda lines: lines[:7])

    (finding,) = verdict(place).findings

    assert finding.kind == "cut"
    assert "ends with record 7" in finding.sentence
    assert "after record 10" in finding.sentence


def test_attack_a_tail_that_is_cut_within_a_record_is_found(tmp_path: Path) -> None:
    """The piece that is left counts as unfinished."""
    place = kept(tmp_path)
    content = files(place)[0].read_bytes()
    files(place)[0].write_bytes(content[:-20])

    assert found(place) == ["cut"]
    assert verdict(place).unfinished_bytes > 0


def test_attack_a_log_that_is_gone_is_found(tmp_path: Path) -> None:
    """Its heads are left."""
    place = kept(tmp_path)
    shutil.rmtree(place / "log")

    assert found(place) == ["cut"]


def test_attack_a_log_of_another_key_in_its_place_is_found(tmp_path: Path) -> None:
    """Made by whoever knows the format and not the key."""
    place, other = kept(tmp_path / "1"), tmp_path / "2"
    forged(other, OTHER)
    shutil.copy(files(other)[0], files(place)[0])

    assert found(place)[0] == "replaced"
    assert "with this log's key" in verdict(place).findings[0].sentence


def test_attack_another_log_of_the_same_key_in_its_place_is_found(tmp_path: Path) -> None:
    """One that the same device wrote some other time: sound in itself."""
    place, other = kept(tmp_path / "1"), kept(tmp_path / "2", 30)
    shutil.copy(files(other)[0], files(place)[0])

    assert found(place) == ["replaced"]


def test_attack_an_older_copy_in_its_place_is_found(tmp_path: Path) -> None:
    """It lacks what came after it."""
    place = kept(tmp_path)
    chain = chain_of(place / "log")
    before = files(place)[0].read_bytes()
    chain.append([("request", {"id": "later"})])
    sign(chain, place / "heads")
    chain.close()
    files(place)[0].write_bytes(before)

    assert found(place) == ["cut"]


def test_attack_a_record_of_another_log_among_them_is_found(tmp_path: Path) -> None:
    """It has a valid code and the right number."""
    place, other = kept(tmp_path / "1"), kept(tmp_path / "2")
    foreign = files(other)[0].read_bytes().splitlines()[4]
    changed(place, lambda lines: [*lines[:4], foreign, *lines[5:]])

    assert found(place) == ["replaced", "replaced"]


def test_attack_with_the_key_a_rewritten_history_meets_its_heads(tmp_path: Path) -> None:
    """Whoever has the key of the codes and not the second place."""
    place = kept(tmp_path)
    log = parse(files(place)[0].read_bytes().splitlines()[0]).facts["log"]
    shutil.rmtree(place / "log")
    forged(place, KEYS, log=log, n=12)

    assert found(place) == ["replaced"]


def test_attack_missing_heads_are_told(tmp_path: Path) -> None:
    """Nothing else says how long a log should be."""
    place = kept(tmp_path)
    (place / "heads").unlink()

    assert found(place) == ["unanchored"]


@pytest.mark.parametrize("content", [b"not a head\n", b'{"log": 1}\n', b"[]\n", b"\xff\n"])
def test_attack_damaged_heads_are_told(tmp_path: Path, content: bytes) -> None:
    """And the others still count."""
    place = kept(tmp_path)
    (place / "heads").write_bytes((place / "heads").read_bytes() + content)

    assert found(place) == ["unanchored"]
    assert verdict(place).heads == 1


def test_attack_a_forged_head_is_told(tmp_path: Path) -> None:
    """A shorter log with a head of another key."""
    place = kept(tmp_path)
    changed(place, lambda lines: lines[:5])
    lines = files(place)[0].read_bytes().splitlines()
    log = parse(lines[0]).facts["log"]
    (place / "heads").unlink()
    head = Head(log=log, count=5, hash=hash_of(lines[-1]), time="now")
    append_head(place / "heads", signed_line(head, OTHER), most=10)

    assert found(place) == ["unanchored", "unanchored"]


def test_without_the_code_key_hashes_and_heads_are_checked(tmp_path: Path) -> None:
    """As whoever has the public key alone does."""
    place = kept(tmp_path)
    assert verdict(place, with_code=False).findings == ()
    changed(place, lambda lines: [line.replace(b'"id":"4"', b'"id":"5"') for line in lines])

    kinds = [finding.kind for finding in verdict(place, with_code=False).findings]

    assert kinds == ["edited"]


def test_without_its_heads_a_cut_is_not_found(tmp_path: Path) -> None:
    """What the second place is for: with the control gone, the attack succeeds but for a word."""
    place = kept(tmp_path)
    changed(place, lambda lines: lines[:5])
    (place / "heads").unlink()

    assert "cut" not in found(place)


def test_without_codes_an_edited_last_record_is_not_found(tmp_path: Path) -> None:
    """What codes are for: nothing follows the last record but its head."""
    place = kept(tmp_path)
    (place / "heads").unlink()
    changed(place, lambda lines: [line.replace(b'"id":"8"', b'"id":"5"') for line in lines])

    kinds = [finding.kind for finding in verdict(place, with_code=False).findings]

    assert kinds == ["unanchored"]
    assert found(place) == ["edited", "unanchored"]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_attack_any_changed_byte_is_found(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever it is, and whatever it becomes."""
    place = kept(tmp_path_factory.mktemp("log"), 3)
    content = bytearray(files(place)[0].read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    files(place)[0].write_bytes(content)

    assert found(place)


@given(st.binary(max_size=300))
def test_attack_any_line_is_a_record_or_refused(line: bytes) -> None:
    """No other error comes of it."""
    with suppress(InputError):
        assert parse(line).seq > 0


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b"[]",
        b'{"facts":{},"kind":"a","previous":"b","seq":1,"time":"c"}',
        b'{"facts":{},"kind":"a","previous":"' + b"0" * 64 + b'","seq":true,"time":"c"}',
        b'{"facts":{},"kind":1,"previous":"' + b"0" * 64 + b'","seq":1,"time":"c"}',
        b'{"facts":[],"kind":"a","previous":"' + b"0" * 64 + b'","seq":1,"time":"c"}',
    ],
)
def test_attack_records_of_other_shapes_are_refused(text: bytes) -> None:
    """Before anything is done with them."""
    with pytest.raises(InputError):
        parse(b"0" * 64 + b" " + text)
    with pytest.raises(InputError):
        parse(b"x" * 64 + b" " + text)


def forged(place: Path, keys: AuditKeys, *, log: str = "mine", n: int = 10) -> None:
    """A log that somebody wrote with a key."""
    from onhand.device.audit.records import origin

    (place / "log").mkdir(parents=True)
    previous, lines = origin(log), []
    for seq in range(1, n + 1):
        facts = {"log": log} if seq == 1 else {"id": "forged"}
        record = Record(seq=seq, time="now", previous=previous, kind="begin", facts=facts)
        lines.append(line_of(record, keys.code))
        previous = hash_of(lines[-1])
    path = place / "log" / f"records-{1:020d}.log"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
