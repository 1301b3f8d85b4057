"""`[audit]` of a server's settings."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onhand.core.errors import InputError
from onhand.core.tables import filled

__all__ = ["AuditSettings", "read_audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """`[audit]`: what is written down of each request, so that tampering shows.

    Attributes:
        enabled: whether anything is.
        folder: where records lie; "" for the state folder's own.
        heads: where signed heads lie: better on another disk; "" for the state folder's own.
        when_unwritable: "refuse" requests, or "serve" without a record, where nothing can be
            written.
        bodies: whether requests and answers are kept as well, sealed.
        most_body_bytes: of one request, and of one answer; what is longer is cut, and says so.
        segment_bytes: of one file.
        keep_days: after which records go; 0 for never.
        most_bytes: of all records; the oldest go first; 0 for any number.
        head_records: records after which a head is signed at the latest.
        head_s: seconds after which one is.
    """

    enabled: bool = True
    folder: str = ""
    heads: str = ""
    when_unwritable: str = "refuse"
    bodies: bool = False
    most_body_bytes: int = 2**18
    segment_bytes: int = 8 * 2**20
    keep_days: float = 90.0
    most_bytes: int = 256 * 2**20
    head_records: int = 1000
    head_s: float = 10.0

    def __post_init__(self) -> None:
        if self.when_unwritable not in {"refuse", "serve"}:
            raise InputError(f"when_unwritable is {self.when_unwritable!r}: refuse or serve")
        for name, least in (("most_body_bytes", 0), ("segment_bytes", 4096), ("most_bytes", 0)):
            if (value := int(getattr(self, name))) < least:
                raise InputError(f"{name} is {value}, must be {least} or more")
        if self.most_body_bytes > 2**22:
            raise InputError(f"most_body_bytes is {self.most_body_bytes}, at most {2**22} are kept")
        if self.head_records < 1:
            raise InputError(f"head_records is {self.head_records}, must be 1 or more")
        if not self.keep_days >= 0:  # so that NaN is refused as well
            raise InputError(f"keep_days is {self.keep_days}, must be 0 or more")
        if not self.head_s > 0:
            raise InputError(f"head_s is {self.head_s}, must be above 0")

    def folders(self, home: Path) -> tuple[Path, Path]:
        """Return where records lie, and where heads do.

        Args:
            home: the state folder.
        """
        folder = Path(self.folder) if self.folder else home / "audit"
        heads = Path(self.heads) if self.heads else home / "audit-heads"
        return folder, heads


def read_audit(values: Mapping[str, object], *, where: str) -> AuditSettings:
    """Read the table of a settings file.

    Args:
        values: name -> value.
        where: name of the file; folders are seen from it.

    Returns:
        The settings.

    Raises:
        RecipeError: if a key or a value is wrong.
    """
    read = filled(AuditSettings, values, where=f"{where}: audit")
    beside = Path(where).parent
    return replace(read, folder=_seen(read.folder, beside), heads=_seen(read.heads, beside))


def _seen(folder: str, beside: Path) -> str:
    return str(beside / Path(folder).expanduser()) if folder else ""
