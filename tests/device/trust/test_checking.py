"""Bundles that are taken, and every way in which one is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from onhand.core.bundle import MANIFEST, SIGNATURE, read_bundle
from onhand.core.errors import BundleCorrupt, BundleUntrusted
from onhand.core.signing import public_key, sign_manifest
from onhand.core.trusting import trusting
from onhand.device.trust.checking import DeviceTrust, read_signature, write_signature
from onhand.device.trust.store import TrustStore

TINY = Path(__file__).parents[2] / "data" / "tiny-bundle"
MAKER, NOW = b"m" * 32, 1000


class Device:
    """A device that trusts a maker until 2000, and a bundle by that one: release 2, until 3000."""

    def __init__(self, place: Path) -> None:
        self.bundle = place / "bundle"
        shutil.copytree(TINY, self.bundle)
        self.store = TrustStore(place / "home")
        self.key = self.store.add(public_key(MAKER), name="maker", expires_s=2000)
        self.now_s = NOW
        self.sign(2, expires_s=3000)

    def sign(self, release: int, *, seed: bytes = MAKER, expires_s: int | None = None) -> None:
        """Sign the bundle as it is."""
        content = (self.bundle / MANIFEST).read_bytes()
        write_signature(
            self.bundle, sign_manifest(content, seed, release=release, expires_s=expires_s)
        )

    def open(self, *, allows_unsigned: bool = False) -> str:
        """Open it; return its name."""
        trust = DeviceTrust(self.store, now=lambda: self.now_s, allows_unsigned=allows_unsigned)
        with trusting(trust):
            return read_bundle(self.bundle).manifest.name

    def edit(self, change: Callable[[str], str]) -> None:
        """Change the manifest's text."""
        path = self.bundle / MANIFEST
        path.write_text(change(path.read_text()))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """With a bundle that it takes."""
    found = Device(tmp_path)
    assert found.open()
    return found


def test_what_a_device_builds_it_takes(device: Device) -> None:
    """By its own key, which is made when it is first needed."""
    trust = DeviceTrust(device.store, now=lambda: NOW)
    trust.sign(device.bundle, (device.bundle / MANIFEST).read_bytes())

    assert device.open()
    signature = read_signature(device.bundle)
    assert signature is not None
    assert signature.key == device.store.own()


def test_attack_no_signature(device: Device) -> None:
    """Refused, unless that is said to be right."""
    (device.bundle / SIGNATURE).unlink()

    with pytest.raises(BundleUntrusted, match="is not signed; trust"):
        device.open()
    assert device.open(allows_unsigned=True)


def test_attack_an_unknown_key(device: Device) -> None:
    """Likewise."""
    device.sign(9, seed=b"x" * 32)

    with pytest.raises(BundleUntrusted, match="not trusted here"):
        device.open()
    assert device.open(allows_unsigned=True)


