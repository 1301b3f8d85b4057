"""`[[backend]]` and `[balance]`: what is meant is taken, and every slip is named."""

import pytest

from onhand.core.errors import RecipeError
from onhand.device.serving.settings import ServeSettings, parse_settings

KEY = "sk-nobody-may-see-this"
FAR = '[[backend]]\nname = "far"\nurl = "https://example.org/v1"\n'


def parsed(text: str, **environment: str) -> ServeSettings:
    return parse_settings(text, environment=environment, where="/etc/onhand/serve.toml")


def test_all_of_it_is_read() -> None:
    """A key comes from the environment, and is shown nowhere."""
    found = parsed(
        FAR
        + 'env = "FAR_KEY"\nserves = ["house", "far"]\nprice_in = 0.5\nca = "own.pem"\n'
        + '[[backend]]\nname = "shed"\nurl = "http://10.0.0.7:8321/v1"\nkind = "peer"\n'
        + "allow_http = true\nmax_active = 4\n"
        + '[balance]\nchoice = "least-outstanding"\nattempts = 2\n',
        FAR_KEY=f" {KEY}\n",
    )
    far, shed = found.backends

    assert (far.models, far.price_in, far.place) == (("house", "far"), 0.5, "cloud")
    assert far.ca == "/etc/onhand/own.pem"
    assert found.secrets["far"].text == KEY
    assert (shed.models, shed.place, shed.probe_path) == (("shed",), "peer", "/ready")
    assert (found.balance.choice, found.balance.attempts) == ("least-outstanding", 2)
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[backend]]", "backend 1: .*name"),
        ('[[backend]]\nname = "a b"\nurl = "https://x"', "backend 1: name 'a b'"),
        ('[[backend]]\nname = "local"\nurl = "https://x"', "not 'local'"),
        (FAR + FAR, "backend 2: there is a backend 'far' already"),
        (FAR + "key = 'sk-1'", "unknown option 'key'"),
        (FAR + "wieght = 2", "did you mean 'weight'"),
        (FAR + "env = 'MISSING'", "environment variable MISSING must hold a key"),
        (FAR + "env = 'BROKEN'", "environment variable BROKEN must hold a key"),
        (FAR + "kind = 'clod'", "kind is 'clod'"),
        (FAR + "privacy = 'secret'", "privacy is 'secret'"),
        (FAR + "compression = 'zip'", "compression is 'zip'"),
        (FAR + "weight = 0", "weight is 0.0, must be above 0"),
        (FAR + "first_s = nan", "first_s is nan"),
        (FAR + "price_in = -1", "price_in is -1"),
        (FAR + "max_active = 0", "max_active is 0"),
        ('[[backend]]\nname = "a"\nurl = "ftp://x"', "must be like 'https://example.org/v1'"),
        ('[[backend]]\nname = "a"\nurl = "https://x:y"', "url 'https://x:y' is none"),
        ('[[backend]]\nname = "a"\nurl = "https://me:pw@x"', "no user, password"),
        ('[[backend]]\nname = "a"\nurl = "http://example.org"', "over https alone"),
        (
            '[[backend]]\nname = "a"\nurl = "http://example.org"\nallow_http = true',
            "over https alone",
        ),
        ('[[backend]]\nname = "a"\nkind = "peer"\nurl = "http://10.0.0.7"', "allow_http = true"),
        ("[balance]\nchoice = 'dice'", "balance: choice is 'dice'"),
        ("[balance]\nattempts = 0", "attempts is 0"),
        ("[balance]\nretry_share = -0.1", "retry_share is -0.1"),
        ("[balance]\nwait_s = 0", "wait_s is 0"),
        ("[balance]\nmost_eject_s = 0.5", "most_eject_s is 0.5"),
    ],
)
def test_slips_are_named(text: str, said: str) -> None:
    """With the table and the number."""
    with pytest.raises(RecipeError, match=said):
        parsed(text, BROKEN="a\tb")


def test_loopback_needs_no_tls() -> None:
    """What does not leave the device cannot be read on its way."""
    for host in ("localhost", "127.0.0.1", "[::1]"):
        (found,) = parsed(f'[[backend]]\nname = "a"\nurl = "http://{host}:1/v1"').backends

        assert found.url == f"http://{host}:1/v1"
