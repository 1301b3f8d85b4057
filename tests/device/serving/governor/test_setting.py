"""`[governor]` in `serve.toml`: checked as a whole before anything starts."""

import pytest

from onhand.core.errors import RecipeError
from onhand.device.serving.governor.setting import GovernorSettings
from onhand.device.serving.settings import parse_settings


def parsed(text: str) -> GovernorSettings:
    return parse_settings(f"[governor]\n{text}", environment={}).governor


def test_defaults_adjust_without_a_target() -> None:
    """A server without the table has a governor that knows no target."""
    assert parse_settings("", environment={}).governor == GovernorSettings()
    assert (parsed("").enabled, parsed("").token_s, parsed("").dwell_s) == (True, 0, 30)


def test_every_key_is_read() -> None:
    """Whole numbers stand for others, lists for names."""
    found = parsed("token_s = 1\nvariants = ['int4']\nleast_threads = 2\nenabled = false")

    assert (found.token_s, found.variants) == (1.0, ("int4",))
    assert (found.least_threads, found.enabled) == (2, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tokens_s = 1", "did you mean 'token_s'"),
        ("token_s = -1", "token_s is -1.0, must be from 0.0 to 3600.0"),
        ("token_s = nan", "token_s is nan"),
        ("interval_s = 0", "interval_s is 0.0, must be from 0.1"),
        ("calm = 1", "calm is 1.0"),
        ("dwell_s = 2", "urgent_s is 5.0, must be at most dwell_s, which is 2.0"),
        ("lowest_battery = 20", "lowest_battery is 20.0, must be from 0.0 to 1.0"),
        ("least_active = 0", "least_active is 0"),
        ("variants = [1]", "must be names of variants"),
        ("variants = 'int4'", "must be like"),
        ("enabled = 1", "must be like True"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    """With its place, and what it must be."""
    with pytest.raises(RecipeError, match=f"serve.toml: governor: .*{message}"):
        parsed(text)
