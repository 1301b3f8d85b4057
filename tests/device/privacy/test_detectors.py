"""What is found, and what is left alone."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onhand.device.privacy.credentials import entropy_bits
from onhand.device.privacy.detectors import DETECTORS, find_all, parted
from onhand.device.privacy.digits import luhn_holds, windows
from onhand.device.privacy.spans import Found, is_apart

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"


def found(text: str) -> list[tuple[str, str]]:
    """Kinds, and the parts of the text."""
    return [(one.kind, text[one.start : one.end]) for one in find_all(text)]


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("write to bob@x.com.", "email", "bob@x.com"),
        ("\u90ae\u7bb1zhang.san@qq.com\u8c22\u8c22", "email", "zhang.san@qq.com"),
        ("mail bob @ example.com now", "email", "bob @ example.com"),
        ("bob (at) example (dot) org", "email", "bob (at) example (dot) org"),
        ("li@\u4f8b\u5b50.\u4e2d\u56fd", "email", "li@\u4f8b\u5b50.\u4e2d\u56fd"),
        ("\u7535\u8bdd13800138000\u8bf7", "phone", "13800138000"),
        ("+86 138 0013 8000", "phone", "+86 138 0013 8000"),
        ("(+86) 138-0013-8000", "phone", "(+86) 138-0013-8000"),
        ("\uff11\uff13\uff18\uff10\uff10\uff11\uff13\uff18\uff10\uff10\uff10", "phone", None),
        ("138\u200b0013\u200b8000", "phone", "138\u200b0013\u200b8000"),
        ("1 3 8 0 0 1 3 8 0 0 0", "phone", "1 3 8 0 0 1 3 8 0 0 0"),
        ("\u5ea7\u673a010-87654321", "phone", "010-87654321"),
        ("0571 8765 4321", "phone", "0571 8765 4321"),
        ("(415) 555-2671", "phone", "(415) 555-2671"),
        ("+44 20 7946 0958", "phone", "+44 20 7946 0958"),
        ("06 12 34 56 78", "phone", "06 12 34 56 78"),
        ("07700 900123", "phone", "07700 900123"),
        ("call me at 5551234", "phone", "5551234"),
        ("400-820-8820", "phone", "400-820-8820"),
        ("4111 1111 1111 1111, 12/25", "card", "4111 1111 1111 1111"),
        ("3782-822463-10005", "card", "3782-822463-10005"),
        ("DE89 3704 0044 0532 0130 00", "iban", "DE89 3704 0044 0532 0130 00"),
        ("gb82west12345698765432", "iban", "gb82west12345698765432"),
        ("11010519491231002x", "id", "11010519491231002x"),
        ("\u8eab\u4efd\u8bc1 130503670401001", "id", "130503670401001"),
        ("078-05-1120", "id", "078-05-1120"),
        ("my SSN is 078051120", "id", "078051120"),
        ("QQ 12 34 56 C".replace("QQ", "AB"), "id", "AB 12 34 56 C"),
        ("HKID A123456(3)", "id", "A123456(3)"),
        ("passport no. E12345678", "id", "E12345678"),
        ("ping 192.168.1.20:8080", "host", "192.168.1.20"),
        ("fe80::1%eth0 is up", "host", "fe80::1%eth0"),
        ("at 2001:db8::8a2e:370:7334", "host", "2001:db8::8a2e:370:7334"),
        ("00:1a:2b:3c:4d:5e", "host", "00:1a:2b:3c:4d:5e"),
        ("001a.2b3c.4d5e", "host", "001a.2b3c.4d5e"),
        ("ssh nas.local", "host", "nas.local"),
        ("see https://bob:pw@example.com/x.", "url", "https://bob:pw@example.com/x"),
        ("https://e.com/?token=abcdefgh", "url", "https://e.com/?token=abcdefgh"),
        ("key sk-proj-abcdefghijklmnop1234567890", "secret", None),
        ("AKIAIOSFODNN7EXAMPLE", "secret", "AKIAIOSFODNN7EXAMPLE"),
        (f"token {JWT} ok", "secret", JWT),
        (f"keep {PEM} safe", "secret", PEM),
        ("-----BEGIN PRIVATE KEY-----\nMIIE cut off", "secret", None),
        ("password: hunter2x", "secret", "hunter2x"),
        ("\u5bc6\u7801\u662fabc123XYZ", "secret", "abc123XYZ"),
        ("\u9a8c\u8bc1\u7801\uff1a482913", "secret", "482913"),
        ("API_KEY=9f8e7d6c5b4a39281706", "secret", "9f8e7d6c5b4a39281706"),
        ("the token you want is this: 9f8e7d6c5b4a39281706", "secret", "9f8e7d6c5b4a39281706"),
    ],
)
def test_what_is_personal_is_found(text: str, kind: str, part: str | None) -> None:
    """One kind each; a part of None is any."""
    ((found_kind, found_part),) = found(text)

    assert found_kind == kind
    assert part is None or found_part == part


@pytest.mark.parametrize(
    "text",
    [
        "logo@2x.png and git@github.com:a/b.git and @user",
        "release 10.4.2.1, section 1.2.3.4, v2.10.3",
        "ISBN 978-3-16-148410-0, ISSN 2049-3630",
        "2023-11-05 14:30:22, 05/11/2023, 1999-2003",
        "order 20231105123456, invoice no. 202311050001",
        "md5 d41d8cd98f00b204e9800998ecf8427e",
        "4111 1111 1111 1112 and 0000 0000 0000 0000",
        "110105194912310021 and 110105194913310029",
        "DE88 3704 0044 0532 0130 00",
        "127.0.0.1, 0.0.0.0, ::1, 12:30:45, std::vector, abc::def",
        "self.local, threading.local()",
        "password is incorrect; the token count is 4096; a secret garden",
        "1,234,567 people, 3.14159265, 100%, $1,299.00",
        "twenty @-@ five , 1 @,@ 000 m",
        "000-12-3456 666-12-3456 123-00-4567 987-65-4320",
        "https://example.com/path?page=2",
        "",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    """Versions, dates, books, hashes, wrong check digits, programs."""
    assert found(text) == []


def test_the_same_value_is_one_however_it_is_written() -> None:
    """Spaces, dashes and a country's code make no other telephone."""
    values = {one.value for one in find_all("13800138000, 138-0013-8000 / +86 138 0013 8000")}

    assert values == {"13800138000"}


