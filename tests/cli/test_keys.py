"""`onhand keys`: made once, listed without secrets, taken back at once."""

import json
from pathlib import Path

import pytest

from onhand.cli.keys import parse_span_s
from onhand.cli.main import main
from onhand.core.errors import InputError
from onhand.device.access.store import KeyStore
from onhand.device.access.tokens import is_of, parse_token

Capture = pytest.CaptureFixture[str]


def test_a_key_is_made_shown_once_listed_and_revoked(home: Path, capsys: Capture) -> None:
    """Its token alone is on stdout; the list has neither it nor its hash."""
    made = ["keys", "add", "phone", "--model", "house*", "--at-once", "2", "--expires", "30d"]
    assert main(made) == 0
    token = parse_token(capsys.readouterr().out.strip())
    assert token is not None
    key = KeyStore(home).find(token.id)
    assert key is not None
    assert is_of(token, key.hash)
    assert key.grant.models == ("house*",)
    assert key.quota.at_once == 2
    assert key.expires_s == key.made_s + 30 * 86400

    assert main(["keys", "list", "--json"]) == 0
    text = capsys.readouterr().out
    assert [(one["name"], one["state"]) for one in json.loads(text)["keys"]] == [("phone", "valid")]
    assert token.secret not in text
    assert key.hash not in text
    assert main(["keys"]) == 0
    assert "house*" in capsys.readouterr().out

    assert main(["keys", "revoke", "phone"]) == 0
    assert "revoked" in capsys.readouterr().out
    assert main(["keys", "revoke", "phone"]) == 2


def test_the_key_of_this_user_is_shown(home: Path, capsys: Capture) -> None:
    """The same one each time; for programs with its file."""
    assert main(["keys", "local"]) == 0
    token = capsys.readouterr().out.strip()
    assert main(["keys", "local", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)

    assert found == {"file": str(home / "access" / "local.token"), "key": token}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add"], "needs NAME"),
        (["revoke"], "needs NAME"),
        (["list", "x"], "takes no NAME"),
        (["list", "--role", "user"], "takes no scope"),
        (["revoke", "x", "--at-once", "1"], "takes no ceiling"),
        (["add", "x", "--role", "user", "--action", "infer"], "choose one"),
        (["add", "x", "--action", "fly"], "must be one of"),
        (["add", "x", "--expires", "soon"], "must be a number"),
        (["add", "../x"], "letters, digits"),
    ],
)
def test_slips_are_said_and_change_nothing(
    home: Path, capsys: Capture, arguments: list[str], said: str
) -> None:
    """With the exit code of a wrong input."""
    assert main(["keys", *arguments]) == 2

    assert said in capsys.readouterr().err
    assert KeyStore(home).listed() == ()


def test_spans_have_a_unit() -> None:
    """A bare number would be a guess."""
    assert [parse_span_s(one) for one in ("90m", "12h", "30d", "2w")] == [
        *(5400, 43200, 2592000, 1209600)
    ]
    for text in ("30", "0d", "-1d", "1y", ""):
        with pytest.raises(InputError):
            parse_span_s(text)
