"""Damaged bundles whose hashes are right all the same, opened and run by the native engine.

    python -m tests.native.fuzz_bundle --count 100000 --seed 1

Each is refused with one of our errors, or it runs. A child process opens them, and a crash or any
other error names the number that makes the bundle again: `--seed NUMBER --count 1`.
"""

import argparse
import hashlib
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tests.damage import places, with_change

from onhand.core.bundle import read_bundle
from onhand.core.errors import OnhandError
from onhand.device.engines.native import NativeEngine
from onhand.device.probe import current_profile

__all__ = ["damage", "main", "run"]

SOURCE = Path(__file__).parents[1] / "data" / "tiny-bundle"
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
MEMORY_BYTES = 8 << 30
CHUNK = 2000  # bundles of one child
VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 4, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 96, 128, 319, 320, 321, 1000),
    *(2**16, 2**20, 2**22, 2**31 - 1, 2**31, 2**32, 2**63, 10**30, 0.5, 1e-30, 1e30, 1e300),
    *(float("nan"), float("inf"), None, True, False, "", "embed", "F16", "U8", "F32", "learned"),
    *("layer", "gelu", "int8", [], {}, [0], [1, 2], [0, 2**40]),
)


def _change(value: object, dice: random.Random, protected: tuple[str, ...] = ()) -> Any:
    """A copy of a JSON table with one or two values changed."""
    for _ in range(dice.randint(1, 2)):
        own = [place for place in places(value) if place[0] not in protected]
        if own:
            value = with_change(value, dice.choice(own), dice.choice(VALUES))
    return value


def _damage_weights(content: bytes, dice: random.Random) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + size], bytearray(content[8 + size :])
    kind = dice.choice((0, 1, 2, 3, 3, 3, 4, 4, 5))
    if kind == 0:  # names, types, shapes and places
        table = _change(json.loads(header), dice)
        header = json.dumps(table).encode()
        header += b" " * (-len(header) % 8)
    elif kind == 1:  # bytes of the header
        broken = bytearray(header)
        broken[dice.randrange(size)] = dice.randrange(256)
        header = bytes(broken)
    elif kind == 2:  # its length
        claimed = dice.choice((0, 1, size - 1, size + 1, size + 8, 2**31, 2**63, 2**64 - 1))
        return claimed.to_bytes(8, "little") + header + bytes(data)
    elif kind == 3:  # numbers: infinite ones, and none at all
        for _ in range(dice.randint(1, 40)):
            at = dice.randrange(len(data) // 2) * 2
            data[at : at + 2] = dice.choice((b"\x00\x7c", b"\xff\xff", b"\xff\x7b", b"\x01\x00"))
    elif kind == 4:
        at, n = dice.randrange(len(data)), dice.randrange(4096)
        data[at : at + n] = dice.randbytes(len(data[at : at + n]))
    else:
        del data[dice.randrange(len(data)) :]
    return len(header).to_bytes(8, "little") + header + bytes(data)


def damage(root: Path, seed: int) -> None:
    """Write the tiny bundle into a folder that holds it, with damage and fresh hashes.

    Args:
        root: a copy of the tiny bundle.
        seed: says what is damaged.
    """
    dice = random.Random(seed)  # noqa: S311 - it has to come back
    manifest: dict[str, Any] = json.loads((SOURCE / MANIFEST).read_bytes())
    for variant in manifest["variants"].values():
        variant["accuracy_level"] = 4
    content = (SOURCE / WEIGHTS).read_bytes()
    what = dice.choice((0, 1, 1, 1, 2))
    if what != 0:
        content = _damage_weights(content, dice)
    if what != 1:
        # What says how large files are is not what is looked for here.
        manifest = _change(manifest, dice, protected=("files", "format", "kind"))
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    manifest["files"][WEIGHTS] = entry
    (root / WEIGHTS).write_bytes(content)
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    (root / MANIFEST).write_text(text)


def run(root: Path) -> str:
    """Open a bundle and use every call of its sessions.

    Args:
        root: the bundle.

    Returns:
        "runs", or the name of the error that refuses it.
    """
    engine = NativeEngine()
    try:
        bundle = read_bundle(root)
        variant, _ = bundle.variant(None)
        if engine.why_not(bundle, current_profile(), variant=variant) is not None:
            return "why_not"
        loaded = engine.open(bundle, variant=variant, threads=2)
        session = loaded.session(context=min(loaded.context, 70))
        tokens = np.arange(min(session.context, 66)) % loaded.vocab_size
        loaded.score(session, tokens)
        fork = session.fork()
        fork.rewind(tokens.size // 2)
        loaded.step([(fork, tokens[:1])])
        fork.load_state(session.save_state())
    except OnhandError as error:
        return type(error).__name__
    return "runs"


def _child(first: int, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    np.seterr(all="ignore")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bundle"
        shutil.copytree(SOURCE, root)
        for seed in range(first, first + count):
            sys.stdout.write(f"{seed} ")
            sys.stdout.flush()
            damage(root, seed)
            sys.stdout.write(f"{run(root)}\n")


def main(arguments: list[str]) -> int:
    """Run bundles in child processes; return 1 if one of them crashed or raised another error."""
    parser = argparse.ArgumentParser(description="Damaged bundles for the native engine.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        _child(given.seed, given.count)
        return 0
    seen: Counter[str] = Counter()
    failed, seed, end = 0, given.seed, given.seed + given.count
    while seed < end:
        words = ["--child", "--seed", str(seed), "--count", str(min(CHUNK, end - seed))]
        command = [sys.executable, "-X", "faulthandler", "-m", __spec__.name, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        rows = [line.split() for line in done.stdout.splitlines()]
        seen.update(row[1] for row in rows if len(row) == 2)
        seed = int(rows[-1][0]) + 1 if rows else end
        if done.returncode != 0:
            failed += 1
            sys.stderr.write(f"seed {seed - 1}: exit {done.returncode}\n{done.stderr}\n")
    sys.stdout.write(f"{sum(seen.values())} bundles, {failed} failed: {dict(seen.most_common())}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