def test_an_address_with_credentials_is_one_find() -> None:
    """Of what overlaps the first kind stays, and covers all."""
    text = "postgres://bob:pw@10.0.0.5:5432/db?password=hunter2x"

    assert found(text) == [("url", text)]


def test_names_are_found_where_something_finds_them() -> None:
    """A detector of names is one more."""

    def names(text: str) -> list[Found]:
        at = text.find("Ada")
        return [Found(kind="name", start=at, end=at + 3, value="ada")]

    assert [one.kind for one in find_all("Ada: ada@x.org", names=names)] == ["name", "email"]


@given(
    spans=st.lists(
        st.tuples(
            st.sampled_from(["secret", "phone", "host"]), st.integers(0, 30), st.integers(1, 9)
        ),
        max_size=12,
    )
)
def test_nothing_that_was_found_is_lost_to_another(spans: list[tuple[str, int, int]]) -> None:
    """Parts do not overlap, and cover what was found."""
    given = [
        Found(kind=kind, start=start, end=start + size, value="x")  # type: ignore[arg-type]
        for kind, start, size in spans
    ]

    kept = parted(given)

    assert all(one.end <= other.start for one, other in pairwise(kept))
    covered = {place for one in kept for place in range(one.start, one.end)}
    assert covered == {place for one in given for place in range(one.start, one.end)}


@given(text=st.text(alphabet=st.sampled_from("a1@.:-+/ (中[%\\u00e9\u200b\uff11=\n"), max_size=200))
def test_finds_lie_within_the_text(text: str) -> None:
    """Whatever stands there: in order, apart, not empty."""
    spans = [(one.start, one.end) for one in find_all(text)]

    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(one[1] <= other[0] for one, other in pairwise(spans))


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize(
    "unit",
    ["a@", "1", "1 ", "1-", "a.", "://", "eyJ", "password ", "::", "1.", "A1", "(", "sk-", "="],
)
def test_attack_text_that_makes_a_detector_slow(kind: str, unit: str) -> None:
    """Steps grow with the length, not with its square: a fourfold text takes few times as many."""
    detector = DETECTORS[kind]  # type: ignore[index]

    assert sum(1 for _ in detector(unit * 3000)) <= 3000


@given(digits=st.text(alphabet="0123456789", min_size=1, max_size=18))
def test_a_check_digit_makes_a_number_hold(digits: str) -> None:
    """Exactly one digit does."""
    assert sum(luhn_holds(f"{digits}{check}") for check in range(10)) == 1


def test_windows_bound_their_digits() -> None:
    """All neighbours of a run whose digits are few enough, the longest first."""
    digits = [one.digits for one in windows("no 12 34-56 78", least=4, most=6)]

    assert digits == ["123456", "1234", "345678", "3456", "5678"]


def test_letters_touch_and_chinese_does_not() -> None:
    """Chinese is written without spaces."""
    assert is_apart("\u75351\u8bdd", 1, 2)
    assert not is_apart("a1 ", 1, 2)


def test_entropy_of_letters() -> None:
    """None for one letter, one bit for two, two for four."""
    assert [entropy_bits(text) for text in ("aaaa", "abab", "abcd")] == [0, 1, 2]


def test_issuers_and_countries_need_their_form() -> None:
    """A number that Luhn accepts is no card without an issuer, a plus is no phone alone."""
    assert luhn_holds("1234567812345670")
    assert found("1234567812345670") == []
    assert found("+999 1234 5678") == []
    assert re.fullmatch(r"\+1 \d+", "+1 1234567890")
    assert found("+1 1234567890") == []
