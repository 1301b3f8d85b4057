"""A program that uses onhand as a library takes whose bundles the commands take."""

import shutil
from pathlib import Path

import pytest

import onhand
from onhand.core.bundle import MANIFEST, SIGNATURE
from onhand.core.errors import BundleUntrusted, InputError
from onhand.core.signing import sign_manifest
from onhand.core.trusting import current_trust, trusting
from onhand.device.trust.checking import DeviceTrust, write_signature
from onhand.device.trust.store import TrustStore
from onhand.device.trust.usual import usual_trust

TINY = Path(__file__).parents[2] / "data" / "tiny-bundle"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that nobody signed, where signatures count."""
    monkeypatch.setenv("ONHAND_TRUST", "signed")
    monkeypatch.setenv("ONHAND_HOME", str(tmp_path / "home"))
    return Path(shutil.copytree(TINY, tmp_path / "bundle"))


def opened(bundle: Path) -> bool:
    """Open it, as a program does."""
    with onhand.open(bundle, engine="reference", threads=1):
        return True


def test_attack_a_program_is_given_a_bundle_that_nobody_signed(bundle: Path) -> None:
    """Refused, until this device's key has signed it; and once another has."""
    with pytest.raises(BundleUntrusted, match="is not signed; trust"):
        opened(bundle)
    content = (bundle / MANIFEST).read_bytes()
    seed = TrustStore(bundle.parent / "home").seed()
    write_signature(bundle, sign_manifest(content, seed, release=1))

    assert opened(bundle)
    write_signature(bundle, sign_manifest(content, b"x" * 32, release=1))
    with pytest.raises(BundleUntrusted, match="not trusted here"):
        opened(bundle)
    assert current_trust() is None


def test_with_the_control_off_a_program_opens_it(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the environment, as for the commands; a slip in it is said."""
    monkeypatch.setenv("ONHAND_TRUST", "any")
    assert opened(bundle)
    monkeypatch.setenv("ONHAND_TRUST", "none")
    with pytest.raises(InputError, match="must be signed or any"):
        opened(bundle)


def test_a_program_that_decided_itself_is_left_to_it(bundle: Path) -> None:
    """Its own trust is asked alone."""
    own = DeviceTrust(TrustStore(bundle.parent / "other"), now=lambda: 0.0, allows_unsigned=True)
    with trusting(own):
        assert opened(bundle)


def test_what_a_program_builds_is_signed_and_not_checked(bundle: Path) -> None:
    """By the key of the state folder that it names."""
    with usual_trust(bundle.parent / "named", checks=False):
        trust = current_trust()
        assert trust is not None
        trust.sign(bundle, (bundle / MANIFEST).read_bytes())

    assert (bundle / SIGNATURE).exists()
    with onhand.open(bundle, engine="reference", threads=1, home=bundle.parent / "named"):
        pass
    with pytest.raises(BundleUntrusted, match="not trusted here"):
        opened(bundle)
