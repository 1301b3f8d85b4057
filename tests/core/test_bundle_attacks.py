"""Bundles that lie: each is refused before anything is parsed from it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from onhand.core import bundle as bundle_module
from onhand.core.bundle import Bundle, read_bundle, verifying_bundle
from onhand.core.errors import BundleCorrupt, BundleTooNew, InputError
from onhand.core.manifest import MAX_MANIFEST_BYTES


def _spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_attack_changed_byte(bundle: Bundle) -> None:
    """The size is right, one bit of the content is not."""
    _spoil(bundle.path("weights.safetensors"))

    with pytest.raises(BundleCorrupt, match=r"'weights\.safetensors' has SHA-256 .*, expected"):
        read_bundle(bundle.root)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_attack_changed_file_that_is_parsed_at_once(bundle: Bundle, name: str) -> None:
    """Only weights, which are numbers, may be opened before their hash is known."""
    _spoil(bundle.path(name))

    with (
        pytest.raises(BundleCorrupt, match=f"'{name}' has SHA-256"),
        verifying_bundle(bundle.root),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("error", [None, ValueError("no such matrix"), KeyboardInterrupt()])
def test_attack_changed_weights_end_the_block(bundle: Bundle, error: BaseException | None) -> None:
    """Their hash comes before anything that came of opening them."""
    _spoil(bundle.path("weights.safetensors"))
    begun: list[Bundle] = []

    def use() -> None:
        with verifying_bundle(bundle.root) as opened:
            begun.append(opened)
            if error is not None:
                raise error

    with pytest.raises(BundleCorrupt, match=r"'weights\.safetensors' has SHA-256"):
        use()

    assert begun == [bundle]


def test_what_a_block_raises_over_right_weights_is_its_own(bundle: Bundle) -> None:
    """And so is what it gives."""
    with pytest.raises(ValueError, match="my own"), verifying_bundle(bundle.root):
        raise ValueError("my own")
    with verifying_bundle(bundle.root) as opened:
        pass

    assert opened == bundle


@pytest.mark.parametrize("n_bytes", [-1, 1])
def test_attack_wrong_size(bundle: Bundle, n_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short or longer: known from the size alone, no file is read."""
    path = bundle.path("weights.safetensors")
    os.truncate(path, path.stat().st_size + n_bytes)
    monkeypatch.setattr(bundle_module, "sha256_of", lambda path: pytest.fail("was read"))

    with pytest.raises(BundleCorrupt, match=r"'weights.safetensors' has \d+ bytes, expected \d+"):
        read_bundle(bundle.root)


@pytest.mark.parametrize("name", ["model.onnx", "large/model.onnx"])
def test_attack_missing_file(bundle: Bundle, name: str) -> None:
    """The message names the file."""
    bundle.path(name).unlink()

    with pytest.raises(BundleCorrupt, match=f"'{name}' is missing"):
        read_bundle(bundle.root)


def _link_to_a_copy(path: Path, outside: Path) -> None:
    path.rename(outside)
    path.symlink_to(outside)


def _link_inside(path: Path, outside: Path) -> None:
    path.rename(path.with_name("kept"))
    path.symlink_to("kept")


def _link_to_nothing(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(outside)


def _link_to_itself(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize(
    "change", [_link_to_a_copy, _link_inside, _link_to_nothing, _link_to_itself]
)
@pytest.mark.parametrize("name", ["model.onnx", "large/model.onnx", "large"])
def test_attack_links(
    bundle: Bundle, tmp_path: Path, name: str, change: Callable[[Path, Path], None]
) -> None:
    """A link is refused even where it leads to the right bytes: file or folder, in or out."""
    path = bundle.root / name
    if path.is_dir() and change in {_link_to_nothing, _link_to_itself}:
        for inside in path.iterdir():
            inside.unlink()
        path.rmdir()
        path.touch()
    change(path, tmp_path / "outside")

    with pytest.raises(BundleCorrupt, match=f"'{name}.*' is a link, which a bundle may not hold"):
        read_bundle(bundle.root)


def test_attack_hard_things_in_place_of_files(bundle: Bundle) -> None:
    """A folder, or a pipe that would block whoever opens it."""
    path = bundle.path("model.onnx")
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleCorrupt, match=r"'model.onnx' is not a plain file"):
        read_bundle(bundle.root)

    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(BundleCorrupt, match=r"'model.onnx' is not a plain file"):
        read_bundle(bundle.root)


def test_attack_folder_that_is_a_file(bundle: Bundle) -> None:
    """A path through a file leads nowhere."""
    folder = bundle.root / "large"
    for inside in folder.iterdir():
        inside.unlink()
    folder.rmdir()
    folder.touch()

    with pytest.raises(BundleCorrupt, match=r"'large/.*' is missing"):
        read_bundle(bundle.root)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_attack_manifest_that_is_no_file(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    """Not followed, and not waited for."""
    path = bundle.root / "manifest.json"
    path.rename(tmp_path / "outside")
    if kind == "link":
        path.symlink_to(tmp_path / "outside")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()

    with pytest.raises(BundleCorrupt, match=r"manifest\.json is not a plain file"):
        read_bundle(bundle.root)


def test_attack_huge_manifest(bundle: Bundle) -> None:
    """More than the bound is not read, let alone parsed."""
    os.truncate(bundle.root / "manifest.json", 2**40)  # a sparse file: no such disk is needed

    with pytest.raises(BundleCorrupt, match=f"manifest.json is over {MAX_MANIFEST_BYTES} bytes"):
        read_bundle(bundle.root)


def test_attack_later_format(bundle: Bundle) -> None:
    """Refused by its number."""
    path = bundle.root / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":3'))

    with pytest.raises(BundleTooNew, match="format 3"):
        read_bundle(bundle.root)


def test_attack_path_outside(bundle: Bundle, tmp_path: Path) -> None:
    """A file beside the bundle exists, with the right size and hash: it is still not reached."""
    (tmp_path / "x").write_bytes(bundle.path("model.onnx").read_bytes())
    path = bundle.root / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"model.onnx"', b'"../x"'))

    with pytest.raises(BundleCorrupt, match=r"'\.\./x' is not a plain path inside the bundle"):
        read_bundle(bundle.root)


def test_files_that_nobody_listed_are_never_read(bundle: Bundle, tmp_path: Path) -> None:
    """An extra file, link or folder changes nothing: it is not part of the bundle."""
    (bundle.root / "extra").write_text("import os")
    (bundle.root / "extra-link").symlink_to(tmp_path)
    os.mkfifo(bundle.root / "extra-pipe")

    assert read_bundle(bundle.root) == bundle


@pytest.mark.parametrize("what", ["sha256_of", "open"])
def test_files_that_may_not_be_read_are_no_traceback(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Rights are the user's to change: the message says so."""

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    if what == "open":
        monkeypatch.setattr(Path, "open", refuse)
    else:
        monkeypatch.setattr(bundle_module, "sha256_of", refuse)

    with pytest.raises(InputError, match=r"cannot be read: .*Permission denied"):
        read_bundle(bundle.root)
