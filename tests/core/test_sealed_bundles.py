"""Sealed bundles: they open for their recipients, into memory, and whatever was changed shows."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from onhand.core import sealing_keys
from onhand.core.bundle import (
    SIGNATURE,
    Bundle,
    read_bundle,
    read_manifest_bytes,
    unchecked_bundle,
    verifying_bundle,
)
from onhand.core.errors import (
    BundleCorrupt,
    BundleTooNew,
    InputError,
    SealBroken,
    VaultError,
)
from onhand.core.manifest import FileEntry, render_manifest
from onhand.core.sealed_header import (
    MAX_HEADER_BYTES,
    SEALED,
    SEALED_MANIFEST,
    file_keys,
    parse_header,
    public_of,
    render_header,
    unwrap_key,
    wrap_key,
)
from onhand.core.sealed_writing import seal_bundle
from onhand.core.sealing import seal_bytes
from onhand.core.unsealing import handed_on, open_seal, take_over, unsealing
from onhand.core.weights import open_weights

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's anonymous files")

MINE, OTHERS = b"m" * 32, b"o" * 32
FILE = "weights.safetensors"


class Device:
    """Has keys; or none."""

    def __init__(self, *private: bytes) -> None:
        """Hold keys."""
        self._private = private

    def private_keys(self) -> tuple[bytes, ...]:
        """See `Unsealer`."""
        return self._private


@pytest.fixture
def sealed(bundle: Bundle, tmp_path: Path) -> Path:
    """The tiny bundle, sealed for this device and another."""
    (bundle.root / SIGNATURE).write_bytes(b"signature")
    seal_bundle(bundle.root, tmp_path / "sealed", [public_of(MINE), public_of(OTHERS)])
    return tmp_path / "sealed"


@pytest.fixture
def here() -> Iterator[None]:
    """This process is the first recipient."""
    with unsealing(Device(MINE)):
        yield


@pytest.mark.parametrize("private", [MINE, OTHERS])
def test_each_recipient_reads_what_was_sealed(bundle: Bundle, sealed: Path, private: bytes) -> None:
    """Manifest, signature and every file are those of the plain bundle."""
    with unsealing(Device(b"x" * 32, private)):
        opened = read_bundle(sealed)

        assert read_manifest_bytes(sealed) == read_manifest_bytes(bundle.root)
        assert opened.sizes(opened.manifest.files) == bundle.sizes(bundle.manifest.files)
        assert opened.manifest_sha256 == bundle.manifest_sha256
        for name in bundle.manifest.files:
            assert opened.path(name).read_bytes() == bundle.path(name).read_bytes()
    assert (sealed / SIGNATURE).read_bytes() == b"signature"


def test_what_nobody_signed_is_sealed_without_a_signature(bundle: Bundle, tmp_path: Path) -> None:
    """None is made up."""
    seal_bundle(bundle.root, tmp_path / "sealed", [public_of(MINE)])

    assert not (tmp_path / "sealed" / SIGNATURE).exists()


@pytest.mark.usefixtures("here")
def test_an_inner_unsealer_does_not_end_the_outer_one(bundle: Bundle, sealed: Path) -> None:
    """What this process may open it may open afterwards as well."""
    with unsealing(Device(OTHERS)):
        read_bundle(sealed)

    assert read_bundle(sealed).manifest_sha256 == bundle.manifest_sha256


@pytest.mark.usefixtures("here")
def test_weights_are_mapped_from_memory(bundle: Bundle, sealed: Path) -> None:
    """And stay right when the bundle itself is gone."""
    plain = open_weights(bundle, "int4")
    opened = open_weights(read_bundle(sealed), "int4")

    for name in bundle.manifest.decoder.matrices():
        np.testing.assert_array_equal(opened.matrix(name), plain.matrix(name))


def test_nothing_of_the_content_is_on_the_disk(bundle: Bundle, sealed: Path) -> None:
    """Only name, version, sizes and hints can be read; no file is written by opening."""
    before = sorted(sealed.rglob("*"))
    with unsealing(Device(MINE)):
        opened = read_bundle(sealed)
        known = opened.path(FILE).read_bytes()[-64:]

    assert sorted(sealed.rglob("*")) == before
    for path in (path for path in before if path.is_file()):
        content = path.read_bytes()
        assert known not in content
        assert b"source_sha256" not in content


def test_attack_another_device(sealed: Path) -> None:
    """Its key is among no recipient's."""
    with unsealing(Device(b"x" * 32)), pytest.raises(VaultError, match="for 2 other devices"):
        read_bundle(sealed)


