"""Recipients as people pass them on."""

import pytest

from onhand.core.errors import InputError
from onhand.core.sealed_header import parse_recipient, public_of, recipient_text

MINE = b"m" * 32


def test_recipients_are_told_from_slips() -> None:
    """A text comes back, one digit wrong does not."""
    public = public_of(MINE)
    text = recipient_text(public)

    assert parse_recipient(f" {text}\n") == public
    for wrong in (text[:-1] + ("0" if text[-1] != "0" else "1"), "x25519:12", ""):
        with pytest.raises(InputError, match="recipient"):
            parse_recipient(wrong)
