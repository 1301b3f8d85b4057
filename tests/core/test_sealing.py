"""Sealed files and records: what was written comes back, and nothing else does."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onhand.core.errors import InputError, ResourceError, SealBroken, VaultError
from onhand.core.sealing import (
    HEADER_BYTES,
    SealedReader,
    SealedWriter,
    StoreKeys,
    derived_key,
    is_sealed,
    is_sealed_file,
    open_record,
    read_sealed,
    seal_bytes,
    seal_record,
    sealed_size,
    unseal_bytes,
    write_sealed,
)

KEYS = StoreKeys("memory", {1: b"a" * 32})
FRAME = 64
FRAME_SEALED = FRAME + 16


def sealed_of(content: bytes, *, name: str = "n", keys: StoreKeys = KEYS) -> bytes:
    """Content in frames of 64 bytes."""
    made = io.BytesIO()
    with SealedWriter(made, keys, name=name, frame_bytes=FRAME) as writer:
        writer.write(content)
    return made.getvalue()


def opened(sealed: bytes, *, name: str = "n", keys: StoreKeys = KEYS) -> SealedReader:
    """A reader of some bytes."""
    return SealedReader(io.BytesIO(sealed), keys, name=name)


@given(pieces=st.lists(st.binary(max_size=200), max_size=6))
@example(pieces=[b"a", b"b" * 3 * FRAME])
def test_what_was_written_comes_back_in_any_pieces(pieces: list[bytes]) -> None:
    """However a content is cut into writes, it comes back, and its size is the one foretold."""
    made = io.BytesIO()
    with SealedWriter(made, KEYS, name="n", frame_bytes=FRAME) as writer:
        for piece in pieces:
            writer.write(piece)
        writer.close()  # the block's own end does it again, and adds nothing
    content = b"".join(pieces)

    assert unseal_bytes(KEYS, made.getvalue(), name="n") == content
    assert len(made.getvalue()) == sealed_size(len(content), frame_bytes=FRAME)


@given(size=st.integers(0, 300), data=st.data())
def test_any_range_reads_as_of_the_plain_content(size: int, data: st.DataObject) -> None:
    """A range of the sealed file is that range of the content."""
    content = os.urandom(size)
    offset = data.draw(st.integers(0, size))
    length = data.draw(st.integers(0, size - offset))

    assert opened(sealed_of(content)).read(offset, length) == content[offset : offset + length]


@given(size=st.integers(0, 300), data=st.data())
def test_attack_any_flipped_bit_is_seen(size: int, data: st.DataObject) -> None:
    """One bit changed anywhere, in header, frames or tags, and the file does not open."""
    sealed = bytearray(sealed_of(os.urandom(size)))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8

    with pytest.raises(VaultError):
        unseal_bytes(KEYS, bytes(sealed), name="n")


@given(size=st.integers(0, 300), data=st.data())
def test_attack_any_cut_is_seen_when_it_is_opened(size: int, data: st.DataObject) -> None:
    """A file cut anywhere, at a frame's end as well, is refused before anything is read."""
    sealed = sealed_of(os.urandom(size))
    kept = data.draw(st.integers(0, len(sealed) - 1))

    with pytest.raises(SealBroken):
        opened(sealed[:kept])


@given(more=st.binary(min_size=1, max_size=200))
def test_attack_any_extension_is_seen_when_it_is_opened(more: bytes) -> None:
    """Bytes behind the end are refused."""
    with pytest.raises(SealBroken):
        opened(sealed_of(bytes(150)) + more)


def test_attack_a_frame_repeated_at_the_end_is_seen() -> None:
    """A valid last frame does not stand twice."""
    sealed = sealed_of(bytes(2 * FRAME))

    with pytest.raises(SealBroken, match="does not open"):
        opened(sealed + sealed[-FRAME_SEALED:])


def test_attack_frames_in_another_order_are_seen() -> None:
    """Two frames that change places open neither here nor there."""
    sealed = sealed_of(os.urandom(3 * FRAME))
    first, second, third = (
        sealed[HEADER_BYTES + i * FRAME_SEALED :][:FRAME_SEALED] for i in range(3)
    )
    reader = opened(sealed[:HEADER_BYTES] + second + first + third)

    with pytest.raises(SealBroken, match="frame 0 of 3 does not open"):
        reader.frame(0)


def test_attack_a_frame_of_another_file_is_seen() -> None:
    """A frame from the same place of another file of the same store does not open."""
    one, other = sealed_of(bytes(2 * FRAME)), sealed_of(bytes(2 * FRAME))
    middle = HEADER_BYTES + FRAME_SEALED

    with pytest.raises(SealBroken):
        opened(one[:middle] + other[middle:])


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("other", KEYS),
        ("n", StoreKeys("outbox", KEYS.secrets)),
        ("n", StoreKeys("memory", {1: b"b" * 32})),
    ],
    ids=["another name", "another store", "another key"],
)
def test_attack_a_file_under_another_name_store_or_key_is_seen(name: str, keys: StoreKeys) -> None:
    """A whole file put in the place of another one does not open."""
    with pytest.raises(SealBroken, match="under this name"):
        opened(sealed_of(b"content"), name=name, keys=keys)


def test_the_content_is_not_in_the_file_and_no_two_files_are_equal() -> None:
    """Nothing of the content shows, not even that two files hold the same."""
    content = b"the kitchen lamp is on"

    one, other = (seal_bytes(KEYS, content, name="n") for _ in range(2))

    assert content not in one
    assert one[HEADER_BYTES:] != other[HEADER_BYTES:]


