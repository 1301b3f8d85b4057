"""A bundle is written whole or not at all, and read back the same."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from onhand.core.bundle import (
    Bundle,
    read_bundle,
    read_manifest,
    sha256_of,
    stage_bundle,
    write_manifest,
    write_report,
)
from onhand.core.errors import BundleCorrupt, InputError, ResourceError
from onhand.core.manifest import Manifest

MakeBundle = Callable[[Path], Bundle]


def test_what_is_staged_is_read_back(bundle: Bundle, manifest: Manifest) -> None:
    """Every file is listed with size and hash; the rest of the manifest is as given."""
    names = {
        "large/model.onnx",
        "large/weights.safetensors",
        "model.onnx",
        "tokenizer.json",
        "weights.safetensors",
    }

    assert set(bundle.manifest.files) == names
    for name, entry in bundle.manifest.files.items():
        path = bundle.path(name)
        assert (path.stat().st_size, sha256_of(path)) == (entry.size, entry.sha256)
    assert bundle.manifest.variants == manifest.variants
    assert bundle.manifest.decoder == manifest.decoder
    assert read_manifest(bundle.root) == (bundle.manifest, bundle.manifest_sha256)


@pytest.mark.parametrize("n_bytes", [0, 1, 2**20, 2 * 2**20 + 5])
def test_a_file_of_any_size_is_hashed(tmp_path: Path, n_bytes: int) -> None:
    """In pieces, of which the last may be short."""
    content = bytes(i * i % 251 for i in range(1000)) * (n_bytes // 1000 + 1)
    (tmp_path / "file").write_bytes(content[:n_bytes])

    assert sha256_of(tmp_path / "file") == hashlib.sha256(content[:n_bytes]).hexdigest()


def test_same_input_same_bytes(manifest: Manifest, tmp_path: Path) -> None:
    """Two bundles of the same files have the same manifest, byte by byte."""
    made: list[bytes] = []
    for place in ("one", "two"):
        with stage_bundle(tmp_path / place) as staged:
            (staged / "large").mkdir()
            for name in ("model.onnx", "weights.safetensors"):
                (staged / name).write_bytes(b"x")
                (staged / "large" / name).write_bytes(b"y")
            write_manifest(staged, manifest, hashes={})
        made.append((tmp_path / place / "manifest.json").read_bytes())

    assert made[0] == made[1]


def test_a_variant_is_found_by_name(bundle: Bundle) -> None:
    """None means the default; an unknown name lists those there are."""
    assert bundle.variant(None)[0] == "int4"
    assert bundle.variant("float-embedding")[1].accuracy_level == 0
    with pytest.raises(InputError, match="no variant 'int2'; it has float-embedding, int4"):
        bundle.variant("int2")


def test_the_size_of_a_variant_is_what_it_needs(bundle: Bundle) -> None:
    """Files of other variants do not count; what all share does."""
    size = {name: entry.size for name, entry in bundle.manifest.files.items()}
    shared = size["tokenizer.json"] + size["weights.safetensors"]

    assert bundle.size_bytes("int4") == shared + size["model.onnx"]
    assert bundle.size_bytes("float-embedding") == (
        shared + size["large/model.onnx"] + size["large/weights.safetensors"]
    )
    assert bundle.size_bytes() == sum(size.values())
    with pytest.raises(InputError, match="no variant 'int2'"):
        bundle.size_bytes("int2")


def test_sizes_are_those_of_now(bundle: Bundle) -> None:
    """A file that was cut or taken away after the check is seen."""
    weights = bundle.path("weights.safetensors")
    size = bundle.sizes(["weights.safetensors"])["weights.safetensors"]
    weights.write_bytes(weights.read_bytes()[:-4])

    assert bundle.sizes(["weights.safetensors"]) == {"weights.safetensors": size - 4}
    weights.unlink()
    with pytest.raises(BundleCorrupt, match=r"weights\.safetensors: cannot be read .* fetch"):
        bundle.sizes(["weights.safetensors"])


def test_a_finished_bundle_can_be_read_by_others(bundle: Bundle) -> None:
    """The private mode of a temporary folder does not stay."""
    assert bundle.root.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(1)])
def test_nothing_is_left_when_building_stops(tmp_path: Path, error: BaseException) -> None:
    """An error, Ctrl-C or an exit: no bundle and no half of one."""
    with pytest.raises(type(error)), stage_bundle(tmp_path / "new") as staged:  # noqa: PT012 - a file is written before it stops
        (staged / "weights.safetensors").write_bytes(b"half")
        raise error

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_resource(tmp_path: Path) -> None:
    """The message says so, and nothing is left."""
    with (
        pytest.raises(ResourceError, match="cannot be written: No space left"),
        stage_bundle(tmp_path / "new"),
    ):
        raise OSError(28, "No space left on device")

    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_made_is_a_resource(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only folder is refused with a sentence before any work."""

    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)

    with (
        pytest.raises(ResourceError, match="cannot be written: Permission denied"),
        stage_bundle(tmp_path / "new"),
    ):
        pytest.fail("there is no place to write to")