@pytest.mark.parametrize("allows_unsigned", [True, False])
class TestWhateverIsAllowed:
    """A signature that is there counts, also where none is needed."""

    def test_attack_a_changed_manifest(self, device: Device, *, allows_unsigned: bool) -> None:
        """One byte is enough."""
        device.edit(lambda text: text + " ")

        with pytest.raises(BundleUntrusted, match="one of them was changed"):
            device.open(allows_unsigned=allows_unsigned)

    def test_attack_a_signature_of_another_bundle(
        self, device: Device, *, allows_unsigned: bool
    ) -> None:
        """It is of another manifest."""
        content = sign_manifest(b"{}", MAKER, release=3)
        write_signature(device.bundle, content)

        with pytest.raises(BundleUntrusted, match="one of them was changed"):
            device.open(allows_unsigned=allows_unsigned)

    def test_attack_a_changed_signature(self, device: Device, *, allows_unsigned: bool) -> None:
        """Whatever was changed in it."""
        path = device.bundle / SIGNATURE
        envelope = json.loads(path.read_text())
        sig = envelope["signatures"][0]["sig"]
        envelope["signatures"][0]["sig"] = ("A" if sig[0] != "A" else "B") + sig[1:]
        path.write_text(json.dumps(envelope))

        with pytest.raises(BundleUntrusted, match="is not by the key"):
            device.open(allows_unsigned=allows_unsigned)

    def test_attack_a_signature_that_is_none(
        self, device: Device, *, allows_unsigned: bool
    ) -> None:
        """Rubbish, or a link."""
        path = device.bundle / SIGNATURE
        path.write_bytes(b"rubbish")
        with pytest.raises(BundleUntrusted, match="cannot be read"):
            device.open(allows_unsigned=allows_unsigned)
        if os.name == "posix":
            path.unlink()
            path.symlink_to(device.bundle / MANIFEST)
            with pytest.raises(BundleUntrusted, match="is a link"):
                device.open(allows_unsigned=allows_unsigned)

    def test_attack_an_older_release(self, device: Device, *, allows_unsigned: bool) -> None:
        """Once a later one was opened; the same one again is no older one."""
        device.sign(1)
        with pytest.raises(BundleUntrusted, match=r"release 1 .* and release 2 by maker"):
            device.open(allows_unsigned=allows_unsigned)
        device.sign(2)
        assert device.open(allows_unsigned=allows_unsigned)

    def test_attack_a_revoked_key(self, device: Device, *, allows_unsigned: bool) -> None:
        """All that it signed counts no more."""
        device.store.revoke(device.key)

        with pytest.raises(BundleUntrusted, match="which was revoked"):
            device.open(allows_unsigned=allows_unsigned)

    def test_attack_an_expired_key(self, device: Device, *, allows_unsigned: bool) -> None:
        """From its last second on."""
        device.now_s = 2000

        with pytest.raises(BundleUntrusted, match="which expired on 1970-01-01"):
            device.open(allows_unsigned=allows_unsigned)

    def test_attack_an_expired_signature(self, device: Device, *, allows_unsigned: bool) -> None:
        """Likewise, by a key that is still good."""
        device.sign(2, expires_s=NOW)

        with pytest.raises(BundleUntrusted, match="signature expired"):
            device.open(allows_unsigned=allows_unsigned)

    def test_attack_a_file_that_was_swapped(self, device: Device, *, allows_unsigned: bool) -> None:
        """The signed manifest names every file by size and hash."""
        name = next(iter(json.loads((device.bundle / MANIFEST).read_text())["files"]))
        path = device.bundle / name
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))

        with pytest.raises(BundleCorrupt, match="SHA-256"):
            device.open(allows_unsigned=allows_unsigned)


def test_every_file_of_a_bundle_is_bound(device: Device) -> None:
    """By the manifest, all but the four that stand beside it."""
    listed = json.loads((device.bundle / MANIFEST).read_text())["files"]
    there = {path.name for path in device.bundle.iterdir() if path.is_file()}

    assert there - set(listed) <= {MANIFEST, SIGNATURE, "report.json", "report.html"}
    assert all(set(entry) == {"size", "sha256"} for entry in listed.values())


def test_a_command_that_only_builds_checks_nothing(device: Device) -> None:
    """It signs what it makes."""
    (device.bundle / SIGNATURE).unlink()
    with trusting(DeviceTrust(device.store, now=lambda: NOW, checks=False)):
        assert read_bundle(device.bundle)


def test_with_the_control_off_an_unsigned_bundle_opens(device: Device) -> None:
    """So the tests above show what they say."""
    (device.bundle / SIGNATURE).unlink()

    assert read_bundle(device.bundle)


@pytest.mark.parametrize("attack", ["older", "revoked", "expired"])
def test_with_the_control_off_what_no_longer_counts_opens(device: Device, attack: str) -> None:
    """An older release, and bundles by a key that was revoked or has ended."""
    if attack == "older":
        device.sign(1)
    elif attack == "revoked":
        device.store.revoke(device.key)
    else:
        device.now_s = 2000
    with pytest.raises(BundleUntrusted):
        device.open()

    assert read_bundle(device.bundle)


def test_with_the_control_off_a_changed_manifest_opens(device: Device) -> None:
    """Its text may say anything that is a manifest."""
    device.edit(lambda text: text + " ")

    assert read_bundle(device.bundle)