def test_an_older_key_reads_and_the_newest_writes() -> None:
    """After a rotation what was sealed before opens, and a new file names the new key."""
    old = seal_bytes(KEYS, b"before", name="n")
    both = StoreKeys("memory", {**KEYS.secrets, 2: b"c" * 32})

    assert unseal_bytes(both, old, name="n") == b"before"
    assert opened(seal_bytes(both, b"", name="n"), keys=both).key_id == 2


def test_a_key_that_is_gone_is_said() -> None:
    """Whoever lost a key hears which."""
    sealed = seal_bytes(KEYS, b"x", name="n")

    with pytest.raises(VaultError, match="key 1 of store 'memory', which is not in this vault"):
        unseal_bytes(StoreKeys("memory", {2: b"c" * 32}), sealed, name="n")


def test_keys_do_not_show() -> None:
    """A key in a message or a log would be lost."""
    assert "aaaa" not in repr(KEYS)


def test_a_writer_that_broke_off_leaves_nothing_that_opens(tmp_path: Path) -> None:
    """A file without its last frame is none, and what stood there before stays."""
    made = io.BytesIO()

    def fail(writer: SealedWriter) -> None:
        writer.write(bytes(1000))
        raise ValueError("the caller's")

    with pytest.raises(ValueError, match="the caller's"):  # noqa: SIM117 (one thing each)
        with SealedWriter(made, KEYS, name="n", frame_bytes=FRAME) as writer:
            fail(writer)
    with pytest.raises(ValueError, match="the caller's"):
        write_sealed(tmp_path / "f", KEYS, fail, name="n")

    with pytest.raises(SealBroken):
        opened(made.getvalue())
    assert list(tmp_path.iterdir()) == []


def test_files_are_written_whole_and_for_their_owner(tmp_path: Path) -> None:
    """A file on the disk reads back, says that it is sealed, and is its owner's alone."""
    path = tmp_path / "f"
    write_sealed(path, KEYS, lambda writer: writer.write(b"content"), name="n", sync=False)
    write_sealed(path, KEYS, lambda writer: writer.write(b"renewed"), name="n")

    assert read_sealed(path, KEYS, name="n", most_bytes=7) == b"renewed"
    assert is_sealed_file(path)
    assert is_sealed(path.read_bytes())
    assert not is_sealed_file(tmp_path / "missing")
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(SealBroken, match="7 bytes, at most 6"):
        read_sealed(path, KEYS, name="n", most_bytes=6)


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    """What cannot be written is an error of the machine, with the place."""
    with pytest.raises(ResourceError, match="cannot be written"):
        write_sealed(tmp_path / "a" / "f", KEYS, lambda writer: writer.write(b""), name="n")


@pytest.mark.parametrize("frame_bytes", [0, 32, 65, 2**27])
def test_a_frame_of_an_odd_size_is_refused(frame_bytes: int) -> None:
    """Frames are powers of two within bounds, so a header cannot claim others."""
    with pytest.raises(InputError, match="power of two"):
        SealedWriter(io.BytesIO(), KEYS, name="n", frame_bytes=frame_bytes)


def test_a_range_or_room_that_does_not_fit_is_refused() -> None:
    """Bytes that are not there are not made up."""
    reader = opened(sealed_of(b"content"))

    with pytest.raises(InputError, match="it has 7"):
        reader.read(3, 5)
    with pytest.raises(InputError, match="do not fit"):
        reader.read_into(bytearray(6))


@given(content=st.binary(max_size=100), context=st.binary(max_size=20))
def test_a_record_comes_back_in_its_context(content: bytes, context: bytes) -> None:
    """A cell opens where it was sealed."""
    assert open_record(KEYS, seal_record(KEYS, content, context=context), context=context) == (
        content
    )


@given(content=st.binary(max_size=50), data=st.data())
def test_attack_a_changed_or_cut_record_is_seen(content: bytes, data: st.DataObject) -> None:
    """One bit, or one byte less, and the record does not open."""
    sealed = bytearray(seal_record(KEYS, content, context=b"c"))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    cut = bytes(sealed[: bit // 8])
    sealed[bit // 8] ^= 1 << bit % 8

    for attacked in (bytes(sealed), cut):
        with pytest.raises(VaultError):
            open_record(KEYS, attacked, context=b"c")


def test_attack_a_record_of_another_row_or_store_is_seen() -> None:
    """A cell moved to another row or store does not open; names cannot run into each other."""
    sealed = seal_record(StoreKeys("ab", KEYS.secrets), b"content", context=b"c")

    for store, context in (("ab", b"d"), ("a", b"bc"), ("abc", b"")):
        with pytest.raises(SealBroken, match="another place"):
            open_record(StoreKeys(store, KEYS.secrets), sealed, context=context)


def test_a_context_without_end_is_refused() -> None:
    """Lengths are kept in two bytes."""
    with pytest.raises(InputError, match="at most 65535"):
        seal_record(KEYS, b"", context=bytes(2**16))


def test_derived_keys_differ_by_purpose_and_salt() -> None:
    """A key for one purpose is none for another."""
    made = {derived_key(b"a" * 32, purpose=p, salt=s) for p in "xy" for s in (b"", b"1")}

    assert len(made) == 4
