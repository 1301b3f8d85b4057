"""The same measurement on a board as here: `onhand bench` and `onhand probe`, run there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from onhand.core.errors import InputError, OnhandError
from onhand.core.measurement import Measurement, measurement_from_json
from onhand.core.outside import parse_json
from onhand.core.profile import DeviceProfile, parse_profile
from onhand.core.progress import Progress, Quiet
from onhand.host.plain import read_plain_bundle
from onhand.host.target.address import BoardAddress
from onhand.host.target.copying import copy_bundle
from onhand.host.target.failures import explain_command
from onhand.host.target.install import (
    BoardFacts,
    Runtime,
    facts_from_answer,
    install_runtime,
    present_runtime,
)
from onhand.host.target.link import Link, Ran, open_link
from onhand.host.target.package import here

__all__ = ["LIMIT_S", "BoardFigures", "BoardWays", "bench_on", "probe_on"]

LIMIT_S: Final = 3600.0
_PROFILE = "profile.toml"
_SHOW_PROFILE = """
from onhand.core.profile import render_profile
from onhand.device.probe import current_profile
print(render_profile(current_profile()), end="")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardWays:
    """A board, and how to work on it.

    Attributes:
        address: where it is.
        identity: a file with a private key, or None for those that OpenSSH finds.
        config: a configuration of OpenSSH, or None for the user's.
        python: a Python there that has this onhand, or None to install it there.
        wheels: a folder of packages to copy along, or None for the board's package index.
        is_kept: whether what was copied and installed stays there for the next time.
        limit_s: seconds that everything together may take.
    """

    address: BoardAddress
    identity: Path | None = None
    config: Path | None = None
    python: str | None = None
    wheels: Path | None = None
    is_kept: bool = False
    limit_s: float = LIMIT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardFigures:
    """What was measured on a board.

    Attributes:
        figures: by name; the `how` of each names the board and its profile.
        profile: what the board is, without its bandwidth.
    """

    figures: Mapping[str, Measurement]
    profile: DeviceProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class _Board:
    link: Link
    facts: BoardFacts
    runtime: Runtime
    progress: Progress

    def onhand(self, words: Sequence[str], what: str) -> str:
        """Run a command of onhand there, and return what it writes."""
        command = [self.runtime.python, "-P", "-m", "onhand", *words]
        return self.python(command, what, _relay(self.progress, what))

    def python(
        self, command: Sequence[str], what: str, on_line: Callable[[str], None] | None = None
    ) -> str:
        """Run a command there, and return what it writes."""
        home = {"ONHAND_HOME": f"{self.facts.folder}/home", "NO_COLOR": "1"}
        # Signatures were checked here: the board trusts nobody yet.
        home["ONHAND_TRUST"] = "any"
        ran = self.link.run(command, environment=home, on_line=on_line)
        return _output(self.link, what, ran)


def bench_on(
    root: Path, ways: BoardWays, *, options: Sequence[str] = (), progress: Progress | None = None
) -> BoardFigures:
    """Measure a bundle on a board: size, speed, memory, energy.

    Args:
        root: the bundle's folder, here.
        ways: the board.
        options: those of `onhand bench`, as on its command line.
        progress: told of copying, installing and measuring.

    Returns:
        The figures, and whose they are.

    Raises:
        InputError: if the bundle, an option, or what the board answers cannot be accepted.
        BundleCorrupt: if a file of the bundle is missing or changed, here or there.
        BundleTooNew: if its format is a later one.
        EngineError: if no engine can run it there, or one fails.
        ResourceError: if the board cannot be reached, lacks something, or time is up.
    """
    shown = progress or Quiet()
    bundle = read_plain_bundle(root)
    with _open_board(ways, shown) as board:
        free = board.facts.free_bytes
        folder = copy_bundle(board.link, bundle, free_bytes=free, progress=shown)
        show = [board.runtime.python, "-P", "-c", _SHOW_PROFILE]
        profile = _profile(ways.address, board.python(show, "reading its profile"))
        if profile.machine != here().machine:
            shown.note(f"these are figures of {profile.name} ({profile.machine}), not of here")
        words = ["bench", f"{board.facts.folder}/{folder}", *options, "--json"]
        output = board.onhand(words, "measuring")
    figures = figures_from_output(output, where=str(ways.address))
    name = bundle.manifest.name
    marked = {key: _marked(one, ways.address, name, profile) for key, one in figures.items()}
    return BoardFigures(figures=marked, profile=profile)


