"""A board that is reached over a real SSH connection on loopback."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A running board."""

    url: str
    home: Path
    identity: Path
    config: Path
    limited_by: str
    server: subprocess.Popen[str]

    @property
    def words(self) -> list[str]:
        """The options that reach it, with the Python that runs the tests."""
        return [*self.reach, "--python", sys.executable]

    @property
    def reach(self) -> list[str]:
        """The options that reach it."""
        keys = ["--identity", str(self.identity), "--ssh-config", str(self.config)]
        return ["--on", self.url, *keys]

    def running(self) -> list[int]:
        """Processes that were started with the board's home, but for its server."""
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.server.pid:
                continue
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"HOME={self.home}".encode() in environment:
                found.append(int(entry.name))
        return found

    def die(self) -> None:
        """Lose power: the server and all its connections are gone at once."""
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()


def keys(folder: Path) -> None:
    """Write the board's key and the user's, as OpenSSH's tools do."""
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a board and of its user."""
    pytest.importorskip("asyncssh", reason="the board of these tests is served by asyncssh")
    for tool in ("ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            pytest.skip(f"OpenSSH's {tool} is not installed here")
    folder = tmp_path_factory.mktemp("keys")
    keys(folder)
    return folder


@contextmanager
def started(folder: Path, key_folder: Path) -> Iterator[Board]:
    """A board whose host key is known, running while the block does."""
    home = folder / "board's home; $(touch owned)"
    shutil.copytree(key_folder, home)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.host.target.board", str(home)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        assert server.stdout is not None
        port, limited_by = server.stdout.readline().split()
        host_key = " ".join((home / "host_key.pub").read_text().split()[:2])
        made = Board(
            url=f"ssh://someone@127.0.0.1:{port}",
            home=home,
            identity=home / "user_key",
            config=folder / "ssh_config",
            limited_by=limited_by,
            server=server,
        )
        know(made.config, f"[127.0.0.1]:{port} {host_key}\n")
        yield made
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def know(config: Path, hosts: str) -> Path:
    """Write a configuration of OpenSSH that knows some hosts; return where they are listed."""
    known = config.with_name("known_hosts")
    known.write_text(hosts)
    config.write_text(f'UserKnownHostsFile "{known}"\nGlobalKnownHostsFile none\n')
    return known


@pytest.fixture(scope="session")
def lasting_board(tmp_path_factory: pytest.TempPathFactory, key_folder: Path) -> Iterator[Board]:
    """One board for many tests."""
    with started(tmp_path_factory.mktemp("board"), key_folder) as made:
        yield made


@pytest.fixture
def board(lasting_board: Board) -> Iterator[Board]:
    """A board on which nothing was measured before."""
    yield lasting_board
    shutil.rmtree(lasting_board.home / ".cache", ignore_errors=True)


@pytest.fixture
def mortal_board(tmp_path: Path, key_folder: Path) -> Iterator[Board]:
    """A board of this test alone, which may die."""
    with started(tmp_path, key_folder) as made:
        yield made
