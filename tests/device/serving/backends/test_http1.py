"""Answers of HTTP/1.1 in whatever parts they come, and those that are none."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onhand.core.errors import InputError
from onhand.device.serving.backends.http1 import ReplyReader, request_bytes

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: 1\r\na: 2\r\n\r\n"
STREAM = CHUNKED + b"5\r\nhello\r\n1;x=y\r\n \r\n00a\r\nworld of i\r\n0\r\nT: x\r\n\r\n"


def read(*parts: bytes, is_closed: bool = False) -> tuple[ReplyReader, bytes]:
    """What a reader makes of parts, and of the end of the connection."""
    reader = ReplyReader()
    body = b"".join(reader.push(part) for part in parts)
    if is_closed:
        reader.finish()
    return reader, body


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_an_answer_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    """Between two packets may be any place."""
    places = [0, *sorted(cuts), len(STREAM)]
    reader, body = read(*(STREAM[a:b] for a, b in pairwise(places)))

    assert body == b"hello world of i"
    assert reader.head is not None
    assert (reader.head.status, reader.head.headers["a"]) == (200, "1, 2")
    assert (reader.is_done, reader.keeps) == (True, True)


@settings(max_examples=40)
@given(data=st.binary(max_size=300), cut=st.integers(1, 50))
def test_attack_any_bytes(data: bytes, cut: int) -> None:
    """They are an answer, a part of one, or refused; nothing else happens."""
    for before in (b"", b"HTTP/1.1 200 OK\r\n", CHUNKED):
        reader = ReplyReader()
        try:
            for at in range(0, len(before + data), cut):
                reader.push((before + data)[at : at + cut])
            reader.finish()
        except InputError:
            continue
        assert reader.is_done


@pytest.mark.parametrize(
    ("head", "body", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b"abc", True),
        (b"HTTP/1.1 200\r\ncontent-length:3, 3\r\n\r\n", b"abc", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Close\r\n\r\n", b"abc", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", b"abc", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", b"abc", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n", b"", True),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", b"", True),
    ],
)
def test_where_an_answer_ends(head: bytes, body: bytes, keeps: bool) -> None:
    """By its length, or because it has no body; then the connection may carry another."""
    reader, found = read(head + body)

    assert (found, reader.is_done, reader.keeps) == (body, True, keeps)


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    """Which carries no other one then."""
    reader, found = read(b"HTTP/1.1 200 OK\r\n\r\nab", b"c", is_closed=True)

    assert (found, reader.is_done, reader.keeps) == (b"abc", True, False)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\n" * 17,
        b"HTTP/1.1 200 OK\r\nA : 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n A: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: 1\n B: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"x\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"0x5\r\n",
        CHUNKED + b"5\r\nhello!\r\n",
        CHUNKED + b"f" * 16 + b"\r\n",
        CHUNKED + b"5;" + b"x" * 5000,
        CHUNKED + b"0\r\nno header\r\n\r\n",
        CHUNKED + b"0\r\n" + b"a: " + b"b" * 4000 + b"\r\n" + (b"a: " + b"b" * 4000 + b"\r\n") * 5,
    ],
)
def test_attack_what_two_readers_could_take_for_two_answers(data: bytes) -> None:
    """It is refused, not guessed at."""
    with pytest.raises(InputError):
        read(data)


@pytest.mark.parametrize("cut", [0, 10, len(CHUNKED), len(CHUNKED) + 4, len(STREAM) - 1])
def test_an_answer_that_breaks_off_is_said(cut: int) -> None:
    """Wherever it does; half an answer is not taken for one."""
    with pytest.raises(InputError, match="before the answer"):
        read(STREAM[:cut], is_closed=True)


def test_attack_more_than_was_asked_for() -> None:
    """What comes after an answer would be taken for the next one's: the connection is not kept."""
    reader, body = read(STREAM + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    assert body == b"hello world of i"
    assert (reader.is_done, reader.keeps) == (True, False)


def test_a_request_has_its_length_and_its_host() -> None:
    """Nothing that was not asked for."""
    request, n_headers = request_bytes(
        "POST", host="far:8000", target="/v1/x", headers={"a": "1"}, body=b"{}"
    )

    assert (
        request == b"POST /v1/x HTTP/1.1\r\nhost: far:8000\r\na: 1\r\ncontent-length: 2\r\n\r\n{}"
    )
    assert n_headers == len(b"host: far:8000\r\na: 1\r\ncontent-length: 2\r\n")


@pytest.mark.parametrize(
    "headers",
    [{"a": "1\r\nb: 2"}, {"a": "\n"}, {"a": "\x00"}, {"a b": "1"}, {"": "1"}, {"a": "灯"}],
)
def test_attack_a_header_that_ends_before_its_end(headers: dict[str, str]) -> None:
    """A key or an id with a line end in it would be another header."""
    with pytest.raises(InputError, match="cannot be sent"):
        request_bytes("GET", host="far", target="/", headers=headers, body=b"")
