"""Is an audit log as it was written? Each way to change one has a sentence of its own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from onhand.core.errors import InputError
from onhand.device.audit.heads import Head, is_signed, parse_head, read_heads
from onhand.device.audit.records import Record, has_valid_code, hash_of, origin, parse
from onhand.device.audit.segments import lines_of, segments_in

__all__ = [
    "KINDS",
    "Evidence",
    "Finding",
    "Kind",
    "Verdict",
    "evidence_in",
    "verify",
    "verify_folder",
]

Kind = Literal["edited", "deleted", "reordered", "cut", "replaced", "unanchored"]

KINDS: Final[Mapping[Kind, str]] = {
    "edited": "a record was changed",
    "deleted": "records are missing",
    "reordered": "records stand in another order, or twice",
    "cut": "the end is missing",
    "replaced": "another log stands in its place",
    "unanchored": "no signed head says how long it should be",
}
"""What may be wrong."""

_MOST_FINDINGS: Final = 20
_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: which.
        sentence: what, and where.
    """

    kind: Kind
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A log to check.

    Attributes:
        name: for people.
        files: each file's name and its lines, and whether each is whole.
        heads: lines of its heads, unchecked.
    """

    name: str
    files: Iterable[tuple[str, Iterable[tuple[bytes, bool]]]]
    heads: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found.

    Attributes:
        name: of the log, for people.
        log: the log's own name; "" where nobody says.
        first: number of the first record that is there; 0 for none.
        last: of the last.
        heads: signed heads.
        after_head: records after the last head: what is cut off of those does not show.
        unfinished_bytes: of a record that was being written when the process ended.
        findings: what is wrong, the first ones.
    """

    name: str
    log: str
    first: int
    last: int
    heads: int
    after_head: int
    unfinished_bytes: int
    findings: tuple[Finding, ...]


def evidence_in(folder: Path, heads: Path, more: Sequence[bytes] = ()) -> Evidence:
    """Return a chain on the disk.

    Args:
        folder: of its records.
        heads: the file of its heads.
        more: heads of another place.

    Returns:
        It; files are read when they are checked.

    Raises:
        OSError: if the heads cannot be read.
    """
    # Before the records: those go on while they are read.
    lines = [*read_heads(heads), *more]
    files = (
        (one.path.name, ((line.content, line.is_whole) for line in lines_of(one.path)))
        for one in segments_in(folder)
    )
    return Evidence(name=folder.name, files=files, heads=lines)


def verify_folder(
    folder: Path,
    heads: Path,
    *,
    public: bytes,
    code: bytes | None,
    more: Sequence[bytes] = (),
) -> Verdict:
    """Check a chain on the disk, which may go on meanwhile.

    Args:
        folder: as in `evidence_in`.
        heads: likewise.
        public: as in `verify`.
        code: likewise.
        more: as in `evidence_in`.

    Returns:
        What was found.

    Raises:
        OSError: if a file cannot be read.
    """
    for _ in range(_TRIES):
        try:
            return verify(evidence_in(folder, heads, more), public=public, code=code)
        except FileNotFoundError:
            continue  # old records went just now, and a record says so
    return verify(evidence_in(folder, heads, more), public=public, code=code)


def verify(evidence: Evidence, *, public: bytes, code: bytes | None) -> Verdict:
    """Check a log from its first record to its last.

    Args:
        evidence: the log.
        public: what checks the signatures of heads, 32 bytes.
        code: key of the records' codes; None where only hashes and heads are checked.

    Returns:
        What was found.

    Raises:
        OSError: if a file cannot be read.
    """
    walk = _Walk(code)
    heads = walk.heads_of(evidence.heads, public)
    for name, lines in evidence.files:
        walk.file(name, lines)
    walk.end(heads)
    counts = [head.count for head in heads]
    return Verdict(
        name=evidence.name,
        log=walk.log,
        first=walk.first,
        last=walk.last,
        heads=len(heads),
        after_head=max(0, walk.last - max(counts, default=0)),
        unfinished_bytes=walk.unfinished_bytes,
        findings=tuple(walk.findings[:_MOST_FINDINGS]),
    )


