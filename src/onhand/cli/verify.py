"""`onhand verify`: every file of a bundle against its manifest."""

from onhand.cli.options import AsJson, BundleFolder
from onhand.cli.output import write, write_json
from onhand.core.bundle import SIGNATURE, UNLISTED, Bundle, read_bundle
from onhand.core.units import format_bytes

__all__ = ["command"]


def command(name: BundleFolder, *, as_json: AsJson = False) -> None:
    """Check every file of a bundle against its manifest: sizes, containment and hashes."""
    bundle = read_bundle(name)
    unlisted = _unlisted(bundle)
    has_signature = (name / SIGNATURE).exists()
    if as_json:
        write_json({
            "manifest_sha256": bundle.manifest_sha256,
            "n_files": len(bundle.manifest.files),
            "signature": "not-checked" if has_signature else "none",
            "size_bytes": bundle.size_bytes(),
            "unlisted": unlisted,
            "verified": True,
        })
        return
    write(f"{len(bundle.manifest.files)} files, {format_bytes(bundle.size_bytes())}: as listed\n")
    write(f"manifest  {bundle.manifest_sha256}\n")
    found = "is there and was not checked" if has_signature else "is empty: the bundle is unsigned"
    write(f"signature its place is reserved in this version; it {found}\n")
    for path in unlisted:
        write(f"unlisted  {path!r} is not in the manifest and was not checked\n")


def _unlisted(bundle: Bundle) -> list[str]:
    known = UNLISTED | bundle.manifest.files.keys()
    others = (path for path in bundle.root.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted({path.relative_to(bundle.root).as_posix() for path in others} - known)
