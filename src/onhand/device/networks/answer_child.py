"""A process of its own that answers examples from a bundle: what a device would answer.

Called as `python -m onhand.device.networks.answer_child JOB`, a JSON file with `root`, `variant`,
`engine`, `threads` and `batches`: `.npz` files of arrays in, (N, ...) each. The N examples are
answered one by one; beside each file comes `.out.npz` with the arrays out, called "number:name",
and a line on stdout when it is there.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from onhand.core.bundle import read_bundle
from onhand.core.errors import OnhandError
from onhand.device.networks.opening import open_network

__all__ = ["main"]


def main(job: Path) -> int:
    """Answer; returns the process's exit code, and says on stderr what is wrong."""
    given = json.loads(job.read_text(encoding="utf-8"))
    try:
        bundle = read_bundle(Path(given["root"]))
        loaded, engine, _ = open_network(
            bundle, variant=given["variant"], engine=given["engine"], threads=given["threads"]
        )
        _write(json.dumps({"engine": engine}))
        for name in given["batches"]:
            place = Path(name)
            with np.load(place, allow_pickle=False) as file:
                feeds = {key: np.asarray(file[key]) for key in file.files}
            made: dict[str, Any] = {}
            for i in range(len(next(iter(feeds.values())))):
                outputs = loaded.run({key: array[i : i + 1] for key, array in feeds.items()})
                made |= {f"{i}:{key}": array for key, array in outputs.items()}
            np.savez(place.with_suffix(".out.npz"), **made)
            _write(json.dumps({"answered": place.name}))
        loaded.close()
    except OnhandError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
