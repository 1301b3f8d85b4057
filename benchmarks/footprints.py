"""What opened models take of memory, beside what was predicted before.

    python -m benchmarks.footprints BUNDLE... [--engines native,onnx] [--tokens 1000] [--json]
        [--out FILE.json]

Each bundle is opened by each engine in a process of its own, as `onhand serve` opens it, warmed up
by one step, and continued by --tokens tokens. "idle" is what it takes without a conversation,
"session" what the conversation took beside.
"""

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from onhand.core.bundle import read_bundle
from onhand.device.opening import open_bundle
from onhand.device.resident import resident_bytes
from onhand.device.serving.models.footprint import predicted
from onhand.device.serving.models.local import LocalModel
from onhand.device.serving.settings import ModelSettings
from onhand.device.threads import usable_threads

__all__ = ["main"]


def main() -> None:
    """Run the benchmark; print a table, or with --json the figures alone."""
    given = _arguments()
    if given.child:
        print(json.dumps(measure(given.bundles[0], given.child, given.tokens)))
        return
    rows = [
        _measured_apart(bundle, engine, given.tokens)
        for bundle in given.bundles
        for engine in given.engines
    ]
    results = {
        "command": " ".join(["python -m benchmarks.footprints", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": usable_threads(),
        "rows": rows,
    }
    print(json.dumps(results, indent=1) if given.json else table(rows))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["native", "onnx"])
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("out/footprints.json"))
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured_apart(bundle: Path, engine: str, tokens: int) -> dict[str, object]:
    words = ["-m", "benchmarks.footprints", str(bundle), "--child", engine, "--tokens", str(tokens)]
    done = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, object] = json.loads(done.stdout)
    return row


def measure(place: Path, engine: str, n_tokens: int) -> dict[str, object]:
    """Open a bundle in this process, and return what it took."""
    bundle = read_bundle(place)
    chosen, variant = bundle.variant(None)
    expected = predicted(bundle.manifest, variant, engine=engine, kv="")
    before = resident_bytes()
    opened = open_bundle(place, engine=engine)
    model = LocalModel(opened, ModelSettings(bundle=str(place)))
    model.warm_up()
    idle = resident_bytes() - before
    n_tokens = min(n_tokens, opened.loaded.context - 1)
    session = opened.loaded.session()
    tokens = np.arange(n_tokens) % min(250, opened.loaded.vocab_size)
    before = resident_bytes()
    for low in range(0, n_tokens, 200):
        opened.loaded.step([(session, tokens[low : low + 200])])
    took = resident_bytes() - before
    session.close()
    model.close()
    return {
        "bundle": bundle.manifest.name,
        "variant": chosen,
        "engine": engine,
        "predicted_idle_bytes": expected.weights_bytes,
        "idle_bytes": idle,
        "predicted_session_bytes": expected.session_bytes(n_tokens),
        "session_bytes": took,
        "tokens": n_tokens,
    }


def table(rows: list[dict[str, object]]) -> str:
    """Lay the figures out for people, in MB."""
    lines = ["| bundle | engine | idle: predicted | measured | session: predicted | measured |"]
    for row in rows:
        figures = [
            f"{int(str(row[name])) / 1e6:.1f}"
            for name in (
                "predicted_idle_bytes",
                "idle_bytes",
                "predicted_session_bytes",
                "session_bytes",
            )
        ]
        lines.append(f"| {row['bundle']} | {row['engine']} | {' | '.join(figures)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
