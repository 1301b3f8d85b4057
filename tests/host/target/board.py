"""A board on loopback: an SSH server that runs commands by a real shell, within limits.

    python -m tests.host.target.board FOLDER

FOLDER holds the keys (`host_key`, `user_key.pub`) and becomes the board's home. The first line on
stdout is its port and how it is limited. Ending it is a board that dies.
"""

import asyncio
import contextlib
import os
import resource
import sys
from pathlib import Path

import asyncssh

MEMORY_BYTES = 8 * 2**30
FILE_BYTES = 64 * 2**20
CGROUP = Path("/sys/fs/cgroup")


def control_group() -> Path | None:
    """A control group of our own with one processor and little memory, where that may be made."""
    if not (CGROUP / "cgroup.controllers").is_file():
        return None
    made = CGROUP / f"onhand-board-{os.getpid()}"
    try:
        made.mkdir()
        (made / "cpu.max").write_text("100000 100000")
        (made / "memory.max").write_text(str(MEMORY_BYTES))
        (made / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        with contextlib.suppress(OSError):
            made.rmdir()
        return None
    return made


def limit() -> str:
    """Limit this process and all that it starts, and say by what."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    if control_group() is not None:
        return "cgroup-v2"
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return "affinity-and-rlimit"


async def _serve(folder: Path) -> None:
    environment = {
        "HOME": str(folder),
        "PATH": os.environ.get("ONHAND_BOARD_PATH", os.environ["PATH"]),
    } | {
        name: os.environ[name] for name in ("COVERAGE_PROCESS_START", "LANG") if name in os.environ
    }

    async def answer(process: "asyncssh.SSHServerProcess[bytes]") -> None:
        """Run one command as sshd does: its end of the pipes is closed when the client leaves."""
        greeting = folder / "greeting"
        if greeting.exists():
            process.stdout.write(greeting.read_bytes())
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            process.command or "",
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
        process.exit(await child.wait())

    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[str(folder / "host_key")],
        authorized_client_keys=str(folder / "user_key.pub"),
        process_factory=answer,
        encoding=None,
    )
    sys.stdout.write(f"{server.get_port()} {limit()}\n")
    sys.stdout.flush()
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