def probe_on(ways: BoardWays, *, progress: Progress | None = None) -> DeviceProfile:
    """Measure what a board has.

    Args:
        ways: the board.
        progress: told of installing and measuring.

    Returns:
        Its profile.

    Raises:
        InputError: if what the board answers cannot be accepted.
        EngineError: if measuring fails there.
        ResourceError: if the board cannot be reached, lacks something, or time is up.
    """
    with _open_board(ways, progress or Quiet()) as board:
        board.onhand(["probe", "--output", f"{board.facts.folder}/{_PROFILE}"], "probing")
        text = board.link.ask("read", name=_PROFILE).get("text")
    return _profile(ways.address, str(text))


@contextmanager
def _open_board(ways: BoardWays, progress: Progress) -> Iterator[_Board]:
    progress.start(f"connecting with {ways.address}", 1)
    link = open_link(
        ways.address,
        identity=ways.identity,
        config=ways.config,
        python=ways.python,
        limit_s=ways.limit_s,
    )
    try:
        hello = link.ask("hello", folder=ways.address.folder)
        facts = facts_from_answer(hello, str(ways.address))
        progress.advance(1)
        with _cleaned(link, ways, progress):
            if ways.python is not None:
                runtime = present_runtime(link, facts.executable)
            else:
                runtime = install_runtime(link, facts, wheels=ways.wheels, progress=progress)
            yield _Board(link=link, facts=facts, runtime=runtime, progress=progress)
    finally:
        link.close()


@contextmanager
def _cleaned(link: Link, ways: BoardWays, progress: Progress) -> Iterator[None]:
    """End what runs there, and remove what was made, however the block ends."""
    try:
        yield
    except BaseException:
        link.stop()
        if not ways.is_kept:
            _try_to_clean(link)
        raise
    # The figures are here by now: they are worth more than the room there.
    if not ways.is_kept and not _try_to_clean(link):
        progress.note(f"{ways.address}: what was copied could not be removed there")


def _try_to_clean(link: Link) -> bool:
    try:
        link.clean()
    except OnhandError:
        return False
    return True


def _relay(progress: Progress, what: str) -> Callable[[str], None]:
    progress.start(f"{what} on the board", 1)

    def relay(line: str) -> None:
        if line.startswith("note: "):
            progress.note(f"on the board: {line.removeprefix('note: ')}")
        elif line.endswith(" ..."):
            progress.start(f"on the board: {line.removesuffix(' ...')}", 1)

    return relay


def _output(link: Link, what: str, ran: Ran) -> str:
    if ran.code == 0:
        return ran.output
    raise explain_command(
        link.address,
        what,
        code=ran.code,
        ended=ran.ended,
        lines=ran.lines,
        limit_s=link.limit_s,
    )


def figures_from_output(output: str, *, where: str) -> dict[str, Measurement]:
    """Read what `onhand bench --json` wrote.

    Args:
        output: its standard output.
        where: the board's address, for messages.

    Returns:
        The measurements, by name.

    Raises:
        InputError: if it is anything else.
    """
    try:
        table = parse_json(output.encode())
        if not isinstance(table, dict) or not table:
            raise InputError("no JSON object of figures")
        return {name: measurement_from_json(one) for name, one in table.items()}
    except InputError as error:
        raise InputError(f"{where}: what it measured cannot be read: {error}") from error


def _profile(address: BoardAddress, text: str) -> DeviceProfile:
    try:
        return parse_profile(text)
    except InputError as error:
        raise InputError(f"{address}: {error}") from error


def _marked(
    figure: Measurement, address: BoardAddress, name: str, profile: DeviceProfile
) -> Measurement:
    command, separator, notes = figure.how.partition("  # ")
    begin = f"onhand bench {name}"
    if command.startswith(begin):
        command = f"{begin} --on {address}{command.removeprefix(begin)}"
    whose = f"on {profile.name} ({profile.system}, {profile.machine})"
    return replace(figure, how=f"{command}  # {notes}{'; ' if separator else ''}{whose}")
