"""What tests of the audit share: a log with some records, its files, and its verdict."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from onhand.device.audit.chain import Chain
from onhand.device.audit.heads import Head, append_head, signed_line
from onhand.device.audit.keys import AuditKeys
from onhand.device.audit.verifying import Verdict, evidence_in, verify

__all__ = ["KEYS", "WHEN", "chain_of", "changed", "files", "found", "kept", "sign", "verdict"]

KEYS = AuditKeys(b"k" * 32, "a test")
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def chain_of(
    folder: Path, *, segment_bytes: int = 2**20, now: Callable[[], datetime] = lambda: WHEN
) -> Chain:
    """The chain of a folder, open."""
    return Chain(folder, KEYS.code, segment_bytes=segment_bytes, now=now)


def sign(chain: Chain, heads: Path) -> None:
    """Keep a head of what there is now."""
    count, digest = chain.sync()
    head = Head(log=chain.log, count=count, hash=digest, time="now")
    append_head(heads, signed_line(head, KEYS), most=100)


def kept(place: Path, n: int = 9, *, segment_bytes: int = 2**20) -> Path:
    """A log of `n` records and one that begins each file, signed at its end; closed."""
    chain = chain_of(place / "log", segment_bytes=segment_bytes)
    for number in range(n):
        chain.append([("request", {"id": str(number), "who": "a"})])
    sign(chain, place / "heads")
    chain.close()
    return place


def files(place: Path) -> list[Path]:
    """The log's files."""
    return sorted((place / "log").glob("records-*.log"))


def changed(place: Path, change: Callable[[list[bytes]], list[bytes]], *, file: int = 0) -> None:
    """Let somebody without the key change a file's lines."""
    path = files(place)[file]
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"".join(line + b"\n" for line in change(lines)))


def verdict(place: Path, *, keys: AuditKeys = KEYS, with_code: bool = True) -> Verdict:
    """What is found of a log."""
    evidence = evidence_in(place / "log", place / "heads")
    return verify(evidence, public=keys.public, code=keys.code if with_code else None)


def found(place: Path) -> list[str]:
    """The kinds of what is wrong with a log, in order."""
    return [finding.kind for finding in verdict(place).findings]
