"""Made trees of files, as Linux shows a machine's parts."""

from pathlib import Path

__all__ = ["put"]


def put(root: Path, place: str, **files: str) -> Path:
    """Write files into a folder below a made root.

    Args:
        root: stands for "/".
        place: the folder.
        files: name -> text; a line feed is added, as drivers do.

    Returns:
        The folder.
    """
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n", encoding="ascii")
    return folder
