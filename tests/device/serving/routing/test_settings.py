"""`[routing]`, `[[route]]` and `[outbox]` of serve.toml."""

from typing import Any

import pytest

from onhand.core.errors import InputError, RecipeError
from onhand.device.serving.routing.power import PowerReader
from onhand.device.serving.routing.settings import OutboxSettings, RoutingSettings
from onhand.device.serving.routing.situation import Power
from onhand.device.serving.settings import parse_settings

ALL = """
[routing]
policy = "cascade"
policies = ["local-first", "race"]
privacy = "redact"
daily_budget = 2.5
hedge_share = 0.1
hedge_quantile = 0.9
hedge_s = 0.5
cascade_measure = "margin"
cascade_threshold = 0.4
cascade_window_tokens = 16
cascade_early_tokens = 4
cascade_early = 0.8
cascade_wait_s = 1
cascade_cloud_wait_s = 5
cascade_beside = true

[[route]]
model = "house"
policy = "local-only"
privacy = "private"

[outbox]
most_bytes = 1000000
most_waiting = 10
expire_s = 3600
kept_s = 7200
poll_s = 2
first_s = 3
most_s = 4

[[key]]
tenant = "phone"
env = "A"
privacy = "private"

[[key]]
tenant = "phone"
env = "B"
"""
KEYS = {"A": "a" * 16, "B": "b" * 16}


def test_all_of_it_is_read() -> None:
    """Every key, and of two keys of one tenant the stricter class."""
    settings = parse_settings(ALL, environment=KEYS)

    assert settings.routing.allowed("race") == "race"
    assert settings.routing.judge.measure == "margin"
    assert settings.routing.judge.n_scores == 2
    assert settings.routing.least_privacy == "redact"
    assert settings.routing.cascade_beside
    assert settings.routes[0].policy == "local-only"
    assert settings.outbox.retries.most_s == 4.0
    assert settings.outbox.most_waiting == 10
    assert settings.privacy == {"phone": "private"}


def test_nothing_is_needed() -> None:
    """Without a word, whoever has room answers, and nothing is spent unasked."""
    settings = parse_settings("", environment={})

    assert settings.routing == RoutingSettings()
    assert settings.routing.policy == "balanced"
    assert settings.outbox == OutboxSettings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[routing]\npolicy = "cascad"', "did you mean 'cascade'"),
        ('[routing]\npolicies = ["rase"]', "did you mean 'race'"),
        ('[routing]\npolizy = "race"', "unknown option 'polizy'; did you mean 'policy'"),
        ('[routing]\nprivacy = "privat"', "did you mean 'private'"),
        ("[routing]\nhedge_share = 2", "hedge_share is 2, must be from 0 to 1"),
        ("[routing]\nhedge_quantile = 1", "must be within 0 and 1"),
        ("[routing]\ndaily_budget = -1", "daily_budget is -1"),
        ("[routing]\ncascade_window_tokens = 0", "must be 1 or more"),
        ('[routing]\ncascade_measure = "men"', "did you mean 'mean'"),
        ('[[route]]\nmodel = "a"\npolicy = "x"', "unknown policy 'x'"),
        ('[[route]]\nmodel = "a"\n[[route]]\nmodel = "a"', "a route of 'a' already"),
        ("[outbox]\nmost_bytes = -1", "most_bytes is -1"),
        ("[outbox]\nmost_waiting = 0", "most_waiting is 0"),
        ("[outbox]\npoll_s = 0", "poll_s is 0, must be above 0"),
        ('[[key]]\ntenant = "a"\nenv = "A"\nprivacy = "x"', "privacy: unknown class 'x'"),
    ],
)
def test_slips_are_errors(text: str, told: str) -> None:
    """With what was meant."""
    with pytest.raises(RecipeError, match=told):
        parse_settings(text, environment=KEYS)


def test_a_policy_that_was_not_offered_is_refused() -> None:
    """But a request may always stay on the device."""
    routing = RoutingSettings(policy="balanced", policies=("race",))

    assert routing.allowed("") == "balanced"
    assert routing.allowed("local-only") == "local-only"
    with pytest.raises(InputError, match="but balanced, local-only, race"):
        routing.allowed("cloud-first")


def test_the_battery_is_read_now_and_then() -> None:
    """Not for every request."""
    reads: list[Power] = [Power(battery=0.5, is_plugged=False), Power(battery=0.4)]
    now_s = [0.0]
    reader = PowerReader(read=lambda: reads.pop(0), clock=lambda: now_s[0])

    assert [reader().battery, reader().battery] == [0.5, 0.5]
    now_s[0] = 10.0
    assert reader().battery == 0.4


@pytest.mark.parametrize("found", [None, "none"])
def test_a_device_without_a_battery_is_on_mains(
    found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does every system know what a battery is."""
    import psutil

    if found is None:
        monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    else:
        monkeypatch.delattr(psutil, "sensors_battery", raising=False)

    assert PowerReader()() == Power(battery=None, is_plugged=True)


def test_a_battery_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Percent become a share; a system that does not know whether it is plugged says None."""
    import psutil

    class Found:
        percent = 37
        power_plugged = None

    monkeypatch.setattr(psutil, "sensors_battery", Found, raising=False)

    assert PowerReader()() == Power(battery=0.37, is_plugged=False)