@dataclass(slots=True)
class _Walk:
    """What is known after the lines so far."""

    code: bytes | None
    log: str = ""
    first: int = 0  # lines before it that are damaged counted as well
    follows: str | None = None  # what the first one follows; None where it is damaged
    last: int = 0
    hash: str = ""
    n_damaged: int = 0  # lines since the last good one
    unfinished_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    hashes: dict[int, str] = field(default_factory=dict)  # of records that heads name
    is_covered: bool = False  # whether a record says that the beginning was to go

    def heads_of(self, lines: Sequence[bytes], public: bytes) -> list[Head]:
        heads: list[Head] = []
        for number, line in enumerate(lines, start=1):
            try:
                head = parse_head(line)
            except InputError:
                head = None
            if head is None or not is_signed(head, public):
                self._find("unanchored", f"head {number} was not signed with this log's key")
            else:
                heads.append(head)
                self.hashes[head.count] = ""
        return heads

    def file(self, name: str, lines: Iterable[tuple[bytes, bool]]) -> None:
        n_lines = n_bad = 0
        before = len(self.findings)
        for n_lines, (line, is_whole) in enumerate(lines, start=1):
            if not is_whole:
                # Nobody was told that it was written; more than that only heads can say.
                self.unfinished_bytes += len(line)
                continue
            self.unfinished_bytes = 0
            problem = self._line(line)
            if problem:
                n_bad += 1
                self._find("edited", f"{name}, line {n_lines}: {problem}")
        if n_bad > 1 and n_bad == n_lines:
            del self.findings[before:]
            self._find(
                "replaced", f"{name}: none of its {n_lines} records was written with this log's key"
            )

    def _line(self, line: bytes) -> str:
        """Go on by a line; return what is wrong with the line itself."""
        try:
            record = parse(line)
        except InputError:
            self.n_damaged += 1
            return "is no record any more"
        if self.code is not None and not has_valid_code(line, self.code):
            self.n_damaged += 1
            return f"record {record.seq} is not as it was written"
        self._record(record, hash_of(line))
        return ""

    def _record(self, record: Record, digest: str) -> None:
        if self.last == 0:
            self._begin(record)
        elif record.seq <= self.last:
            self._behind(record)
            return
        else:
            self._follow(record)
        if record.kind == "prune" and record.facts.get("through") == self.first - 1:
            self.is_covered |= self.follows in {None, record.facts.get("hash")}
        self.last, self.hash, self.n_damaged = record.seq, digest, 0
        if record.seq in self.hashes:
            self.hashes[record.seq] = digest

    def _begin(self, record: Record) -> None:
        self.log = str(record.facts.get("log", ""))
        if record.seq == 1 and record.previous != origin(self.log):
            self._find("replaced", "record 1 does not begin the log that it names")
        self.first = max(1, record.seq - self.n_damaged)
        self.follows = None if self.n_damaged else record.previous

    def _follow(self, record: Record) -> None:
        missing = record.seq - self.last - 1
        if missing > self.n_damaged:
            self.gaps.append((self.last + self.n_damaged + 1, record.seq - 1))
        elif missing < self.n_damaged:
            pass  # lines too many, which were found already
        elif missing == 0 and record.previous != self.hash:
            kind: Kind = "replaced" if self.code is not None else "edited"
            self._find(
                kind,
                f"record {record.seq} does not follow record {self.last}: one of "
                "them is from elsewhere",
            )

    def _behind(self, record: Record) -> None:
        for place, (begin, end) in enumerate(self.gaps):
            if begin <= record.seq <= end:
                left = [(begin, record.seq - 1), (record.seq + 1, end)]
                self.gaps[place : place + 1] = [one for one in left if one[0] <= one[1]]
                self._find("reordered", f"record {record.seq} stands after record {self.last}")
                return
        self._find("reordered", f"record {record.seq} stands again after record {self.last}")

    def end(self, heads: Sequence[Head]) -> None:
        for begin, end in self.gaps:
            self._find("deleted", f"records {begin} to {end} are missing")
        if self.first > 1 and not self.is_covered:
            self._find(
                "deleted",
                f"records 1 to {self.first - 1} are missing, and no record says that they "
                f"were to go",
            )
        others = sorted({head.log for head in heads if self.log and head.log != self.log})
        if others:
            self._find("replaced", f"this is log {self.log}, and heads were signed for {others[0]}")
            return
        last = max(heads, key=lambda head: head.count, default=None)
        if last is None:
            if self.last:
                self._find("unanchored", "there is no signed head, so its end may be missing")
            return
        if last.count > self.last + self.n_damaged:
            self._find(
                "cut",
                f"it ends with record {self.last}; the head of {last.time} was signed after "
                f"record {last.count}",
            )
        for head in heads:
            found = self.hashes[head.count]
            if found and found != head.hash:
                self._find(
                    "replaced", f"record {head.count} is not the one that was signed at {head.time}"
                )

    def _find(self, kind: Kind, sentence: str) -> None:
        self.findings.append(Finding(kind, sentence))
