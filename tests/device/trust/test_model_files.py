"""Folders that are signed in OpenSSF's form, and what is found of them later."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from onhand.core.bundle import read_bundle
from onhand.core.errors import BundleCorrupt, BundleUntrusted, InputError
from onhand.core.openssf import ModelSignature, sign_model
from onhand.core.signing import public_key
from onhand.device.trust.model_files import (
    Checked,
    check_files,
    ed25519_pem,
    private_pem,
    public_pem,
    read_model_signature,
    sign_bundle_files,
    trusted_key_of,
)
from onhand.device.trust.store import TrustStore

TINY = Path(__file__).parents[2] / "data" / "tiny-bundle"
KEY = ec.derive_private_key(7, ec.SECP256R1())
PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """One that is signed."""
    shutil.copytree(TINY, tmp_path / "bundle")
    sign_bundle_files(read_bundle(tmp_path / "bundle"), PRIVATE)
    return tmp_path / "bundle"


def read(root: Path) -> ModelSignature:
    """The signature in a folder."""
    found = read_model_signature(root / "model.sig")
    assert found is not None
    return found


def checked(root: Path) -> Checked:
    """What is found of a folder."""
    return check_files(root, read(root), PUBLIC, path=root / "model.sig")


def test_a_bundle_that_nobody_changed(bundle: Path) -> None:
    """All its files count, the manifest too; it stays a bundle, and reports may come and go."""
    n_files = len(read_bundle(bundle).manifest.files) + 1
    (bundle / "report.json").write_text("{}")

    assert checked(bundle) == Checked(n_files=n_files, ignored=())
    assert read(bundle).name == "bundle"


def test_attack_a_file_that_was_changed(bundle: Path) -> None:
    """Of the same size."""
    weights = bundle / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    with pytest.raises(BundleCorrupt, match=r"'weights.safetensors' is not as it was signed"):
        checked(bundle)


def test_attack_a_file_that_is_missing_or_new(bundle: Path) -> None:
    """Both are named."""
    (bundle / "code.py").write_text("")
    with pytest.raises(BundleCorrupt, match=r"'code.py' was not there"):
        checked(bundle)
    with pytest.raises(InputError, match=r"'code.py' is not in its manifest"):
        sign_bundle_files(read_bundle(bundle), PRIVATE)
    (bundle / "code.py").rename(bundle / ".gitignore")
    (bundle / "manifest.json").unlink()
    with pytest.raises(BundleCorrupt, match=r"'manifest.json' was signed, and is missing"):
        checked(bundle)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_attack_links(bundle: Path) -> None:
    """A file that lies elsewhere may be changed there; so may a signature."""
    (bundle / "vocab").symlink_to("manifest.json")
    with pytest.raises(BundleCorrupt, match="'vocab' is not a plain file"):
        checked(bundle)
    (bundle / "link.sig").symlink_to("model.sig")
    with pytest.raises(BundleUntrusted, match="is a link"):
        read_model_signature(bundle / "link.sig")


def test_attack_another_key(bundle: Path) -> None:
    """Told before any file is read."""
    other = public_pem("ed25519:" + public_key(b"k" * 32).hex())

    with pytest.raises(BundleUntrusted, match="the one given"):
        check_files(bundle, read(bundle), other, path=bundle / "model.sig")


def test_other_folders_hashes_and_places(tmp_path: Path) -> None:
    """What another tool may have signed: BLAKE2, files left out, the signature beside it."""
    root = tmp_path / "model"
    (root / "cache" / "deep").mkdir(parents=True)
    (root / "x").write_text("x")
    (root / "cache" / "deep" / "y").write_text("y")
    digest = hashlib.blake2b(b"x").hexdigest()
    made = read_signed(tmp_path, {"x": "a" * 64})
    signature = ModelSignature(
        hint=made.hint,
        payload=made.payload,
        sig=made.sig,
        name="model",
        hash_type="blake2b",
        ignored=("cache", "../elsewhere", "/etc"),
        digests={"x": digest},
    )

    found = check_files(root, signature, PUBLIC, path=tmp_path / "model.sig")

    assert found == Checked(n_files=1, ignored=("cache",))
    with pytest.raises(InputError, match="no such folder"):
        check_files(tmp_path / "none", signature, PUBLIC, path=tmp_path / "model.sig")


def read_signed(folder: Path, digests: dict[str, str]) -> ModelSignature:
    """A signature of some hashes, from a file."""
    (folder / "model.sig").write_bytes(sign_model(digests, PRIVATE, name="m", ignored=()))
    return read(folder)


def test_keys_come_as_files_or_as_they_are_shown(tmp_path: Path) -> None:
    """In PEM, or as `onhand trust` has them."""
    seed, pem = tmp_path / "seed", tmp_path / "pem"
    for path, content in ((seed, b"k" * 32), (pem, PRIVATE), (tmp_path / "pub", PUBLIC)):
        path.write_bytes(content)
        path.chmod(0o600)

    assert private_pem(seed) == ed25519_pem(b"k" * 32)
    assert private_pem(pem) == PRIVATE
    assert public_pem(str(tmp_path / "pub")) == PUBLIC
    assert b"PUBLIC KEY" in public_pem(public_key(b"k" * 32).hex())
    with pytest.raises(InputError, match="no such key"):
        private_pem(tmp_path / "none")
    with pytest.raises(InputError, match="no public key"):
        public_pem("\0")
    if os.name == "posix":
        pem.chmod(0o644)
        with pytest.raises(InputError, match="others may read it"):
            private_pem(pem)


def test_a_trusted_key_is_found_by_the_hint(bundle: Path, tmp_path: Path) -> None:
    """Ed25519 ones; others are not in the store."""
    store = TrustStore(tmp_path / "home")
    assert trusted_key_of(read(bundle), store) is None

    sign_bundle_files(read_bundle(bundle), ed25519_pem(store.seed()))

    found = trusted_key_of(read(bundle), store)
    assert found is not None
    assert found.name == "this device"
    assert json.loads((bundle / "model.sig").read_bytes())["verificationMaterial"]
