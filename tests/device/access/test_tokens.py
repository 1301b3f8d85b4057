"""Tokens and what is kept of them."""

import pytest

from onhand.device.access.tokens import Token, hash_of, is_of, new_token, parse_token


def test_a_token_is_read_as_it_was_made() -> None:
    """Its text holds both parts, its representation no secret."""
    made = new_token()

    assert parse_token(made.text()) == made
    assert made.secret not in repr(made)
    assert len(made.secret) == 43  # 32 bytes


def test_tokens_come_from_the_randomness_given() -> None:
    """Eight bytes for the id, 32 for the secret."""
    assert new_token(bytes).text() == f"onhand_{'00' * 8}_{'A' * 43}"


def test_a_hash_is_of_one_id_and_one_secret() -> None:
    """Another id with the same secret is another token; the hash holds neither."""
    made = new_token()
    other = Token("0" * 16, made.secret)

    assert is_of(made, hash_of(made))
    assert not is_of(other, hash_of(made))
    assert not is_of(Token(made.id, new_token().secret), hash_of(made))
    assert made.secret not in hash_of(made)


@pytest.mark.parametrize(
    "text", ["", "onhand_", "onhand_0_x", "Onhand_" + "0" * 16 + "_" + "A" * 43, "é" * 60]
)
def test_attack_what_is_no_token(text: str) -> None:
    """It is nobody's, whatever is in it."""
    assert parse_token(text) is None
    assert parse_token(new_token().text() + "\n") is None