def test_an_existing_place_is_refused(tmp_path: Path) -> None:
    """A folder, a file or a link that leads nowhere: nothing is overwritten."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")

    for name in ("folder", "file", "link"):
        with (
            pytest.raises(InputError, match="exists already; choose another name"),
            stage_bundle(tmp_path / name),
        ):
            pytest.fail("the block must not run")

    assert (tmp_path / "file").read_text() == "mine"


def test_a_parent_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    """Folders are not made in silence."""
    with (
        pytest.raises(InputError, match="absent is not a folder; create it first"),
        stage_bundle(tmp_path / "absent" / "new"),
    ):
        pytest.fail("the block must not run")


def test_a_bundle_is_staged_in_the_working_folder(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare name is a place too."""
    monkeypatch.chdir(tmp_path)

    assert make_bundle(Path("bare")).manifest == read_bundle(tmp_path / "bare").manifest


def test_of_two_builders_one_wins(tmp_path: Path) -> None:
    """Both begin before either ends; one bundle stays whole, the other builder is told."""
    both = threading.Barrier(2)
    told: list[str] = []

    def build(name: str) -> None:
        try:
            with stage_bundle(tmp_path / "new") as staged:
                (staged / "builder").write_text(name)
                both.wait(timeout=30)
        except InputError as error:
            told.append(str(error))

    builders = [threading.Thread(target=build, args=(name,)) for name in "ab"]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()

    assert len(told) == 1
    assert "was created by someone else meanwhile" in told[0]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert (tmp_path / "new" / "builder").read_text() in {"a", "b"}


def test_known_hashes_are_taken_as_they_are(manifest: Manifest, tmp_path: Path) -> None:
    """A file that was hashed while it was written is not read again."""
    (tmp_path / "model.onnx").write_bytes(b"x")

    made = write_manifest(tmp_path, manifest, hashes={"model.onnx": "f" * 64})

    assert made.manifest.files["model.onnx"].sha256 == "f" * 64


def test_a_report_is_no_part_of_the_manifest(bundle: Bundle) -> None:
    """It is written after the bundle, replaces an older one, and leaves nothing beside it."""
    before = sorted(path.name for path in bundle.root.iterdir())

    write_report(bundle.root, {"b": 1, "a": "\u5ba2\u5385"})
    write_report(bundle.root, {"b": 2, "a": "\u5ba2\u5385"})

    text = (bundle.root / "report.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": "\u5ba2\u5385", "b": 2}
    assert text.index('"a"') < text.index('"b"')
    assert sorted(path.name for path in bundle.root.iterdir()) == sorted([*before, "report.json"])
    assert read_bundle(bundle.root) == bundle


def test_a_place_without_a_bundle_is_named(tmp_path: Path) -> None:
    """No folder, a folder without a manifest, or a file."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(InputError, match=r"not a bundle: it has no manifest\.json"):
            read_bundle(place)