def test_attack_nobody_has_keys(sealed: Path) -> None:
    """A program that says nothing of a vault."""
    with pytest.raises(VaultError, match="nothing here has a vault's keys"):
        read_bundle(sealed)


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("place", [0, 8, 20, 48, 100, -1])
@pytest.mark.parametrize("name", [FILE, SEALED_MANIFEST, "tokenizer.json"])
def test_attack_a_flipped_bit(sealed: Path, name: str, place: int) -> None:
    """In header, content or tag, of a file or the manifest."""
    _flip(sealed / name, min(place, (sealed / name).stat().st_size - 1))

    with pytest.raises(SealBroken):
        read_bundle(sealed)


@pytest.mark.usefixtures("here")
def test_without_decryption_in_place_it_opens_as_well(
    bundle: Bundle, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the oldest release of cryptography that is allowed."""
    monkeypatch.setattr(sealing_keys, "_INTO", None)

    assert read_bundle(sealed).path(FILE).read_bytes() == bundle.path(FILE).read_bytes()


@pytest.mark.usefixtures("here")
def test_attack_cut_files(sealed: Path) -> None:
    """A file, and the manifest."""
    for name, kind in ((FILE, BundleCorrupt), (SEALED_MANIFEST, SealBroken)):
        content = (sealed / name).read_bytes()
        (sealed / name).write_bytes(content[:-1])
        with pytest.raises(kind):
            read_bundle(sealed)
        (sealed / name).write_bytes(content)


@pytest.mark.usefixtures("here")
def test_attack_frames_in_another_order(bundle: Bundle, sealed: Path, tmp_path: Path) -> None:
    """Two whole frames of a large file change places."""
    (bundle.root / "tokenizer.json").write_bytes(bytes(3 * 2**20))
    entry = FileEntry(size=3 * 2**20, sha256=hashlib.sha256(bytes(3 * 2**20)).hexdigest())
    _rewrite(bundle, {"tokenizer.json": entry})
    seal_bundle(bundle.root, tmp_path / "large", [public_of(MINE)])
    path = tmp_path / "large" / "tokenizer.json"
    content, frame = path.read_bytes(), 2**20 + 16
    assert read_bundle(tmp_path / "large").path("tokenizer.json").stat().st_size == 3 * 2**20

    path.write_bytes(
        content[:48]
        + content[48 + frame : 48 + 2 * frame]
        + content[48 : 48 + frame]
        + content[48 + 2 * frame :]
    )
    with pytest.raises(SealBroken, match="frame 0 of 3"):
        read_bundle(tmp_path / "large")


def _rewrite(bundle: Bundle, entries: dict[str, FileEntry]) -> None:
    from dataclasses import replace

    made = replace(bundle.manifest, files={**bundle.manifest.files, **entries})
    (bundle.root / "manifest.json").write_bytes(render_manifest(made))


@pytest.mark.usefixtures("here")
def test_attack_swapped_files(sealed: Path) -> None:
    """Within a bundle, of the same size."""
    first, second = sealed / "model.onnx", sealed / "tokenizer.json"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)

    with pytest.raises((SealBroken, BundleCorrupt)):
        read_bundle(sealed)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", [FILE, SEALED_MANIFEST, "model.onnx"])
def test_attack_a_file_of_another_bundle(
    bundle: Bundle, sealed: Path, tmp_path: Path, name: str
) -> None:
    """Even of the same bundle, sealed another time for the same device."""
    seal_bundle(bundle.root, tmp_path / "again", [public_of(MINE)])
    shutil.copyfile(tmp_path / "again" / name, sealed / name)

    with pytest.raises(SealBroken):
        read_bundle(sealed)


@pytest.mark.usefixtures("here")
def test_attack_a_recipient_of_another_bundle(bundle: Bundle, sealed: Path, tmp_path: Path) -> None:
    """A wrapped key is bound to the header that it stands in."""
    seal_bundle(bundle.root, tmp_path / "again", [public_of(MINE)])
    table = json.loads((sealed / SEALED).read_bytes())
    table["recipients"] = json.loads((tmp_path / "again" / SEALED).read_bytes())["recipients"]
    table["version"] = 7
    (sealed / SEALED).write_bytes(json.dumps(table).encode())

    with pytest.raises(SealBroken, match="its key does not open"):
        read_bundle(sealed)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "other"), ("version", 7), ("manifest_bytes", 1), ("files", {"a": 1})],
)
def test_attack_what_stands_in_plain_is_changed(sealed: Path, key: str, value: object) -> None:
    """Name, version and sizes are bound to the keys."""
    table = json.loads((sealed / SEALED).read_bytes())
    (sealed / SEALED).write_bytes(json.dumps({**table, key: value}).encode())

    with pytest.raises(SealBroken):
        read_bundle(sealed)


@pytest.mark.usefixtures("here")
def test_attack_a_recipient_forges_a_file(bundle: Bundle, sealed: Path) -> None:
    """Whoever has the content key can seal anything; the manifest's hash tells it."""
    header = parse_header((sealed / SEALED).read_bytes(), where="")
    keys = file_keys(unwrap_key(header, [OTHERS], where=""), header)
    forged = bytes(bundle.manifest.files[FILE].size)
    (sealed / FILE).write_bytes(seal_bytes(keys, forged, name=FILE))

    with pytest.raises(BundleCorrupt, match="SHA-256"):
        read_bundle(sealed)


@pytest.mark.usefixtures("here")
def test_attack_a_header_that_its_manifest_does_not_say(
    bundle: Bundle, sealed: Path, tmp_path: Path
) -> None:
    """Files that are listed in plain alone."""
    from dataclasses import replace

    header = parse_header((sealed / SEALED).read_bytes(), where="")
    lying = replace(header, files={**header.files, "more": 1}, recipients=())
    key = b"k" * 32
    lying = replace(lying, recipients=(wrap_key(key, public_of(MINE), lying),))
    (sealed / SEALED).write_bytes(render_header(lying))
    content = read_manifest_bytes(bundle.root)
    made = seal_bytes(file_keys(key, lying), content, name=SEALED_MANIFEST)
    (sealed / SEALED_MANIFEST).write_bytes(made)

    with pytest.raises(BundleCorrupt, match="is not in its manifest"):
        unchecked_bundle(sealed)


@pytest.mark.usefixtures("here")
def test_attack_another_size_than_the_header_says(bundle: Bundle, sealed: Path) -> None:
    """Seen when a file is opened, though its place was not looked at."""
    opened = unchecked_bundle(sealed)
    assert opened.sealed is not None
    header = opened.sealed.header
    keys = file_keys(unwrap_key(header, [MINE], where=""), header)
    (sealed / FILE).write_bytes(seal_bytes(keys, b"short", name=FILE))

    with pytest.raises(SealBroken, match="5 bytes"):
        opened.path(FILE)
    (sealed / FILE).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        opened.path(FILE)
    assert opened.path("report.json") == sealed / "report.json"


@pytest.mark.usefixtures("here")
def test_a_missing_manifest_is_told(sealed: Path) -> None:
    """In one sentence."""
    (sealed / SEALED_MANIFEST).unlink()

    with pytest.raises(InputError, match=r"manifest\.sealed: cannot be read"):
        read_bundle(sealed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: [], "no format number"),
        (lambda t: {**t, "format": "1"}, "no format number"),
        (lambda t: {**t, "name": "../x"}, "name"),
        (lambda t: {**t, "files": []}, "files must be an object"),
        (lambda t: {**t, "files": {"../x": 1}}, "not a plain path"),
        (lambda t: {**t, "files": {"x": -1}}, "not a size"),
        (lambda t: {**t, "recipients": []}, "0 recipients"),
        (lambda t: {**t, "recipients": [{"hint": "x"}]}, "not 8 bytes in hex"),
        (lambda t: {k: t[k] for k in t if k != "version"}, "has no 'version'"),
    ],
)
def test_attack_a_header_that_is_none(
    sealed: Path, change: Callable[[dict[str, object]], object], words: str
) -> None:
    """Whatever stands there is one sentence."""
    table = json.loads((sealed / SEALED).read_bytes())
    (sealed / SEALED).write_bytes(json.dumps(change(table)).encode())

    with pytest.raises(BundleCorrupt, match=words):
        read_bundle(sealed)


