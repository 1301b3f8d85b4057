"""A trust decides about every bundle of the process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from onhand.core.bundle import MANIFEST, read_manifest, stage_bundle
from onhand.core.errors import BundleCorrupt, BundleUntrusted
from onhand.core.manifest import Manifest
from onhand.core.trusting import current_trust, making, trusting

TINY = Path(__file__).parents[1] / "data" / "tiny-bundle"


class Noting:
    """A trust that notes what it is asked, and refuses what it is told to."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.checked: list[bytes] = []
        self.parsed: list[str] = []
        self.refuses = refuses

    def check(self, root: Path, content: bytes) -> Callable[[Manifest], None]:
        """See `Trust`."""
        self.checked.append(content)
        if self.refuses:
            raise BundleUntrusted(f"{root}: no")
        return lambda manifest: self.parsed.append(manifest.name)

    def sign(self, staged: Path, content: bytes) -> None:
        """See `Trust`."""
        (staged / "signature").write_bytes(content[:2])


def test_a_trust_sees_a_manifest_before_and_after_it_is_parsed() -> None:
    """For as long as its block runs."""
    trust = Noting()

    with trusting(trust):
        assert current_trust() is trust
        manifest, _ = read_manifest(TINY)

    assert current_trust() is None
    assert trust.checked == [(TINY / MANIFEST).read_bytes()]
    assert trust.parsed == [manifest.name]


def test_attack_a_manifest_that_nobody_signed_is_not_parsed(tmp_path: Path) -> None:
    """What it refuses is refused before its JSON is looked at."""
    (tmp_path / MANIFEST).write_text("{not json")

    with trusting(Noting(refuses=True)), pytest.raises(BundleUntrusted):
        read_manifest(tmp_path)
    with pytest.raises(BundleCorrupt):
        read_manifest(tmp_path)


def test_bundles_that_are_made_are_signed(tmp_path: Path) -> None:
    """Whatever is staged with a manifest; other folders are not."""
    with trusting(Noting()):
        with stage_bundle(tmp_path / "a") as staged:
            (staged / MANIFEST).write_text("{}")
        with stage_bundle(tmp_path / "b") as staged:
            (staged / "other").write_text("{}")

    assert (tmp_path / "a" / "signature").read_text() == "{}"
    assert not (tmp_path / "b" / "signature").exists()


def test_what_is_being_made_is_signed_and_not_checked(tmp_path: Path) -> None:
    """A new bundle is opened beside the original in its older form; afterwards all is as before."""
    trust = Noting(refuses=True)

    with trusting(trust):
        with making():
            read_manifest(TINY)
            with stage_bundle(tmp_path / "made") as staged:
                (staged / MANIFEST).write_bytes((TINY / MANIFEST).read_bytes())
        with pytest.raises(BundleUntrusted):
            read_manifest(TINY)

    assert (tmp_path / "made" / "signature").exists()


def test_without_a_trust_nothing_is_checked_or_signed_while_making() -> None:
    """As in a program that uses onhand as a library."""
    with making():
        assert current_trust() is None
