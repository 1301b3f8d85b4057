"""serve.toml: every slip is a sentence that names the place."""

import hashlib

import pytest

from onhand.core.errors import RecipeError
from onhand.device.access.doorkeeper import Admission, Denial
from onhand.device.serving.entrance import doorkeeper_of
from onhand.device.serving.settings import ANONYMOUS, ServeSettings, parse_settings

WHOLE = """
[server]
port = 9000
hosts = ["box.local"]
ping_s = 5

[[model]]
bundle = "bundles/house"
name = "house"
max_active = 4

[[model]]
bundle = "/elsewhere/stories"

[[key]]
tenant = "phone"
env = "PHONE_KEY"

[[key]]
tenant = "tablet"
sha256 = "%s"
"""
PHONE, TABLET = "a-long-secret-of-the-phone", "a-long-secret-of-the-tablet"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def parsed(text: str, **environment: str) -> ServeSettings:
    return parse_settings(text, environment=environment, where="/etc/onhand/serve.toml")


def test_all_of_it_is_read() -> None:
    """Bundles are found beside the file; keys are kept as digests alone."""
    found = parsed(WHOLE % digest(TABLET), PHONE_KEY=PHONE)

    assert (found.server.port, found.server.hosts, found.server.ping_s) == (9000, ("box.local",), 5)
    assert [model.bundle for model in found.models] == [
        "/etc/onhand/bundles/house",
        "/elsewhere/stories",
    ]
    assert found.models[0].limits.max_active == 4
    assert set(found.tenants.values()) == {"phone", "tablet"}
    door = doorkeeper_of(found)
    who = [door.admit(one, method="GET", path="/health") for one in (PHONE, TABLET, "x", None)]
    assert [one.tenant if isinstance(one, Admission) else one.status for one in who] == [
        *("phone", "tablet", 401, 401)
    ]
    assert PHONE not in repr(found)


def test_everybody_on_the_device_is_one_where_it_is_open() -> None:
    """And nobody is anybody where that is not said."""
    for token in (None, "x"):
        found = doorkeeper_of(parsed("[access]\nopen = true")).admit(
            token, method="GET", path="/health"
        )
        assert isinstance(found, Admission)
        assert found.tenant == ANONYMOUS
        closed = doorkeeper_of(parsed("")).admit(token, method="GET", path="/health")
        assert isinstance(closed, Denial)
        assert closed.status == 401


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server", "is not TOML"),
        ("[sever]", "did you mean 'server'"),
        ("server = 1", "must be a table"),
        ("[model]", r"write \[\[model\]\]"),
        ("[server]\nprot = 1", "server: unknown option 'prot'; did you mean 'port'"),
        ("[server]\nport = '1'", "port is '1', must be like 8321"),
        ("[server]\nport = 70000", "port is 70000"),
        ("[server]\nhost = '0.0.0.0'", "needs TLS"),
        ("[server]\nping_s = 0", "ping_s is 0"),
        ("[server]\nping_s = nan", "ping_s is nan"),
        ("[server]\nmax_body_bytes = 1", "max_body_bytes is 1"),
        ("[server]\norigins = ['evil']", "origin 'evil'"),
        ("[[model]]", "model 1: .*bundle"),
        ("[[model]]\nbundle = 7", "model 1: bundle is 7, must be a text"),
        ("[[model]]\nbundle = ''", "model 1: bundle is ''"),
        ("[[model]]\nbundle = 'a'\nname = '<b>'", "model 1: name '<b>'"),
        ("[[model]]\nbundle = 'a'\nmax_active = 0", "model 1: limits: max_active is 0"),
        ("[[model]]\nbundle = 'a'\ncontext = -1", "model 1: context is -1"),
        ("[[key]]\ntenant = 'a'", "give env or sha256"),
        ("[[key]]\ntenant = 'a'\nsha256 = 'x'", "64 digits"),
        ("[[key]]\ntenant = 'a'\nenv = 'MISSING'", "environment variable MISSING"),
        ("[[key]]\ntenant = 'a'\nenv = 'SHORT'", "16 characters"),
        ("[[key]]\ntenant = 'a b'\nenv = 'KEY'", "tenant is 'a b'"),
        (
            "[[key]]\ntenant = 'a'\nenv = 'KEY'\n[[key]]\ntenant = 'b'\nenv = 'KEY'",
            "key 2: the token is that of 'a' already",
        ),
    ],
)
def test_slips_are_named(text: str, said: str) -> None:
    """With the file, the table and the number."""
    with pytest.raises(RecipeError, match=said):
        parsed(text, SHORT="x", KEY=PHONE)


def test_memory_is_shared_as_the_settings_say() -> None:
    """A budget, how models share it, when each is opened, and who may manage them."""
    found = parsed(
        f"""
[server]
memory_bytes = 1000000
[shelf]
stay_factor = 2
watch_s = 0
[[model]]
bundle = "a"
load = "demand"
keep_s = 60
[[key]]
tenant = "keeper"
sha256 = "{digest(PHONE)}"
may_manage = true
"""
    )

    assert found.server.memory_bytes == 1000000
    assert (found.shelf.stay_factor, found.shelf.watch_s, found.shelf.margin) == (2, 0, 0.1)
    assert (found.models[0].load, found.models[0].keep_s) == ("demand", 60)
    assert found.managers == {"keeper"}
    assert found.shelf.stay_s(0.1) == 1.0
    assert found.shelf.stay_s(3.0) == 6.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nmemory_bytes = -1", "memory_bytes is -1, must be 0 or more"),
        ("[shelf]\nmargin = 1.0", "shelf: margin is 1.0, must be from 0 to below 1"),
        ("[shelf]\nmost_wait_s = nan", "most_wait_s is nan, must be above 0"),
        ("[shelf]\nwatch_s = -1", "watch_s is -1.0, must be 0 or more"),
        ("[shelf]\nwatchs = 1", "did you mean 'watch_s'"),
        ("[[model]]\nbundle = 'a'\nload = 'later'", "load is 'later', must be 'start' or 'demand'"),
        ("[[model]]\nbundle = 'a'\nkeep_s = -1", "keep_s is -1.0, must be 0 or more"),
    ],
)
def test_slips_about_memory_are_sentences(text: str, message: str) -> None:
    """With the place and what was meant."""
    with pytest.raises(RecipeError, match=message):
        parsed(text)