def test_attack_odd_headers(sealed: Path, tmp_path: Path) -> None:
    """A later format, one that is too large, and a link."""
    table = json.loads((sealed / SEALED).read_bytes())
    (sealed / SEALED).write_bytes(json.dumps({**table, "format": 9}).encode())
    with pytest.raises(BundleTooNew, match="format 9"):
        open_seal(sealed)
    (sealed / SEALED).write_bytes(b" " * (MAX_HEADER_BYTES + 1))
    with pytest.raises(BundleCorrupt, match="is over"):
        open_seal(sealed)
    (sealed / SEALED).rename(tmp_path / "elsewhere")
    (sealed / SEALED).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleCorrupt, match="is a link"):
        open_seal(sealed)


def test_what_cannot_be_sealed_is_told(bundle: Bundle, tmp_path: Path) -> None:
    """No recipients, a key of small order, a reserved name; nothing is left behind."""
    out = tmp_path / "out"
    with pytest.raises(InputError, match="0 recipients"):
        seal_bundle(bundle.root, out, [])
    with pytest.raises(InputError, match="is no key of a device"):
        seal_bundle(bundle.root, out, [bytes(32)])
    (bundle.root / "manifest.sealed").write_bytes(b"")
    _rewrite(bundle, {SEALED_MANIFEST: FileEntry(size=0, sha256=hashlib.sha256(b"").hexdigest())})
    with pytest.raises(BundleCorrupt, match="keeps for itself"):
        seal_bundle(bundle.root, out, [public_of(MINE)])
    assert not out.exists()
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_a_sealed_bundle_is_sealed_for_others(sealed: Path, tmp_path: Path) -> None:
    """By a recipient, without a plain copy in between."""
    with unsealing(Device(MINE)):
        seal_bundle(sealed, tmp_path / "third", [public_of(b"t" * 32)])
    with unsealing(Device(b"t" * 32)), verifying_bundle(tmp_path / "third") as opened:
        assert opened.path("tokenizer.json").read_bytes() == b"tokenizer.json"


def test_a_process_beside_this_one_takes_keys_over(sealed: Path) -> None:
    """Through an open file; other arguments say nothing."""
    take_over([])
    with handed_on() as nothing:
        assert nothing == ([], ())
    with unsealing(Device(MINE)):
        read_bundle(sealed)
        with handed_on() as (arguments, fds):
            copy = os.dup(fds[0])
    assert arguments[0] == "--unsealing"
    with pytest.raises(VaultError):
        read_bundle(sealed)

    with unsealing(Device()):
        take_over(["--unsealing", str(copy)])
        assert read_bundle(sealed).manifest.name == "tiny"
